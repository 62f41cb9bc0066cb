"""Finding planners by name: entry points of the group `vjepa_planner.planners`, in this package or anyone's.

A third party's package adds a planner by declaring, in its own setup, the entry point
`name = its.module:ItsPlanner`, where `ItsPlanner` subclasses `contract.Planner`. A planner's module is imported only
when that planner is loaded.
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
    """Return the names of all planners installed, sorted. Nothing is imported to find them."""
    return sorted({point.name for point in _points()[0]})


@contextmanager
def failures_named(what: str) -> Iterator[None]:
    """Raise whatever a third party's code raises as a VjepaError that begins with `what`: the others must go on.

    That includes `sys.exit`, and exceptions that have no text. A VjepaError and an interruption by the user stay.
    """
    try:
        yield
    except (VjepaError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise VjepaError(f"{what}: {described(error)}") from error


def described(error: BaseException) -> str:
    """Return class and text of an exception, of whatever kind it is."""
    try:
        text = str(error)
    except Exception:
        text = "(its text cannot be read)"
    return f"{type(error).__name__}: {text}"


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
    what = f"planner '{name}' ({planner_class.__module__})"
    with failures_named(f"{what} could not be made"):
        config: Any = read_parameters(planner_class.Config, options, "option", f"planner '{name}'")
        planner = planner_class(config, context)
    with failures_named(f"{what} cannot be used"):
        _check_made(what, planner)
    return planner


def load_class(name: str) -> type[Planner]:
    """Return the class of the planner `name`, importing its module.

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
    """Return the entry points of planners, and which packages have entry points that cannot be read."""
    try:
        return list(entry_points(group=GROUP)), []
    except Exception:  # One package's damaged file hides those of all the others.
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
    """Refuse an instance whose attributes are not those that the contract states."""
    unknown = [str(need) for need in planner.needs if need not in INPUTS]
    if unknown:
        raise VjepaError(f"{what} needs {', '.join(unknown)}; an observation has {', '.join(sorted(INPUTS))}")
    if not isinstance(planner.encoder_fingerprint, str | None):
        raise VjepaError(f"{what} has encoder_fingerprint {planner.encoder_fingerprint!r}; expected a text or None")
    if not isinstance(planner.trained_period_s, int | float | None):
        raise VjepaError(f"{what} has trained_period_s {planner.trained_period_s!r}; expected seconds or None")


def refuse_unknown_planners(parameters: Mapping[str, Any]) -> None:
    """Refuse, before anything is started, a planner that there is not, by the parameters of `vjepa_planner`, flat.

    Raises:
        VjepaError: naming it, and those there are.
    """
    for name in (parameters["planner"], *parameters.get("planners", ()), *parameters.get("fallbacks", ())):
        if name not in available():
            raise unknown_name("planner", name, available())


def options_of(planner: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a planner among the `parameters` of `vjepa_planner`, flat, where they are `NAME.OPTION`."""
    return {name.partition(".")[2]: value for name, value in parameters.items() if name.startswith(f"{planner}.")}
