"""Evaluate planners and score their episodes."""
