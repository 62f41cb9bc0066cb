"""From weights to scores."""
