"""From latents to torques: contract and registry of planners, the planners and their node."""
