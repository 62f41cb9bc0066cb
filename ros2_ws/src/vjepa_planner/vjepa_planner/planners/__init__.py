"""The planners of this package; each is an entry point of the group `vjepa_planner.planners`."""
