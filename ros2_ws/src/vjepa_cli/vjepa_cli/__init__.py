"""The `vjepa` command line."""
