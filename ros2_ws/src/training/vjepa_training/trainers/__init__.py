"""From datasets to weights."""
