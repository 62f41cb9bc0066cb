"""Views that commands draw: the viewer, animations and pictures."""
