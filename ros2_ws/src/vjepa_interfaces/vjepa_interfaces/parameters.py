"""Reading a frozen dataclass from named values: ROS parameters, planner options and YAML alike."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from vjepa_interfaces.errors import VjepaError

T = TypeVar("T")


class ParameterError(VjepaError):
    """A parameter of an unknown name or a wrong type; the message gives the valid ones."""


def read_parameters(config_class: type[T], values: Mapping[str, Any]) -> T:
    """Return an instance of the dataclass `config_class` made from `values` (a missing one keeps its default).

    An int is taken for a float, and a list for a tuple; nothing else is converted.

    Raises:
        ParameterError: a name that is no field, or a value of another type than the field's.
    """
    fields = {field.name: field for field in dataclasses.fields(config_class)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ParameterError(
            f"unknown parameter {', '.join(unknown)}; valid are: {', '.join(sorted(fields)) or '(none)'}"
        )
    hints = typing.get_type_hints(config_class)
    return config_class(**{name: _convert(name, value, hints[name]) for name, value in values.items()})


def _convert(name: str, value: Any, hint: Any) -> Any:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for option in options:
        if option is type(None):
            if value is None:
                return None
        elif typing.get_origin(option) is tuple:
            if isinstance(value, list | tuple) or type(value).__name__ in ("array", "ndarray"):
                element = typing.get_args(option)[0]
                return tuple(_convert(name, item, element) for item in value)
        elif option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        elif type(value) is option:
            return value
    expected = " or ".join(getattr(option, "__name__", str(option)) for option in options)
    raise ParameterError(f"parameter '{name}' is {value!r}; expected {expected}")
