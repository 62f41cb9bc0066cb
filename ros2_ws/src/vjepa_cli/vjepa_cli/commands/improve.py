"""`vjepa improve`: in rounds, record with a planner, train it further, evaluate it, and keep the better one."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from vjepa_cli import arguments as types
from vjepa_cli.actions import Command
from vjepa_cli.command_line import Action, option, parsed_by
from vjepa_cli.experiments.round_settings import ROUND_SEEDS, RoundSettings
from vjepa_cli.result_files import require_writable, write_result
from vjepa_cli.scoreboard import with_interval
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.parameters import Range, as_base
from vjepa_interfaces.tables import text_table

if TYPE_CHECKING:  # This module is imported for the command line, and pyarrow is not needed for that.
    from vjepa_cli.experiments.rounds import Round

RECORDING = {"episode_steps": 50, "epsilon": 0.1, "hold": 4}
"""Defaults of recording in process."""
BundleOfDreamer = Annotated[str, option(metavar="BUNDLE", default="found out")]


@dataclass(frozen=True, kw_only=True)
class ImproveCommand(RoundSettings):
    """Improve a planner in online rounds: record, train warm, evaluate, keep the better one.

    Attributes:
        planner: cem, mppi, shooting or dreamer.
        rounds: number of rounds, including finished ones.
        out: folder of the rounds, new or to continue.
        params_file: YAML of ROS parameters: the planner's bundles, the encoder.
        dynamics: dynamics model with which dreamer's actor was trained, if this cannot be found out.
        reward: heads with which dreamer's actor was trained, if this cannot be found out.
        prior: policy with which dreamer's actor was trained, if this cannot be found out.
        episode_steps: control steps of each recorded episode, in process.
        epsilon: share of random actions in recorded episodes, in process.
        hold: control steps for which a random action is held.
        domain: with --through stack: ROS domain of the stack, if several run here.
        device: device of the training: cpu, cuda or cuda:N.
        json: write the rounds as JSON after the last one.
    """

    data: Annotated[str, option(metavar="DS")]
    planner: str
    rounds: Annotated[int, Range(low=1), option(metavar="N")]
    out: Annotated[str, option(metavar="DIR")]
    params_file: Annotated[str, option(default="none")] = ""
    dynamics: BundleOfDreamer = ""
    reward: BundleOfDreamer = ""
    prior: BundleOfDreamer = ""
    episode_steps: Annotated[int | None, Range(low=1), option(default=f"{RECORDING['episode_steps']}")] = None
    epsilon: Annotated[float | None, Range(low=0, high=1), option(default=f"{RECORDING['epsilon']}")] = None
    hold: Annotated[int | None, Range(low=1), option(default=f"{RECORDING['hold']}")] = None
    domain: Annotated[int | None, parsed_by(types.domain, "INT"), option(default="")] = None
    device: str = "cpu"
    json: Annotated[str | None, option(metavar="FILE", default="")] = None


def improve_command(arguments: ImproveCommand) -> int:
    """Run `vjepa improve`; return exit status 0 if all rounds were taken, even if none was better."""
    from vjepa_cli.experiments.rounds import Rounds
    from vjepa_cli.experiments.warm_start import OPTION_OF, warm_start

    if arguments.json:
        require_writable(arguments.json)

    if max(arguments.episodes, arguments.eval_episodes) > ROUND_SEEDS:
        raise VjepaError(f"rounds and evaluation have {ROUND_SEEDS} seeds each; ask for fewer episodes")
    recording = _recording(arguments)
    if arguments.seed + (arguments.rounds + 1) * ROUND_SEEDS > types.MAX_SEED:
        raise VjepaError(
            f"round {arguments.rounds} would have seeds beyond {types.MAX_SEED}; give a smaller --seed, or fewer rounds"
        )
    given = {kind: getattr(arguments, name) for kind, name in OPTION_OF.items()}
    start = warm_start(arguments.planner, arguments.params_file, given)
    settings = dataclasses.replace(as_base(RoundSettings, arguments), **recording)
    stack = {"domain": arguments.domain} if arguments.domain is not None else {}
    if stack and arguments.through != "stack":
        raise VjepaError("--domain is for a running stack; give --through stack too")
    rounds = Rounds(Path(arguments.out), start, settings, arguments.device, stack)
    rounds.open()
    rounds.evaluate_start()
    rounds.swap_in()
    for number in range(len(rounds.done) + 1, arguments.rounds + 1):
        print(f"# round {number} of {arguments.rounds}", flush=True)
        entry = rounds.take(number)
        print(round_line(entry), flush=True)
        if entry["accepted"]:
            rounds.swap_in()
    print(table(rounds.done))
    if arguments.json:
        write_result(arguments.json, {**rounds.content(), **Command.of(arguments).record})
    print(f"the planner that was accepted last runs with: vjepa run --params-file {rounds.current}")
    return 0


ACTIONS = {"improve": Action(improve_command)}


def _recording(arguments: ImproveCommand) -> dict[str, Any]:
    """Return the settings of recording in process; all are None in the graph, which allows no choice of them."""
    given = {name: getattr(arguments, name) for name in RECORDING if getattr(arguments, name) is not None}
    if arguments.through != "process":
        if given:
            name = min(given).replace("_", "-")
            raise VjepaError(f"--{name} is for --through process; in the graph the planner alone acts, in its episodes")
        return dict.fromkeys(RECORDING)
    return RECORDING | given


def round_line(entry: "Round") -> str:
    """Return the result of a round in a line."""
    return (
        f"# round {entry['round']}: mean return {entry['candidate_mean_return']:.1f} after "
        f"{entry['incumbent_mean_return']:.1f}, {'swapped in' if entry['accepted'] else 'the old one is kept'}"
    )


def table(entries: "list[Round]") -> str:
    """Return a table of the rounds: data, returns with their intervals, and the decision."""
    lines: list[Sequence[str]] = [("round", "rows", "before", "after", "difference", "decision")]
    for entry in entries:
        cells = [
            with_interval(entry["incumbent_mean_return"], entry["incumbent_interval_95"]),
            with_interval(entry["candidate_mean_return"], entry["candidate_interval_95"]),
            with_interval(entry["difference"], entry["difference_interval_95"], "+"),
        ]
        decision = "swapped in" if entry["accepted"] else "kept"
        lines.append((str(entry["round"]), str(entry["data"]["rows"]), *cells, decision))
    return text_table(lines, right=range(5))
