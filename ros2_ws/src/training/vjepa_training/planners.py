"""What the command line may ask of planners without running any."""

from vjepa_planner.registry import available


def installed_planners() -> list[str]:
    """Return the names of all planners installed, sorted."""
    return available()
