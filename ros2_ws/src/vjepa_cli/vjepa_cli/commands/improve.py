"""`vjepa improve`: record with the planner, train it further, and keep what evaluation says is better, by rounds."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from vjepa_cli import arguments as types
from vjepa_cli.commands import COMMANDS
from vjepa_interfaces.errors import VjepaError

EVALUATION_SEED = 1_500_000_000
"""Far from the seeds of the project's datasets and results, so that choosing by it says nothing about those."""


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `improve`."""
    parser = commands.add_parser("improve", help=COMMANDS["improve"][1])
    parser.add_argument("--planner", required=True, help="cem, mppi, shooting or dreamer")
    parser.add_argument("--rounds", type=types.positive, required=True, metavar="N", help="in all, those done included")
    parser.add_argument("--data", required=True, metavar="DS", help="dataset that the planner was trained on")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the rounds, to go on with or to begin")
    parser.add_argument("--params-file", default="", help="YAML of ROS parameters: the planner's bundles, the encoder")
    for kind in ("dynamics", "reward", "policy"):
        parser.add_argument(
            f"--{kind}", default="", metavar="BUNDLE", help="of dreamer, where it cannot be found out: trained with it"
        )
    parser.add_argument("--episodes", type=types.positive, default=200, help="recorded a round (default %(default)s)")
    parser.add_argument(
        "--through",
        choices=("process", "ros", "stack"),
        default="process",
        help="record and evaluate in one process; or in the ROS graph in lockstep, where recorded episodes are the "
        "protocol's, with no random actions; or record the stack that runs, evaluate in process, and swap in what is "
        "better while it runs (default %(default)s)",
    )
    parser.add_argument("--domain", type=types.domain, help="with --through stack: its ROS domain, if several run here")
    parser.add_argument("--episode-steps", type=types.positive, help="of each of them, in process (default 50)")
    parser.add_argument("--epsilon", type=float, help="share of random actions there, in process (default 0.1)")
    parser.add_argument("--hold", type=types.positive, help="steps that such an action is held (default 4)")
    parser.add_argument("--eval-episodes", type=types.positive, default=20, help="default %(default)s")
    parser.add_argument("--protocol", choices=("short", "full", "old"), default="short", help="of evaluation")
    parser.add_argument(
        "--seed", type=types.seed, default=EVALUATION_SEED, help="of evaluation; round k records from it + k million"
    )
    parser.add_argument("--epochs", type=types.positive, default=5, help="of dynamics and heads (default %(default)s)")
    parser.add_argument("--steps", type=types.positive, default=2000, help="of an actor (default %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=2e-4, help="default %(default)s")
    parser.add_argument("--device", default="cpu", help="where it trains: cpu, cuda or cuda:N (default %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the rounds as JSON, once all are taken")
    parser.set_defaults(function=improve_command)


def improve_command(arguments: argparse.Namespace) -> int:
    """`vjepa improve`: exit status 0 when all rounds were taken, whether or not one was better."""
    from vjepa_cli.experiments.rounds import ROUND_SEEDS, Rounds, RoundSettings
    from vjepa_cli.experiments.warm_start import warm_start
    from vjepa_cli.result_files import require_writable, write_json

    if arguments.json:
        require_writable(arguments.json)

    if max(arguments.episodes, arguments.eval_episodes) > ROUND_SEEDS:
        raise VjepaError(f"rounds and evaluation have {ROUND_SEEDS} seeds each; ask for fewer episodes")
    recording = _recording(arguments)
    if arguments.seed + (arguments.rounds + 1) * ROUND_SEEDS > types.MAX_SEED:
        raise VjepaError(
            f"round {arguments.rounds} would have seeds beyond {types.MAX_SEED}; give a smaller --seed, or fewer rounds"
        )
    given = {kind: getattr(arguments, kind) for kind in ("dynamics", "reward", "policy")}
    start = warm_start(arguments.planner, arguments.params_file, given)
    settings = RoundSettings(
        data=arguments.data,
        through=arguments.through,
        protocol=arguments.protocol,
        seed=arguments.seed,
        episodes=arguments.episodes,
        **recording,
        eval_episodes=arguments.eval_episodes,
        epochs=arguments.epochs,
        steps=arguments.steps,
        learning_rate=arguments.learning_rate,
    )
    stack = ["--domain", str(arguments.domain)] if arguments.domain is not None else []
    if stack and arguments.through != "stack":
        raise VjepaError("--domain is of a running stack; give --through stack too")
    rounds = Rounds(Path(arguments.out), start, settings, arguments.device, stack)
    rounds.open()
    rounds.evaluate_start()
    rounds.swap_in()
    for number in range(len(rounds.done) + 1, arguments.rounds + 1):
        print(f"# round {number} of {arguments.rounds}", flush=True)
        entry = rounds.take(number)
        print(said(entry), flush=True)
        if entry["accepted"]:
            rounds.swap_in()
    print(table(rounds.done))
    if arguments.json:
        write_json(arguments.json, {**rounds.content(), "command": shlex.join(["vjepa", *sys.argv[1:]])})
    print(f"what was accepted last drives with: vjepa run --params-file {rounds.current}")
    return 0


def _recording(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return how episodes are recorded in process; None for each of it in the graph, where it is not to be chosen."""
    defaults = {"episode_steps": 50, "epsilon": 0.1, "hold": 4}
    given = {name: getattr(arguments, name) for name in defaults if getattr(arguments, name) is not None}
    if arguments.through != "process":
        if given:
            option = min(given).replace("_", "-")
            raise VjepaError(
                f"--{option} is for --through process; in the graph the planner alone acts, in its episodes"
            )
        return dict.fromkeys(defaults)
    if not 0 <= given.get("epsilon", 0) <= 1:
        raise VjepaError(f"--epsilon is {given['epsilon']}; expected a share, 0 to 1")
    return defaults | given


def said(entry: dict[str, Any]) -> str:
    """Return what became of a round, in a line."""
    return (
        f"# round {entry['round']}: mean return {entry['candidate_mean_return']:.1f} after "
        f"{entry['incumbent_mean_return']:.1f}, {'swapped in' if entry['accepted'] else 'the old one is kept'}"
    )


def table(entries: list[dict[str, Any]]) -> str:
    """Return the rounds, a line each: data, returns with their intervals, and what was decided."""
    lines = [f"{'round':>5} {'rows':>9}  {'before':>24}  {'after':>24}  {'difference':>24}  decision"]
    for entry in entries:
        means = [entry["incumbent_mean_return"], entry["candidate_mean_return"], entry["difference"]]
        intervals = [entry[f"{name}_interval_95"] for name in ("incumbent", "candidate", "difference")]
        cells = [
            f"{sign_of(mean)} ({low:.1f} to {high:.1f})".rjust(24)
            for sign_of, mean, (low, high) in zip(_FORMS, means, intervals, strict=True)
        ]
        decision = "swapped in" if entry["accepted"] else "kept"
        lines.append(f"{entry['round']:>5} {entry['data']['rows']:>9}  {'  '.join(cells)}  {decision}")
    return "\n".join(lines)


_FORMS = ("{:.1f}".format, "{:.1f}".format, "{:+.1f}".format)
