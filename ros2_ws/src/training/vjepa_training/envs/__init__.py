"""The simulation for learning online."""
