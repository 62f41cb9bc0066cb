"""Finding planners by name: entry points of the group `vjepa_planner.planners`, in this package or anyone's.

A third party's package adds a planner by declaring, in its own setup, the entry point
`name = its.module:ItsPlanner`, where `ItsPlanner` subclasses `contract.Planner`. A planner's module is imported only
when that planner is loaded.
"""

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from vjepa_interfaces.errors import VjepaError, unknown_name
from vjepa_interfaces.parameters import read_parameters
from vjepa_planner.contract import Planner, PlannerContext

GROUP = "vjepa_planner.planners"


def available() -> list[str]:
    """Return the names of all planners installed, sorted. Nothing is imported to find them."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def load_planner(name: str, options: Mapping[str, Any], context: PlannerContext) -> Planner:
    """Return the planner `name`, made with `options` for the arm in `context`, loaded and warm.

    Args:
        name: one of `available()`.
        options: values for fields of the planner's `Config`; the others keep their documented defaults.
        context: what the arm and stack tell the planner.

    Raises:
        VjepaError: no such planner or option, a value of a wrong type, a package that cannot be imported (it is
            named), or whatever the planner itself refuses.
    """
    planner_class = load_class(name)
    try:
        config: Any = read_parameters(planner_class.Config, options, "option", f"planner '{name}'")
        return planner_class(config, context)
    except VjepaError:
        raise
    except Exception as error:  # whatever a third party's planner raises, the stack's others must go on
        raise VjepaError(
            f"planner '{name}' ({planner_class.__module__}) could not be made: {type(error).__name__}: {error}"
        ) from error


def load_class(name: str) -> type[Planner]:
    """Return the class of the planner `name`, importing its module.

    Raises:
        VjepaError: as in `load_planner`.
    """
    points = list(entry_points(group=GROUP, name=name))
    if not points:
        raise unknown_name("planner", name, available())
    if len(points) > 1:
        owners = " and ".join(_owner(point) for point in points)
        raise VjepaError(f"planner '{name}' is declared by {owners}; uninstall all but one")
    (point,) = points
    try:
        loaded = point.load()
    except Exception as error:  # a third party's module may raise anything while it is imported
        raise VjepaError(
            f"planner '{name}' of {_owner(point)} could not be imported from {point.value}: "
            f"{type(error).__name__}: {error}; repair or uninstall that package"
        ) from error
    if not (isinstance(loaded, type) and issubclass(loaded, Planner)):
        raise VjepaError(
            f"planner '{name}' of {_owner(point)} is {point.value}, which is not a subclass of "
            "vjepa_planner.contract.Planner; subclass it"
        )
    return loaded


def _owner(point: EntryPoint) -> str:
    return f"package '{point.dist.name}' {point.dist.version}" if point.dist else "an unknown package"
