"""The networks that planners compute with and training trains."""
