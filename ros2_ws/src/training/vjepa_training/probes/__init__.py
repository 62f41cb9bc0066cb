"""Probe the content of an encoder's latents."""
