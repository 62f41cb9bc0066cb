"""The `vjepa` command line."""

import argparse
import sys
from collections.abc import Sequence

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


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; each sets `function`, which takes the arguments and returns a status."""
    from vjepa_cli.commands import bag as bag_commands
    from vjepa_cli.commands import camera as camera_commands
    from vjepa_cli.commands import dataset as dataset_commands
    from vjepa_cli.commands import goal as goal_commands
    from vjepa_cli.commands import graph as graph_commands
    from vjepa_cli.commands import improve as improve_commands
    from vjepa_cli.commands import looks as looks_commands
    from vjepa_cli.commands import node as node_command
    from vjepa_cli.commands import probe as probe_commands
    from vjepa_cli.commands import report as report_commands
    from vjepa_cli.commands import reproduce as reproduce_commands
    from vjepa_cli.commands import run as run_commands
    from vjepa_cli.commands import security as security_commands
    from vjepa_cli.commands import tour as tour_commands
    from vjepa_cli.commands import train as train_commands
    from vjepa_cli.commands import view as view_commands

    parser = argparse.ArgumentParser(
        prog="vjepa", description="A camera frame becomes a V-JEPA 2 latent becomes a torque."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    tour_commands.add_parsers(commands)
    run_commands.add_parsers(commands)
    graph_commands.add_parsers(commands)
    view_commands.add_parsers(commands)
    looks_commands.add_parsers(commands)
    goal_commands.add_parsers(commands)
    node_command.add_parsers(commands)
    camera_commands.add_parsers(commands)
    security_commands.add_parsers(commands)
    bag_commands.add_parsers(commands)
    dataset_commands.add_parsers(commands)
    train_commands.add_parsers(commands)
    probe_commands.add_parsers(commands)
    improve_commands.add_parsers(commands)
    reproduce_commands.add_parsers(commands)
    report_commands.add_parsers(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; exit status 0 only when it did all it was asked for.

    Everything is imported in here, so that Ctrl-C during the first second ends in a word and not in a traceback.
    """
    try:
        from vjepa_interfaces.errors import VjepaError

        parsed = build_parser().parse_args(arguments)
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
