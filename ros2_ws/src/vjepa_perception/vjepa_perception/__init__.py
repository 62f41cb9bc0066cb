"""Camera frames to V-JEPA 2 latents."""
