"""The networks of planners, which training trains."""
