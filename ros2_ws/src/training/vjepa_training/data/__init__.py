"""Datasets: from bags or simulation to rows, and on to others."""
