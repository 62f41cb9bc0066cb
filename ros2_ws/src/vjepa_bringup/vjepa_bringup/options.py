"""Launch arguments as text, for the launch file and the command line."""

import dataclasses
import typing
from collections.abc import Iterable
from typing import Any

from vjepa_bringup.graph import OPTION_PARAMETERS, StackOptions, default_parameters
from vjepa_interfaces.address import shown
from vjepa_interfaces.deprecated import LAUNCH_ARGUMENT, current_names
from vjepa_interfaces.errors import VjepaError, unknown_name
from vjepa_interfaces.parameters import descriptions

TRUE, FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


def parse_option(name: str, text: str) -> Any:
    """Return the value that `text` gives the option `name` of `StackOptions`.

    Raises:
        VjepaError: the option does not exist, or the text is not of its type.
    """
    hints = typing.get_type_hints(StackOptions)
    if name not in hints:
        raise unknown_name("launch argument", name, hints)
    types = [kind for kind in (typing.get_args(hints[name]) or (hints[name],)) if kind is not type(None)]
    kind = types[0]
    if typing.get_origin(kind) is tuple:
        try:
            return tuple(int(part) for part in text.strip("[]").split(",") if part.strip())
        except ValueError as error:
            raise VjepaError(f"{name} is '{text}'; expected whole numbers with commas between") from error
    if kind is bool:
        if text.lower() not in TRUE + FALSE:
            raise VjepaError(f"{name} is '{text}'; expected true or false")
        return text.lower() in TRUE
    try:
        return kind(text)
    except ValueError as error:
        raise VjepaError(f"{name} is '{text}'; expected a whole number") from error


def parse_options(words: Iterable[str]) -> StackOptions:
    """Return the options of launch arguments `NAME:=VALUE`.

    Raises:
        VjepaError: a word is not a launch argument, an option does not exist, or a text is not of its type.
    """
    texts = {}
    for word in words:
        name, assigned, text = word.partition(":=")
        if not assigned:
            raise VjepaError(f"'{shown(word)}' is not a launch argument; expected NAME:=VALUE, such as planner:=cem")
        texts[name] = text
    values = current_names(LAUNCH_ARGUMENT, texts)
    return StackOptions(**{name: parse_option(name, text) for name, text in values.items()})


def option_default(name: str) -> str:
    """Return the default of the option `name` as text; empty if the parameter files decide."""
    return _text(getattr(StackOptions, name))


def option_help(name: str) -> str:
    """Return the help of the option `name` from the docstring of `StackOptions`, with its value when unset."""
    line = descriptions(StackOptions).get(name, "")
    nodes = [node for node, names in OPTION_PARAMETERS.items() if name in names]
    if not nodes:
        return line
    return f"{line} Unset: the value in params_file, else {_text(default_parameters()[nodes[0]][name]) or 'none'}."


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return "" if value is None else str(value)


def replace(options: StackOptions, **changes: Any) -> StackOptions:
    """Return `options` with `changes`; a change of None keeps the value."""
    return dataclasses.replace(options, **{name: value for name, value in changes.items() if value is not None})
