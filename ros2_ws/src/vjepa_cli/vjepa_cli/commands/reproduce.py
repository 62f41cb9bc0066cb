"""`vjepa reproduce`: every experiment by name, from its data to its results, going on wherever it was ended."""

import argparse
import shlex
from collections.abc import Mapping
from pathlib import Path

import yaml

from vjepa_cli.commands import COMMANDS
from vjepa_cli.experiments.experiments import Place, Row, Step, place_of, read_rows, to_do
from vjepa_cli.experiments.steps import take_step
from vjepa_interfaces.errors import VjepaError, unknown_name

ALL = "all"


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `reproduce`."""
    reproduce = commands.add_parser("reproduce", help=COMMANDS["reproduce"][1])
    reproduce.add_argument("names", metavar="NAME", nargs="*", help="experiments (see --list), or all")
    reproduce.add_argument("--encoder", help="bundle, checkpoint folder or hub id (default: the stack's)")
    reproduce.add_argument("--device", default="auto", help="auto, cpu or cuda (default %(default)s)")
    reproduce.add_argument(
        "--results", metavar="DIR", help="folder of the results (default: results, or one in it for another encoder)"
    )
    reproduce.add_argument(
        "--experiments",
        metavar="DIR",
        help="folder of experiments of your own, each a NAME.yaml (default: the stack's)",
    )
    reproduce.add_argument("--list", action="store_true", help="the experiments, and what of them is done")
    reproduce.add_argument("--dry-run", action="store_true", help="print the commands that are left, and run none")
    reproduce.set_defaults(function=reproduce_command)


def reproduce_command(arguments: argparse.Namespace) -> int:
    """`vjepa reproduce`: exit status 0 when all that was asked for is there."""
    rows = read_rows(Path(arguments.experiments) if arguments.experiments else None)
    for name in arguments.names:
        if name != ALL and name not in rows:
            raise unknown_name("experiment", name, [*rows, ALL])
    device = arguments.device if arguments.list else _device(arguments.device)
    place = place_of(arguments.encoder, device, arguments.results)
    if arguments.list:
        print(listing(rows, place))
        return 0
    if not arguments.names:
        raise VjepaError("no experiment was named; give names, or all. vjepa reproduce --list shows them")
    wanted = {name for name, row in rows.items() if not row.only_by_name} if ALL in arguments.names else set()
    wanted |= set(arguments.names) - {ALL}
    left = to_do(rows, wanted, place)
    for name in sorted(wanted):
        if place.is_done(rows[name]):
            print(f"# {name} is done; for its results anew give another folder with --results")
    for number, (row, step) in enumerate(left, 1):
        print(f"# {row.name}, {number} of {len(left)} to do", flush=True)
        if arguments.dry_run:
            print(dry(row, step, place))
        else:
            take(row, step, place)
    return 0


def listing(rows: Mapping[str, Row], place: Place) -> str:
    """Return the rows, a line each: name, how far it is, and what it is."""
    lines = []
    for row in rows.values():
        steps, missing = len(row.steps), len(place.missing(row))
        state = "done" if place.is_done(row) else f"{steps - missing} of {steps}"
        lines.append((row.name, state, row.what + (" (not in all)" if row.only_by_name else "")))
    width = max(len(name) for name, _, _ in lines)
    return "\n".join(f"{name:<{width}}  {state:<7} {what}" for name, state, what in lines)


def dry(row: Row, step: Step, place: Place) -> str:
    """Return the command of a step and, above it, the parameter file that it would be given."""
    arguments = place.arguments(row, step)
    file, lines = place.params_file(row, step), []
    if str(file) in arguments:
        lines.append(f"# {file}: {yaml.safe_dump(place.parameters(step), default_flow_style=True, width=9999).strip()}")
    return "\n".join([*lines, shlex.join(["vjepa", *arguments])])


def take(row: Row, step: Step, place: Place) -> None:
    """Run the command of a step.

    Raises:
        VjepaError: it failed, or made something else than the row says.
        KeyboardInterrupt: it was interrupted, or this process was.
    """
    arguments = place.arguments(row, step)
    file = place.params_file(row, step)
    if str(file) in arguments:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(place.parameters(step)), encoding="utf-8")
    take_step(arguments, place.made_by(step), f"experiment {row.name}", "vjepa reproduce")


def _device(name: str) -> str:
    """Return the device that trainers, too, know by its name."""
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
