"""`vjepa reproduce`: run experiments by name, from data to results; an interrupted one continues where it ended."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import yaml
from tyro.conf import Positional

from vjepa_cli.command_line import Action, option
from vjepa_cli.experiments.experiments import Experiment, Stage, Workspace, read_experiments, to_do, workspace_of
from vjepa_cli.experiments.stages import run_stage
from vjepa_interfaces.deprecated import EXPERIMENT, current_name
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
        experiments: folder of your own experiments, each a NAME.yaml.
        list: list the experiments and their progress.
        dry_run: print the remaining commands, and run none.
    """

    names: Annotated[Positional[tuple[str, ...]], option(metavar="[NAME ...]", default="")] = ()
    encoder: Annotated[str | None, option(default="the stack's")] = None
    device: str = "auto"
    results: Annotated[str | None, option(metavar="DIR", default="results, or one in it for another encoder")] = None
    experiments: Annotated[str | None, option(metavar="DIR", default="the stack's")] = None
    list: bool = False
    dry_run: bool = False


def reproduce_command(arguments: ReproduceCommand) -> int:
    """Run `vjepa reproduce`; return exit status 0 if no stage failed."""
    experiments = read_experiments(Path(arguments.experiments) if arguments.experiments else None)
    names = [name if name in experiments else current_name(EXPERIMENT, name) for name in arguments.names]
    for name in names:
        if name != ALL and name not in experiments:
            raise unknown_name("experiment", name, [*experiments, ALL])
    device = arguments.device if arguments.list else _device(arguments.device)
    workspace = workspace_of(arguments.encoder, device, arguments.results)
    if arguments.list:
        print(listing(experiments, workspace))
        return 0
    if not names:
        raise VjepaError("no experiment is named; give names, or all; vjepa reproduce --list shows the names")
    wanted = {name for name, each in experiments.items() if not each.only_by_name} if ALL in names else set()
    wanted |= set(names) - {ALL}
    left = to_do(experiments, wanted, workspace)
    for name in sorted(wanted):
        if workspace.is_done(experiments[name]):
            print(f"# {name} is done; to measure it again, give another folder with --results")
    for number, (experiment, stage) in enumerate(left, 1):
        print(f"# {experiment.name}, {number} of {len(left)} to do", flush=True)
        if arguments.dry_run:
            print(dry(experiment, stage, workspace))
        else:
            run(experiment, stage, workspace)
    return 0


ACTIONS = {"reproduce": Action(reproduce_command)}


def listing(experiments: Mapping[str, Experiment], workspace: Workspace) -> str:
    """Return a table of the experiments: name, progress and description."""
    lines = []
    for experiment in experiments.values():
        stages, missing = len(experiment.stages), len(workspace.missing(experiment))
        state = "done" if workspace.is_done(experiment) else f"{stages - missing} of {stages}"
        lines.append((experiment.name, state, experiment.what + (" (not in all)" if experiment.only_by_name else "")))
    return text_table(lines)


def dry(experiment: Experiment, stage: Stage, workspace: Workspace) -> str:
    """Return the command line of a stage and, above it, the contents of its parameter file."""
    command, file, lines = workspace.command(experiment, stage), workspace.params_file(experiment, stage), []
    if command.config.get("params_file") == str(file):
        content = yaml.safe_dump(workspace.parameters(stage), default_flow_style=True, width=9999).strip()
        lines.append(f"# {file}: {content}")
    return "\n".join([*lines, command.line])


def run(experiment: Experiment, stage: Stage, workspace: Workspace) -> None:
    """Run the command of a stage.

    Raises:
        VjepaError: the command failed, or did not make the outputs of the stage.
        KeyboardInterrupt: the command was interrupted.
    """
    command, file = workspace.command(experiment, stage), workspace.params_file(experiment, stage)
    if command.config.get("params_file") == str(file):
        write_atomically(file, yaml.safe_dump(workspace.parameters(stage)))
    run_stage(command, workspace.made_by(stage), f"experiment {experiment.name}", "vjepa reproduce")


def _device(name: str) -> str:
    """Return the name of a device that trainers know too; `auto` becomes `cuda` if available, else `cpu`."""
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
