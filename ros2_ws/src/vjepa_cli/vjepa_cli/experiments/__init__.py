"""Experiments by name, online rounds and the page of results."""
