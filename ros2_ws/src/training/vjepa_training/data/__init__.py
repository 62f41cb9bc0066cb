"""Make datasets from bags or simulation, and export them."""
