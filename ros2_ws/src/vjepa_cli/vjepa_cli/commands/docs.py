"""`vjepa docs`: write the tables of pages that are made from the code, or check that they are up to date.

On a page such a table is between `<!-- vjepa docs: NAME -->` and `<!-- end -->`; NAME identifies its content.
"""

import functools
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sim_bridge.arm_stand_in import ArmStandInParameters
from sim_bridge.sim_parameters import SimParameters
from vjepa_bags.recorder_parameters import RecorderParameters
from vjepa_bringup.graph import StackOptions, default_parameters, option_names
from vjepa_bringup.manager_parameters import ManagerParameters
from vjepa_cli.command_line import Action
from vjepa_cli.commands import COMMANDS
from vjepa_interfaces.errors import VjepaError, unknown_name
from vjepa_interfaces.guard_parameters import GuardParameters
from vjepa_interfaces.parameters import descriptions, live_names, range_of
from vjepa_interfaces.tables import markdown_table
from vjepa_perception.camera_parameters import CameraParameters
from vjepa_perception.perception_parameters import PerceptionParameters
from vjepa_planner.planner_parameters import PlannerParameters
from vjepa_planner.registry import available, load_class

PAGES = ("docs/interface.md", "docs/planners.md", "docs/dependencies.md")
REQUIREMENTS = Path("requirements")
PARAMETERS: dict[str, type] = {
    "sim_bridge": SimParameters,
    "camera": CameraParameters,
    "vjepa_perception": PerceptionParameters,
    "vjepa_planner": PlannerParameters,
    "episode_recorder": RecorderParameters,
    "effort_guard": GuardParameters,
    "arm_stand_in": ArmStandInParameters,
    "stack_manager": ManagerParameters,
}
"""The class of parameters of each node."""
ROS_TYPES = {bool: "bool", int: "int", float: "double", str: "string"}

_PART = re.compile(r"(?<=<!-- vjepa docs: )([\w .-]+) -->\n(?:(?!<!--).)*(?=<!-- end -->)", re.DOTALL)
_PIN = re.compile(r"(?P<package>[\w.-]+(?:\[\w+])?)==(?P<version>[\w.]+)(?: ; [^#]*)?(?:\s+# (?P<reason>.+))?")


@dataclass(frozen=True, kw_only=True)
class DocsCommand:
    """Write the tables of pages that are made from the code.

    Attributes:
        check: write nothing, and fail if a table differs from the code.
    """

    check: bool = False


def docs_command(arguments: DocsCommand) -> int:
    """Run `vjepa docs`."""
    pages = {Path(page): _text(Path(page)) for page in PAGES}
    written = {page: _PART.sub(lambda part: f"{part[1]} -->\n{_table(part[1])}", text) for page, text in pages.items()}
    _refuse_missing("".join(written.values()))
    differing = [page for page, text in written.items() if text != pages[page]]
    if arguments.check and differing:
        names = " and ".join(map(str, differing))
        raise VjepaError(f"{names}: a table differs from the code; write it with: ./vjepa docs")
    for page in differing:
        page.write_text(written[page], encoding="utf-8")
        print(f"{page}: written")
    return 0


def _text(page: Path) -> str:
    if not page.is_file():
        raise VjepaError(f"{page} is not here; run this in the folder of the checkout")
    return page.read_text(encoding="utf-8")


def _table(name: str) -> str:
    """Return the table of a name, with a newline at its end.

    Raises:
        VjepaError: no table has this name, or a pin has no reason.
    """
    match name.split():
        case ["parameters", node] if node in PARAMETERS:
            return parameter_table(node)
        case ["planner", planner] if planner in _own_options():
            return options_table("option", load_class(planner).Config, _own_options()[planner])
        case ["launch", "arguments"]:
            about = descriptions(StackOptions)
            rows = ((f"`{n}`", _value(getattr(StackOptions, n)), about[n].removesuffix(".")) for n in option_names())
            return _markdown(("argument", "default", "meaning"), rows)
        case ["options"]:
            options = {name: value for name, value in default_parameters()["vjepa_planner"].items() if "." in name}
            return _markdown(("option", "default"), ((f"`{o}`", _value(v)) for o, v in options.items()))
        case ["commands"]:
            return _markdown(("command", "what it is for"), ((f"`{c}`", about) for c, (_, about) in COMMANDS.items()))
        case ["packages", *files] if files:
            return package_table(files)
    raise unknown_name("table of vjepa docs:", name, _tables())


def _tables() -> list[str]:
    """Return the names of all tables."""
    files = sorted(path.stem for path in REQUIREMENTS.glob("*.in"))
    nodes = [f"parameters {node}" for node in PARAMETERS]
    planners = [f"planner {planner}" for planner in _own_options()]
    return ["commands", "launch arguments", "options", *nodes, *planners, *(f"packages {file}" for file in files)]


def _refuse_missing(text: str) -> None:
    """Refuse pages that lack a table; one table of packages may be of several files."""
    found = [part[1].split() for part in _PART.finditer(text)]
    there = {" ".join((kind, each)) if each else kind for kind, *of in found for each in of or [""]}
    if missing := [name for name in _tables() if name not in there]:
        raise VjepaError(
            f"no page has the table '{missing[0]}'; write <!-- vjepa docs: {missing[0]} --> and <!-- end -->"
        )


@functools.cache
def _own_options() -> dict[str, list[str]]:
    """Return the options of each of the project's planners, by planner, without options that it inherits unchanged."""
    own = [name for name in available() if load_class(name).__module__.startswith("vjepa_planner.")]
    configs = {name: load_class(name).Config for name in own}
    options = {}
    for name, config in configs.items():
        bases = [base for base in config.__mro__[1:] if base in configs.values()]
        inherited = {(field.name, field.default) for base in bases for field in fields(base)}
        options[name] = [field.name for field in fields(config) if (field.name, field.default) not in inherited]
    return {name: names for name, names in options.items() if names}


def parameter_table(node: str) -> str:
    """Return the table of a node's parameters, with the defaults of the stack."""
    names = [field.name for field in fields(PARAMETERS[node])]
    return options_table("parameter", PARAMETERS[node], names, default_parameters().get(node, {}))


def options_table(
    head: str, config_class: type, names: Iterable[str], defaults: Mapping[str, Any] = MappingProxyType({})
) -> str:
    """Return the table of the fields of a dataclass.

    Args:
        head: heading of the column of fields.
        config_class: the dataclass.
        names: names of the fields.
        defaults: defaults by name that differ from those of the dataclass.
    """
    hints, about, live = typing.get_type_hints(config_class), descriptions(config_class), live_names(config_class)
    defaults = {field.name: field.default for field in fields(config_class)} | dict(defaults)
    rows = []
    for name in names:
        bounds = str(range_of(config_class, name) or "").removesuffix(", and finite")
        kind = f"{_type(hints[name])}{', *live*' if name in live else ''}"
        rows.append((f"`{name}`", kind, _value(defaults[name]), bounds, about[name].removesuffix(".")))
    return _markdown((head, "type", "default", "bounds", "meaning"), rows)


def package_table(files: Sequence[str]) -> str:
    """Return the table of the packages that files of `requirements/` pin; each package is listed once.

    Raises:
        VjepaError: a pin has no reason in any of the files.
    """
    versions: dict[str, list[str]] = {}
    reasons: dict[str, str] = {}
    for file in files:
        for pin in filter(None, map(_PIN.fullmatch, _text(REQUIREMENTS / f"{file}.in").splitlines())):
            known = versions.setdefault(pin["package"], [])
            known += [] if pin["version"] in known else [pin["version"]]
            reasons.setdefault(pin["package"], pin["reason"] or "")
    for package, known in versions.items():
        if not reasons[package]:
            where, example = f"{REQUIREMENTS}/{files[0]}.in", f"{package}=={known[0]}  # WHY"
            raise VjepaError(f"{where}: {package} has no reason; write it behind the pin: {example}")
    rows = ((f"`{package}`", ", ".join(known), reasons[package]) for package, known in versions.items())
    return _markdown(("package", "version", "why"), rows)


def _type(hint: Any) -> str:
    if typing.get_origin(hint) is tuple:
        first, *others = typing.get_args(hint)
        return f"{ROS_TYPES[first]}[{'' if Ellipsis in others else 1 + len(others)}]"
    if isinstance(hint, types.UnionType):
        return " or ".join(map(_type, typing.get_args(hint)))
    return ROS_TYPES[hint]


def _value(value: Any) -> str:
    if value is None:
        return "*unset*"
    if value == "":
        return "*empty*"
    if isinstance(value, list | tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return markdown_table([head, *rows]) + "\n"


ACTIONS = {"docs": Action(docs_command)}
