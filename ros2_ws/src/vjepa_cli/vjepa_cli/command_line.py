"""The options of a command, which tyro makes from a frozen dataclass: a field is an option, or a `Positional` argument.

A config contains options by field, as in an experiment's stage and in a result. `read_config` reads a config, `stated`
returns the config of an instance, and `words_of` returns the words of the same command line.

The help of an option is its entry under `Attributes` in the dataclass' docstring. Its bounds, choices and default are
those of the field. A refused word leads to one line on standard error and exit status 2.
"""

import dataclasses
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

import tyro
from tyro import _errors as refusals  # tyro has no public way to a refusal of one line; its pin fixes this one.
from tyro.conf import DisallowNone, Positional, Suppress, UseAppendAction, arg
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from vjepa_interfaces.deprecated import current_name, current_names
from vjepa_interfaces.errors import unknown_name
from vjepa_interfaces.parameters import ParameterError, check_ranges, descriptions, read_parameters

T = TypeVar("T")

LogLevel = Literal["debug", "info", "warn", "error", "fatal"]
USAGE = 2
"""Exit status of a command with a refused word."""
_REGISTRY = ConstructorRegistry()
_ARG: Any = type(arg())


@dataclasses.dataclass(frozen=True)
class Action:
    """The function of a command, and the defaults of its options.

    Attributes:
        function: takes an instance of the options' dataclass, which annotates its parameter, and returns the exit
            status.
        preset: field of the option that sets the defaults of other options; empty for none.
        settings: returns, for a value of that option, the dataclass instance with these defaults.
    """

    function: Callable[[Any], int]
    preset: str = ""
    settings: Callable[[Any], Any] | None = None

    @property
    def config_class(self) -> type[Any]:
        """The dataclass of the options."""
        return next(iter(typing.get_type_hints(self.function).values()))

    @property
    def options(self) -> list[str]:
        """Names of the options, which are fields of the dataclass."""
        return [name for name, hint in _hints(self.config_class).items() if Suppress not in typing.get_args(hint)]

    def defaults(self, chosen: Any) -> dict[str, Any]:
        """Return the defaults, by field, for the value `chosen` of the option `preset`; empty if it is unset."""
        return dict(vars(self.settings(chosen))) if self.settings and chosen else {}

    def defaults_by(self, words: Sequence[str]) -> Any:
        """Return the options with the defaults that the words of a command line choose; None for the class' defaults.

        A required option has the value `tyro.MISSING`.
        """
        if not self.preset:
            return None
        name = f"--{self.preset}"
        is_flag = getattr(self.config_class, self.preset) is False
        settings = self.defaults(name in words if is_flag else value_of(name, words))
        required = {field.name: tyro.MISSING for field in dataclasses.fields(self.config_class) if _is_required(field)}
        return self.config_class(**required | settings) if settings else None


def option(*, name: str | None = None, metavar: str | None = None, default: str | None = None) -> object:
    """Return an annotation for an `Annotated` type that changes the name or the help of an option.

    Args:
        name: name of the option, if it differs from the field.
        metavar: placeholder of the value in the help.
        default: default in words, for a field whose own default does not show it; empty for none.
    """
    hint = default and f"(default: {default})"
    return arg(name=name, metavar=metavar, help_behavior_hint=hint)


UNSET = option(default="the parameters'")
"""Annotation of an option whose default the parameter files set; an option with the default None gets it by itself."""


def parsed_by(parse: Callable[[str], Any], metavar: str, many: bool = False) -> PrimitiveConstructorSpec[Any]:
    """Return an annotation for an `Annotated` type that has a function parse one word, or each word of a tuple.

    Args:
        parse: returns the value of a word, or raises a ValueError.
        metavar: placeholder of the words in the help.
        many: whether the option takes any number of words.
    """
    return PrimitiveConstructorSpec(
        nargs="*" if many else 1,
        metavar=metavar,
        instance_from_str=lambda words: tuple(map(parse, words)) if many else parse(words[0]),
        is_instance=lambda value: True,
        str_from_instance=lambda value: list(map(str, value)) if many else [str(value)] if value else [],
    )


def read(config_class: type[T], words: Sequence[str], prog: str, default: T | None = None) -> T:
    """Return the instance of `config_class` that the words of a command line describe.

    Args:
        config_class: a dataclass.
        words: options and arguments, after the names of the command.
        prog: names of the command, for its help and its refusals.
        default: instance whose values replace the defaults of the class; `tyro.MISSING` in it marks a required option.

    Raises:
        SystemExit: help was requested, or a word was refused.
        VjepaError: the values cannot be combined.
    """

    def refuse(event: refusals.ParseErrorEvent) -> None:
        if text := _text(event):
            _refuse(prog, text)

    defaults: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with refusals.on_parse_error(refuse):
            config = tyro.cli(
                config_class, args=words, prog=prog, config=(DisallowNone,), registry=_REGISTRY, **defaults
            )
        check_ranges(config)
    except ParameterError as error:
        name, _, problem = str(error).partition(" ")
        _refuse(prog, f"{_option_name(name)} {problem}")
    return config


def current_words(kind: str, words: Sequence[str]) -> list[str]:
    """Return the words of a command line by their present names; deprecated options and values are reported.

    Args:
        kind: name of the action, such as `train bc`.
        words: options and arguments, after the names of the command.
    """
    current: list[str] = []
    option_name = ""
    for word in words:
        if word.startswith("--"):
            given, equals, value = word.partition("=")
            option_name = _current_option(kind, given)
            current.append(f"{option_name}{equals}{current_name(option_name, value)}")
        else:
            current.append(current_name(option_name, word))
            option_name = ""
    return current


def _current_option(kind: str, given: str) -> str:
    """Return the present name of an option of an action, such as `--batch-size` or `--no-joint-state`."""
    sign = "--no-" if given.startswith("--no-") else "--"
    field = given.removeprefix(sign).replace("-", "_")
    name = current_name(kind, field, _option_name)
    return given if name == field else _option_name(name).replace("--", sign, 1)


def read_config(action: Action, config: Mapping[str, Any], of: str) -> Any:
    """Return the options of an action from a config.

    Args:
        action: the action whose options are read.
        config: values by field, which may have a deprecated name; a list stands for a tuple, and a text
            for a tuple of one.
        of: name of the action.

    Raises:
        ParameterError: an option is unknown, cannot have its value, or is required and missing.
        VjepaError: the values cannot be combined.
    """
    valid = action.options
    config = {
        name: current_name(_option_name(name), value) if isinstance(value, str) else value
        for name, value in current_names(of, config).items()
    }
    for name in config:
        if name not in valid:
            raise unknown_name(f"option of {of}:", name, valid)
    hints = _hints(action.config_class)
    config = {name: [v] if isinstance(v, str) and _takes_texts(hints[name]) else v for name, v in config.items()}
    chosen = config.get(action.preset)
    settings = action.defaults(chosen) if isinstance(chosen, bool | str) else {}
    return read_parameters(action.config_class, settings | dict(config), "option", of)


def _takes_texts(hint: Any) -> bool:
    """Return whether the values of a type are tuples of texts."""
    inner = typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint
    return bool(inner == tuple[str, ...])


def stated(action: Action, options: Any) -> dict[str, Any]:
    """Return the config of an action's options: plain values by field, without options at their defaults."""
    defaults = action.defaults(getattr(options, action.preset, None))
    return {
        field.name: _plain(value)
        for field in dataclasses.fields(options)
        if (value := getattr(options, field.name)) != defaults.get(field.name, _default(field, None))
    }


def words_of(action: Action, config: Mapping[str, Any]) -> list[str]:
    """Return the words of the command line of a config, arguments before options."""
    hints = _hints(action.config_class)
    arguments: list[str] = []
    options: list[str] = []
    for name, value in config.items():
        extras = typing.get_args(hints[name])[1:]
        named = next((extra.name for extra in extras if isinstance(extra, _ARG) and extra.name), name)
        option_name = _option_name(named)
        if Positional in extras:
            arguments += _texts(value, extras)
        elif isinstance(value, bool):
            options.append(option_name if value else option_name.replace("--", "--no-", 1))
        elif UseAppendAction in extras:
            options += [word for item in value for word in (option_name, "=".join(map(str, item)))]
        elif value is not None:
            options += [option_name, *_texts(value, extras)]
    return [*arguments, *options]


def _option_name(field: str) -> str:
    """Return the option of a field on a command line, such as `--batch-size`."""
    return f"--{field.replace('_', '-')}"


def _texts(value: Any, extras: Sequence[Any]) -> list[str]:
    """Return the words of a value: one word, or one for each item of a list."""
    if not isinstance(value, list | tuple):
        return [str(value)]
    as_one = any(isinstance(extra, PrimitiveConstructorSpec) and extra.nargs == 1 for extra in extras)
    return [",".join(map(str, value))] if as_one else list(map(str, value))


def _plain(value: Any) -> Any:
    """Return a value in the types of JSON and YAML."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def value_of(option_name: str, words: Sequence[str]) -> str | None:
    """Return the value of an option in the words of a command line; None if the option is missing."""
    found = None
    for word, following in zip(words, [*words[1:], ""], strict=False):
        if word == option_name:
            found = following
        elif word.startswith(f"{option_name}="):
            found = word.partition("=")[2]
    return found


def _refuse(prog: str, text: str) -> NoReturn:
    print(f"{prog}: error: {' '.join(text.split())}; see: {prog} --help", file=sys.stderr)
    sys.exit(USAGE)


def _text(event: refusals.ParseErrorEvent) -> str:
    """Return the reason of a refusal in one line; empty for a kind of refusal that tyro explains itself."""
    match event:
        case refusals.MissingArgs():
            names = ", ".join(each.arg.display_name() for each in event.missing_arguments)
            also = f"; unrecognized arguments: {' '.join(event.unrecognized_tokens)}"
            return f"the following arguments are required: {names}{also if event.unrecognized_tokens else ''}"
        case refusals.MissingMutexGroup():
            names = " or ".join(each.arg.display_name() for each in event.groups[0])
            return f"one of the arguments {names} is required"
        case refusals.MutexConflict():
            return f"argument {event.second_token}: not allowed with argument {event.first_token}"
        case refusals.BadValue():
            return f"argument {event.argument.display_name()}: expected {_expected(event.argument.lowered.nargs)}"
        case refusals.InvalidChoice():
            name, choices = event.argument.display_name(), ", ".join(event.choices)
            return f"argument {name}: invalid choice: '{event.value}' (choose from {choices})"
        case refusals.UnrecognizedArgs():
            return f"unrecognized arguments: {' '.join(event.tokens)}"
        case refusals.InstantiationFailure():
            return f"argument {event.argument.display_name()}: {event.message}" if event.argument else event.message
    return ""


def _expected(nargs: object) -> str:
    return f"{nargs} arguments" if isinstance(nargs, int) and nargs > 1 else "one argument"


@_REGISTRY.struct_rule
def _fields(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Read a dataclass field by field, with the help from its docstring and the docstrings of its bases.

    tyro's own rule uses two libraries, for docstrings and for checks of defaults, which take longer than all else.
    """
    if not dataclasses.is_dataclass(info.type):
        return None
    helps, hints = descriptions(info.type), _hints(info.type)
    given = info.default if isinstance(info.default, info.type) else None  # Otherwise it is a sentinel of tyro.
    fields = [
        StructFieldSpec(field.name, _type(hints[field.name], field), _default(field, given), helps.get(field.name))
        for field in dataclasses.fields(info.type)
    ]
    return StructConstructorSpec(info.type, tuple(fields))


def _hints(config_class: type) -> dict[str, Any]:
    """Return the types of a dataclass' fields with their annotations, by field."""
    hints = typing.get_type_hints(config_class, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(config_class)}


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return _default(field, None) is tyro.MISSING


def _default(field: dataclasses.Field[Any], instance: Any) -> Any:
    """Return the default of a field: its value in `instance` if there is one, else the default of the class."""
    if instance is not None:
        return getattr(instance, field.name)
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return tyro.MISSING if field.default is dataclasses.MISSING else field.default


def _type(hint: Any, field: dataclasses.Field[Any]) -> Any:
    """Return the type of a field for tyro; an option with the default None and no annotation gets `UNSET`."""
    is_stated = any(isinstance(extra, _ARG) for extra in typing.get_args(hint)[1:])
    return _none_first(hint if is_stated or field.default is not None else typing.Annotated[hint, UNSET])


def _none_first(hint: Any) -> Any:
    """Return a type with None as its first choice, because tyro takes long to see that None is not another choice."""
    if typing.get_origin(hint) is typing.Annotated:
        inner, *extras = typing.get_args(hint)
        return typing.Annotated[(_none_first(inner), *extras)]
    if typing.get_origin(hint) is types.UnionType and types.NoneType in typing.get_args(hint):
        return typing.Union[(None, *typing.get_args(hint))]
    return hint


@_REGISTRY.primitive_rule
def _optional(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Read an option that may be None as its type without None: no word means None."""
    choices = [each for each in typing.get_args(info.type) if each is not types.NoneType]
    if info.type_origin not in (typing.Union, types.UnionType) or len(choices) != 1:
        return None
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(choices[0], info.markers))
    if not isinstance(spec, PrimitiveConstructorSpec):
        return None
    return dataclasses.replace(
        spec,
        is_instance=lambda value: value is None or spec.is_instance(value),
        str_from_instance=lambda value: ["none"] if value is None else spec.str_from_instance(value),
    )


@_REGISTRY.primitive_rule
def _number(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Read a number, and refuse other words with a plain message."""
    if info.type not in (int, float):
        return None
    kind = info.type

    def parsed(words: list[str]) -> int | float:
        try:
            return kind(words[0])
        except ValueError:
            raise ValueError(f"'{words[0]}' is not a {'whole ' if kind is int else ''}number") from None

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=kind.__name__.upper(),
        instance_from_str=parsed,
        is_instance=lambda value: isinstance(value, kind),
        str_from_instance=lambda value: [str(value)],
    )
