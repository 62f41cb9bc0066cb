"""The `vjepa` command line."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from vjepa_cli.commands import COMMANDS

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


def build_parser(words: Sequence[str] | None = None) -> argparse.ArgumentParser:
    """Return the parser; a command sets `function`, which takes the arguments and returns a status.

    Args:
        words: what was typed, for a parser that knows the options of that command alone: to import the others takes a
            second, and some need ROS. None for a parser that knows all.
    """
    parser = argparse.ArgumentParser(
        prog="vjepa", description="A camera frame becomes a V-JEPA 2 latent becomes a torque."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    wanted = COMMANDS.get(words[0], ("",))[0] if words else ""
    for module, names in _modules().items():
        if words is None or module == wanted:
            importlib.import_module(f"vjepa_cli.commands.{module}").add_parsers(commands)
        else:
            for name in names:
                commands.add_parser(name, help=COMMANDS[name][1])
    return parser


def _modules() -> dict[str, list[str]]:
    """Return the commands that each module knows."""
    found: dict[str, list[str]] = {}
    for name, (module, _) in COMMANDS.items():
        found.setdefault(module, []).append(name)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; exit status 0 only when it did all it was asked for.

    Everything is imported in here, so that Ctrl-C during the first second ends in a word and not in a traceback.
    """
    try:
        from vjepa_interfaces.errors import VjepaError

        words = sys.argv[1:] if arguments is None else list(arguments)
        parsed = build_parser(words).parse_args(words)
        try:
            status = parsed.function(parsed)
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
