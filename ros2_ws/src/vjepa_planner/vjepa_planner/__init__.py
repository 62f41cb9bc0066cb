"""Latents to torques: planner contract, registry, planners and their node."""
