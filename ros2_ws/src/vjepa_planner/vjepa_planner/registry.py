"""Planners by name: entry points of the group `vjepa_planner.planners`, in this package or any other.

Another package adds a planner with the entry point `name = its.module:ItsPlanner` in its own setup. `ItsPlanner`
subclasses `contract.Planner`. A planner's module is imported only when the planner is loaded.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import EntryPoint, distributions, entry_points
from typing import Any

from vjepa_interfaces.errors import VjepaError, unknown_name
from vjepa_interfaces.parameters import read_parameters
from vjepa_planner.contract import INPUTS, Planner, PlannerContext

GROUP = "vjepa_planner.planners"


def available() -> list[str]:
    """Return the names of all installed planners, sorted, without an import of their modules."""
    return sorted({point.name for point in _points()[0]})


@contextmanager
def failures_named(what: str) -> Iterator[None]:
    """Turn any exception of foreign code into a VjepaError that begins with `what`, so that other planners continue.

    This includes `sys.exit` and exceptions without a text. A VjepaError or a KeyboardInterrupt passes unchanged.

    Raises:
        VjepaError: the code in the context raised an exception.
    """
    try:
        yield
    except (VjepaError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise VjepaError(f"{what}: {described(error)}") from error


def described(error: BaseException) -> str:
    """Return class and text of any exception, even if its text cannot be read."""
    try:
        text = str(error)
    except Exception:
        text = "(its text cannot be read)"
    return f"{type(error).__name__}: {text}"


def load_planner(name: str, options: Mapping[str, Any], context: PlannerContext) -> Planner:
    """Return the planner `name` with `options` for the arm in `context`, loaded and warmed up.

    Args:
        name: one of `available()`.
        options: values for fields of the planner's `Config`; other fields keep their documented defaults.
        context: the arm and the stack.

    Raises:
        VjepaError: the planner or an option does not exist, or a value is of a wrong type. Or a package cannot be
            imported, or the planner itself refuses.
    """
    planner_class = load_class(name)
    what = f"planner '{name}' ({planner_class.__module__})"
    with failures_named(f"{what} could not be made"):
        config: Any = read_parameters(planner_class.Config, options, "option", f"planner '{name}'")
        planner = planner_class(config, context)
    with failures_named(f"{what} cannot be used"):
        _check_made(what, planner)
    return planner


def load_class(name: str) -> type[Planner]:
    """Import the module of the planner `name`, and return the planner's class.

    Raises:
        VjepaError: as in `load_planner`.
    """
    found, unreadable = _points()
    points = [point for point in found if point.name == name]
    if not points:
        unknown = unknown_name("planner", name, available())
        raise VjepaError("; ".join([str(unknown), *unreadable])) if unreadable else unknown
    if len(points) > 1:
        owners = " and ".join(_owner(point) for point in points)
        raise VjepaError(f"planner '{name}' is declared by {owners}; uninstall all but one")
    (point,) = points
    what = f"planner '{name}' of {_owner(point)}"
    with failures_named(f"{what}, to be repaired or uninstalled, could not be imported from {point.value}"):
        loaded = point.load()
    if not (isinstance(loaded, type) and issubclass(loaded, Planner)):
        raise VjepaError(
            f"{what} is {point.value}, which is not a subclass of vjepa_planner.contract.Planner; subclass it"
        )
    return loaded


def _owner(point: EntryPoint) -> str:
    return f"package '{point.dist.name}' {point.dist.version}" if point.dist else "an unknown package"


def _points() -> tuple[list[EntryPoint], list[str]]:
    """Return the entry points of planners, and a text for each package whose entry points cannot be read."""
    try:
        return list(entry_points(group=GROUP)), []
    except Exception:  # The damaged file of one package hides the entry points of all others.
        points: dict[tuple[str, str], EntryPoint] = {}
        unreadable = []
        for distribution in distributions():
            try:
                of_planners = distribution.entry_points.select(group=GROUP)
            except Exception as error:
                unreadable.append(f"the entry points of package '{distribution.name}' are damaged: {described(error)}")
                continue
            for point in of_planners:
                points.setdefault((distribution.name, point.name), point)
        return list(points.values()), unreadable


def _check_made(what: str, planner: Planner) -> None:
    """Refuse an instance whose attributes break the contract."""
    unknown = [str(need) for need in planner.needs if need not in INPUTS]
    if unknown:
        raise VjepaError(f"{what} needs the inputs {', '.join(unknown)}; valid are: {', '.join(sorted(INPUTS))}")
    if not isinstance(planner.encoder_fingerprint, str | None):
        raise VjepaError(f"{what} has encoder_fingerprint {planner.encoder_fingerprint!r}; expected a text or None")
    periods: Any = planner.trained_periods_s
    if not isinstance(periods, tuple) or not all(isinstance(value, int | float) for value in periods):
        raise VjepaError(f"{what} has trained_periods_s {periods!r}; expected a tuple of seconds")


def refuse_unknown_planners(parameters: Mapping[str, Any]) -> None:
    """Refuse unknown planners in the flat `parameters` of `vjepa_planner`, before anything is started.

    Raises:
        VjepaError: a planner does not exist; the message lists all planners.
    """
    valid = available()
    for name in (parameters["planner"], *parameters.get("planners", ()), *parameters.get("fallbacks", ())):
        if name not in valid:
            raise unknown_name("planner", name, valid)


def options_of(planner: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a planner, without its prefix `NAME.`, from the flat `parameters` of `vjepa_planner`."""
    return {name.partition(".")[2]: value for name, value in parameters.items() if name.startswith(f"{planner}.")}
