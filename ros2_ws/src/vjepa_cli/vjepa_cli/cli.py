"""The `vjepa` command line."""

import argparse
import importlib
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from vjepa_cli.commands import COMMANDS

PROG = "vjepa"
GROUP_OF = {
    "matplotlib": "plot",
    "pyarrow": "train",
    "gymnasium": "train",
    "stable_baselines3": "train",
    "tensorboard": "train",
    "rerun": "view",
}
"""Modules that a run does without, each with the group of packages that brings it. `./vjepa` installs the group of a
command by itself; only a command that was started in another way can miss one."""


class Command(NamedTuple):
    """What a command line asks for.

    Attributes:
        function: of the command; it takes the arguments and returns the exit status.
        arguments: an instance of the dataclass of the command's options.
    """

    function: Callable[[Any], int]
    arguments: Any

    def run(self) -> int:
        """Run the command and return its exit status."""
        return self.function(self.arguments)


def parse(words: Sequence[str]) -> Command:
    """Return what the words of a command line ask for. Only the module of that command is imported.

    Raises:
        SystemExit: help was asked for, or the words cannot be taken; which, and why, has been printed.
        VjepaError: the values of options do not go together.
    """
    helps = {name: text for name, (_, text) in COMMANDS.items()}
    name = _chosen(PROG, "COMMAND", helps, words, "A camera frame becomes a V-JEPA 2 latent becomes a torque.")
    module = importlib.import_module(f"vjepa_cli.commands.{COMMANDS[name][0]}")
    from vjepa_cli.command_line import read

    actions = {key: action for key, action in module.ACTIONS.items() if key.split()[0] == name}
    count = 1
    if name not in actions:
        helps = {key.partition(" ")[2]: _summary(_config_class(each.function)) for key, each in actions.items()}
        name, count = f"{name} {_chosen(f'{PROG} {name}', 'ACTION', helps, words[1:])}", 2
    action, rest = actions[name], words[count:]
    default = action.defaults(rest) if action.defaults else None
    return Command(action.function, read(_config_class(action.function), rest, f"{PROG} {name}", default))


def _chosen(prog: str, metavar: str, helps: Mapping[str, str], words: Sequence[str], description: str = "") -> str:
    """Return the first of `words`, which must be a name of `helps`; print help, or refuse it, as argparse does."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    names = parser.add_subparsers(title=f"{metavar.lower()}s", required=True, metavar=metavar, dest="name")
    for name, text in helps.items():
        names.add_parser(name, help=text.replace("%", "%%"), add_help=False)
    return parser.parse_args(words[:1]).name


def _config_class(function: Callable[[Any], int]) -> type:
    """Return the dataclass of the options that the function of a command takes."""
    return next(iter(typing.get_type_hints(function).values()))


def _summary(config_class: type) -> str:
    """Return the first line of a dataclass' docstring, which states what its command does."""
    import inspect

    return (inspect.getdoc(config_class) or "").partition("\n")[0].rstrip(".")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; exit status 0 only when it did all it was asked for.

    Everything is imported in here, so that Ctrl-C during the first second ends in a word and not in a traceback.
    """
    try:
        from vjepa_interfaces.errors import VjepaError

        try:
            status = parse(sys.argv[1:] if arguments is None else list(arguments)).run()
        except VjepaError as error:
            print(f"vjepa: {error}", file=sys.stderr)
            status = 1
        except ModuleNotFoundError as error:
            if (group := GROUP_OF.get((error.name or "").partition(".")[0])) is None:
                raise
            print(f"vjepa: {error}; install it with: ./vjepa --with {group} --setup-only", file=sys.stderr)
            status = 1
    except KeyboardInterrupt:
        print("vjepa: interrupted", file=sys.stderr)
        status = 130
    sys.exit(status)


if __name__ == "__main__":
    main()
