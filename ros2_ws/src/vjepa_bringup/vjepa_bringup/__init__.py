"""Launch files, parameter files, stack manager, recorder and the vjepa command line."""
