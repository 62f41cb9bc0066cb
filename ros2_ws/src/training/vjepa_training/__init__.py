"""Turn bags into datasets, datasets into weights, and weights into scores, offline."""
