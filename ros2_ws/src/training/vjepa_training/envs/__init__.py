"""Provide the simulation for online learning."""
