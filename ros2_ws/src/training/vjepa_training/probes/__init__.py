"""What an encoder's latents hold."""
