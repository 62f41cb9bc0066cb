"""The `vjepa` command line."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from vjepa_cli.commands import COMMANDS

if TYPE_CHECKING:
    from vjepa_cli.actions import Command

PROG = "vjepa"
GROUP_OF = {
    "matplotlib": "plot",
    "pyarrow": "train",
    "gymnasium": "train",
    "stable_baselines3": "train",
    "tensorboard": "train",
    "rerun": "view",
}
"""The group of packages that contains each optional module. `./vjepa` installs the group of a command by itself; only a
command that was started in another way can lack a module."""


def parse(words: Sequence[str]) -> "Command":
    """Return the command that the words of a command line name. Only the module of this command is imported.

    Raises:
        SystemExit: help was requested, or a word was refused; the help or the reason has been printed.
        VjepaError: the values of options cannot be combined.
    """
    helps = {name: text for name, (_, text) in COMMANDS.items()}
    kind = _chosen(PROG, "COMMAND", helps, words, "A camera frame becomes a V-JEPA 2 latent becomes a torque.")
    from vjepa_cli.actions import Command, actions_of
    from vjepa_cli.command_line import current_words, read

    actions, count = actions_of(kind), 1
    if kind not in actions:
        helps = {name.partition(" ")[2]: _summary(action.config_class) for name, action in actions.items()}
        kind, count = f"{kind} {_chosen(f'{PROG} {kind}', 'ACTION', helps, words[1:])}", 2
    action, rest = actions[kind], current_words(kind, words[count:])
    return Command(kind, read(action.config_class, rest, f"{PROG} {kind}", action.defaults_by(rest)))


def _chosen(prog: str, metavar: str, helps: Mapping[str, str], words: Sequence[str], description: str = "") -> str:
    """Return the first of `words`, a name in `helps`; print help or refuse another word, as argparse does."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    names = parser.add_subparsers(title=f"{metavar.lower()}s", required=True, metavar=metavar, dest="name")
    for name, text in helps.items():
        names.add_parser(name, help=text.replace("%", "%%"), add_help=False)
    return parser.parse_args(words[:1]).name


def _summary(config_class: type) -> str:
    """Return the first line of a dataclass' docstring, which states what its command does."""
    import inspect

    return (inspect.getdoc(config_class) or "").partition("\n")[0].rstrip(".")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit, with status 0 only if the command did all that was asked.

    All imports are in here, so that Ctrl-C during the first second ends in a message and not in a traceback.
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
