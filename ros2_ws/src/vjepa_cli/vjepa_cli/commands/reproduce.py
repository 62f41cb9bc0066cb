"""`vjepa reproduce`: every experiment by name, from its data to its results, going on wherever it was ended."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import yaml
from tyro.conf import Positional

from vjepa_cli.command_line import Action, option
from vjepa_cli.experiments.experiments import Place, Row, Step, place_of, read_rows, to_do
from vjepa_cli.experiments.steps import take_step
from vjepa_interfaces.errors import VjepaError, unknown_name
from vjepa_interfaces.files import write_atomically
from vjepa_interfaces.tables import text_table

ALL = "all"


@dataclass(frozen=True, kw_only=True)
class ReproduceCommand:
    """Run experiments by name: data, training and evaluation.

    Attributes:
        names: experiments (see --list), or all.
        encoder: bundle, checkpoint folder or hub id.
        device: auto, cpu or cuda.
        results: folder of the results.
        experiments: folder of experiments of your own, each a NAME.yaml.
        list: show the experiments, and what of them is done.
        dry_run: print the commands that are left, and run none.
    """

    names: Annotated[Positional[tuple[str, ...]], option(metavar="[NAME ...]", default="")] = ()
    encoder: Annotated[str | None, option(default="the stack's")] = None
    device: str = "auto"
    results: Annotated[str | None, option(metavar="DIR", default="results, or one in it for another encoder")] = None
    experiments: Annotated[str | None, option(metavar="DIR", default="the stack's")] = None
    list: bool = False
    dry_run: bool = False


def reproduce_command(arguments: ReproduceCommand) -> int:
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


ACTIONS = {"reproduce": Action(reproduce_command)}


def listing(rows: Mapping[str, Row], place: Place) -> str:
    """Return the rows, a line each: name, how far it is, and what it is."""
    lines = []
    for row in rows.values():
        steps, missing = len(row.steps), len(place.missing(row))
        state = "done" if place.is_done(row) else f"{steps - missing} of {steps}"
        lines.append((row.name, state, row.what + (" (not in all)" if row.only_by_name else "")))
    return text_table(lines)


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
        write_atomically(file, yaml.safe_dump(place.parameters(step)))
    take_step(arguments, place.made_by(step), f"experiment {row.name}", "vjepa reproduce")


def _device(name: str) -> str:
    """Return the device that trainers, too, know by its name."""
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
