"""What commands draw: the viewer, animations, pictures."""
