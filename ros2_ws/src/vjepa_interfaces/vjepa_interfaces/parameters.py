"""Reading a frozen dataclass from named values: ROS parameters, planner options and YAML alike.

The section `Attributes` of the dataclass' docstring describes each field, and the type contains its bounds:
`Annotated[float, Range(above=0)]`. A class that is also constructed directly calls `check_ranges` in `__post_init__`.
"""

import contextlib
import dataclasses
import functools
import inspect
import math
import re
import types
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from vjepa_interfaces.errors import VjepaError

T = TypeVar("T")

_SCALARS = (bool, int, float, str)
_OF_ROS = ("use_sim_time", "qos_overrides")
"""Parameters that rclpy gives every node; the second is a prefix, with a dot after it."""


class ParameterError(VjepaError):
    """A parameter with an unknown name or a wrong type, or a missing one; the message lists the valid ones."""


@dataclasses.dataclass(frozen=True)
class Range:
    """The allowed values of a number, or of every number in a tuple; they must be finite.

    Attributes:
        low: the least value allowed.
        high: the largest value allowed.
        above: values must be larger than this.
    """

    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf

    def __contains__(self, value: float) -> bool:
        return math.isfinite(value) and self.low <= value <= self.high and value > self.above

    def __str__(self) -> str:
        low = f"more than {self.above:.10g}" if self.above > -math.inf else ""
        low = low or (f"at least {self.low:.10g}" if self.low > -math.inf else "")
        high = f"at most {self.high:.10g}" if self.high < math.inf else ""
        return " and ".join(filter(None, (low, high))) + ("" if high else ", and finite")


class Live:
    """Marks a parameter that may be set while its node runs: `Annotated[bool, LIVE]`."""


LIVE = Live()


@functools.cache
def _hints(config_class: type) -> dict[str, Any]:
    return typing.get_type_hints(config_class, include_extras=True)


def range_of(config_class: type, name: str) -> Range | None:
    """Return the range of the numbers of a dataclass' field; None if it has no range."""
    return next((each for each in typing.get_args(_hints(config_class)[name])[1:] if isinstance(each, Range)), None)


def live_names(config_class: type) -> frozenset[str]:
    """Return the names of a dataclass' fields that are marked `LIVE`."""
    return frozenset(name for name, hint in _hints(config_class).items() if LIVE in typing.get_args(hint)[1:])


def check_ranges(config: Any) -> None:
    """Refuse an instance of a dataclass with a number that is out of its field's `Range`.

    Raises:
        ParameterError: naming the field, its value and what was expected.
    """
    for field in dataclasses.fields(config):
        allowed = range_of(type(config), field.name)
        if allowed is not None:
            _within(field.name, getattr(config, field.name), [allowed])


@functools.cache
def descriptions(config_class: type) -> dict[str, str]:
    """Return the description of each attribute from the docstrings of a dataclass and its bases, as one line."""
    found: dict[str, str] = {}
    for each in reversed(config_class.__mro__):
        found |= _described_in(each.__doc__ or "")
    return found


def _described_in(docstring: str) -> dict[str, str]:
    """Return the descriptions in the section `Attributes` of one docstring, by name."""
    _, _, section = inspect.cleandoc(docstring).partition("Attributes:\n")
    found: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if match := re.fullmatch(r" {4}(\w+): (.*)", line):
            name = match[1]
            found[name] = match[2]
        elif line.startswith(" " * 8) and name:
            found[name] += f" {line.strip()}"
        elif line.strip():
            break
    return found


def read_parameters(config_class: type[T], values: Mapping[str, Any], kind: str = "parameter", of: str = "") -> T:
    """Return an instance of the dataclass `config_class` made from `values` (a missing one keeps its default).

    Fields of type bool, int, float, str, Path and `Literal`, and tuples and unions of these and None, are checked. The
    dataclass checks other fields itself. An int is converted to a float, a str to a Path, and a list or array to a
    tuple; no other value is converted.

    Args:
        config_class: a dataclass.
        values: the values by field name.
        kind: the name of a value in messages.
        of: the owner in messages, such as `planner 'expert'`.

    Raises:
        ParameterError: a name is no field, or a field without a default has no value. Or a value has another type than
            its field, or is out of its `Range`.
    """
    owner = f" of {of}" if of else ""
    fields = {field.name: field for field in dataclasses.fields(config_class) if field.init}  # type: ignore[arg-type]
    valid = ", ".join(sorted(fields)) or "(none)"
    unknown = sorted(set(values) - set(fields))
    if unknown:
        names = ", ".join(f"'{name}'" for name in unknown)
        raise ParameterError(f"unknown {kind}{owner}: {names}; valid are: {valid}")
    missing = [name for name, field in fields.items() if name not in values and _is_required(field)]
    if missing:
        names = ", ".join(f"'{name}'" for name in missing)
        raise ParameterError(f"{kind}{owner} {names} is missing, and has no default; give it")
    hints = _hints(config_class)  # type: ignore[arg-type]
    return config_class(**{n: _convert(f"{kind} '{n}'{owner}", value, hints[n]) for n, value in values.items()})


def read_node_parameters(
    config_class: type[T], values: Mapping[str, Any], node: str, plugins: Collection[str] = ()
) -> T:
    """Return the parameters of a node from its section of a parameter file, as the node itself would read them.

    Args:
        config_class: the dataclass of the node's parameters.
        values: the values by flat name. Parameters that rclpy gives every node are ignored.
        node: name of the node, for messages.
        plugins: names of plug-ins; their options, `NAME.OPTION`, are ignored too.

    Raises:
        ParameterError: as `read_parameters`.
    """
    others = {*_OF_ROS, *plugins}
    own = {name: value for name, value in values.items() if name.partition(".")[0] not in others}
    return read_parameters(config_class, own, of=node)


def as_base(base: type[T], config: T, **changes: Any) -> T:
    """Return the fields of the base class `base` of a dataclass' instance, as an instance of `base`.

    Args:
        base: a dataclass.
        config: an instance of it, or of a dataclass that inherits from it.
        changes: fields with another value.
    """
    kept = {field.name: getattr(config, field.name) for field in dataclasses.fields(base)}  # type: ignore[arg-type]
    return base(**kept | changes)


def check_choices(config: Any) -> None:
    """Check every value of a dataclass whose field is a `Literal` against its choices.

    Raises:
        ParameterError: a value is not among the choices; the message gives the field, the value and the choices.
    """
    for name, hint in _hints(type(config)).items():  # type: ignore[arg-type]
        value = getattr(config, name)
        if typing.get_origin(hint) is typing.Literal and value not in typing.get_args(hint):
            raise ParameterError(f"{name} is {value!r}; expected {' or '.join(typing.get_args(hint))}")


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _convert(what: str, value: Any, hint: Any) -> Any:
    """Return `value` in the type `hint`, or refuse it with a ParameterError that names it `what`."""
    if typing.get_origin(hint) is typing.Annotated:
        hint, *extras = typing.get_args(hint)
        return _within(what, _convert(what, value, hint), [each for each in extras if isinstance(each, Range)])
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
    for option in options:
        if option in _SCALARS:
            if option is float and isinstance(value, int | float) and not isinstance(value, bool):
                with contextlib.suppress(OverflowError):
                    return float(value)
            if type(value) is option:
                return value
        elif option is type(None):
            if value is None:
                return None
        elif option is Path:
            if isinstance(value, str | Path):
                return Path(value)
        elif typing.get_origin(option) is typing.Literal:
            if value in typing.get_args(option):
                return value
        elif typing.get_origin(option) is tuple:
            if isinstance(value, list | tuple):
                return _convert_items(what, list(value), option)
            if type(value).__name__ in ("array", "ndarray"):
                return _convert_items(what, value.tolist(), option)
        else:
            return value
    has_choices = any(typing.get_origin(option) is typing.Literal for option in options)
    expected = " or ".join(map(_type_name, options))
    raise ParameterError(f"{what} is {value!r}; expected {expected if has_choices else f'a value of type {expected}'}")


def _within(what: str, value: Any, ranges: list[Range]) -> Any:
    """Return `value`, whose numbers must lie in each of `ranges`."""
    several = isinstance(value, tuple)
    for number in value if several else (value,):
        for allowed in ranges:
            if number is not None and number not in allowed:
                shown, expected = (list(value), f"values of {allowed}") if several else (value, str(allowed))
                raise ParameterError(f"{what} is {shown}; expected {expected}")
    return value


def _convert_items(what: str, items: list[Any], hint: Any) -> tuple[Any, ...]:
    elements = typing.get_args(hint)
    if len(elements) == 2 and elements[1] is Ellipsis:
        elements = (elements[0],) * len(items)
    if len(items) != len(elements):
        raise ParameterError(f"{what} has {len(items)} values; expected {len(elements)}")
    pairs = zip(items, elements, strict=True)
    return tuple(_convert(f"value {i} of {what}", item, element) for i, (item, element) in enumerate(pairs))


def _is_union(hint: Any) -> bool:
    return isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union


def _type_name(option: Any) -> str:
    if option is type(None):
        return "None"
    if typing.get_origin(option) is typing.Literal:
        return " or ".join(typing.get_args(option))
    if typing.get_origin(option) is tuple:
        elements = typing.get_args(option)
        count = "" if Ellipsis in elements else f"{len(elements)} "
        example = {int: "64", float: "0.5", str: "name", bool: "true"}.get(elements[0], "value")
        return f"list of {count}{_type_name(elements[0])}, such as [{', '.join([example] * 2)}]"
    return option.__name__ if isinstance(option, type) and not typing.get_args(option) else str(option)
