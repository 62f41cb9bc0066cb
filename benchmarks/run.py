"""Measure the stack against its aims: `make bench`, or `./vjepa --exec python -m benchmarks.run --help`.

`make bench-check` measures the ratios again and fails if one is worse than the committed one by more than noise.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import (
    budget,
    busy,
    calm,
    data,
    encoder,
    executors,
    expert,
    guard,
    images,
    large_encoder,
    memory,
    planning,
    real_time,
    recovery,
    report,
    runtimes,
    scale,
    scale_data,
    scale_loop,
    scale_trainer,
    set_up,
    soak,
    stages,
    start_up,
    transport,
)
from benchmarks.figures import read_records, write_record
from benchmarks.stack import ROOT
from benchmarks.sweeps import TOLERANCE, UNIT
from vjepa_bringup.interrupts import interruptible
from vjepa_interfaces.errors import VjepaError

BENCHMARKS = (
    "encoder",
    "encoder-gpu",
    "large-encoder",
    "planning",
    "runtimes",
    "images",
    "executors",
    "data",
    "busy",
    "stages",
    "budget",
    "start-up",
    "set-up",
    "transport",
    "real-time",
    "expert",
    "calm",
    "memory",
    "recovery",
    "guard",
    "soak",
    "scale",
    "scale-data",
    "scale-trainer",
    "scale-loop",
)
BY_NAME_ONLY = ("soak", "guard", "set-up", "large-encoder")
"""Benchmarks that run only by name: they take long (`make soak`), download (`set-up`), load the machine, or need much
memory."""

CHECKED = ("encoder", "planning", "images", "executors", "scale")
NOISE = 1.25
"""A ratio that is worse than the committed one by more than this factor is a regression. The limit for an exponent is
the tolerance of its aim."""

QUIET_LOAD = 0.5


@dataclass(frozen=True)
class Sizes:
    """The amounts of each measurement.

    Attributes:
        expert_episodes: episodes of the expert in lockstep.
        expert_protocol: `full` or `short`; for `calm` too.
        calm_episodes: episodes of the expert alone, for each task and delay.
        runs: runs of the loop in real time, of a stage of data, or of a start.
        turns: rounds in which contenders take turns.
        rounds: runs of the stack between pings, and rounds of a sweep's commands.
        run_episodes: short episodes in each run.
        pings: round trips in a ping run.
        transitions: transitions of a trainer's larger dataset.
        minutes: duration of a soak.
        seed: seed of the first episode of every benchmark.
    """

    expert_episodes: int = 20
    expert_protocol: str = "full"
    calm_episodes: int = 100
    turns: int = 10
    runs: int = 5
    rounds: int = 3
    run_episodes: int = 10
    pings: int = 1000
    transitions: int = 1_000_000
    minutes: float = 30.0
    seed: int = 0


QUICK = Sizes(
    expert_episodes=1,
    expert_protocol="short",
    calm_episodes=1,
    turns=1,
    runs=1,
    rounds=1,
    run_episodes=1,
    pings=10,
    transitions=2000,
    minutes=0.2,
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="try everything out in a minute, into a temporary folder")
    parser.add_argument("--only", choices=BENCHMARKS, help="run one benchmark")
    parser.add_argument(
        "--check",
        action="store_true",
        help=f"measure {', '.join(CHECKED)} again and compare them with what is committed",
    )
    parser.add_argument("--cores", type=int, default=2, help="processor cores to use (default %(default)s)")
    parser.add_argument("--expert-episodes", type=int, help=f"default {Sizes.expert_episodes}")
    parser.add_argument("--expert-protocol", choices=("full", "short"), help=f"default {Sizes.expert_protocol}")
    parser.add_argument("--calm-episodes", type=int, help=f"of the expert alone (default {Sizes.calm_episodes})")
    parser.add_argument("--turns", type=int, help=f"rounds of contenders in turns (default {Sizes.turns})")
    parser.add_argument("--runs", type=int, help=f"real-time runs (default {Sizes.runs})")
    parser.add_argument("--rounds", type=int, help=f"runs of the stack between pings (default {Sizes.rounds})")
    parser.add_argument("--run-episodes", type=int, help=f"short episodes in a run (default {Sizes.run_episodes})")
    parser.add_argument("--pings", type=int, help=f"round trips in a ping run (default {Sizes.pings})")
    parser.add_argument("--transitions", type=int, help=f"for a trainer (default {Sizes.transitions})")
    parser.add_argument("--minutes", type=float, help=f"of a soak (default {Sizes.minutes:g})")
    parser.add_argument("--seed", type=int, help=f"default {Sizes.seed}")
    parser.add_argument(
        "--results",
        type=lambda text: Path(text).resolve(),
        help="folder for the JSON files (default: results; for a second machine a folder in it)",
    )
    parser.add_argument("--document", type=Path, help="the document to write (default: docs/performance.md)")
    return parser


def sizes_of(arguments: argparse.Namespace) -> Sizes:
    """Return the sizes of the command line."""
    base = QUICK if arguments.quick else Sizes()
    asked = {name: getattr(arguments, name, None) for name in vars(base)}
    return Sizes(**{**vars(base), **{name: value for name, value in asked.items() if value is not None}})


def measurements(sizes: Sizes, say: Callable[[str], None]) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return the function that measures each benchmark, by name."""
    return {
        "encoder": lambda: encoder.measure(sizes.turns, sizes.seed, compiled=sizes.turns > 1),
        "encoder-gpu": lambda: encoder.measure_gpu(sizes.turns, sizes.seed),
        "large-encoder": lambda: large_encoder.measure(sizes.turns, sizes.seed),
        "planning": lambda: planning.measure(sizes.turns, sizes.seed),
        "runtimes": lambda: runtimes.measure(sizes.turns, sizes.seed, whole=sizes.turns > 1),
        "images": lambda: images.measure(sizes.rounds, sizes.pings, say),
        "executors": lambda: executors.measure(sizes.rounds, sizes.pings, say),
        "data": lambda: data.measure(sizes.runs, sizes.run_episodes, sizes.transitions, sizes.seed),
        "busy": lambda: busy.measure(sizes.rounds, sizes.seed),
        "stages": lambda: stages.measure(sizes.turns, sizes.run_episodes, sizes.seed),
        "budget": lambda: budget.measure(sizes.turns, sizes.run_episodes, sizes.seed),
        "start-up": lambda: start_up.measure(sizes.runs, sizes.seed),
        "set-up": lambda: set_up.measure(sizes.runs, sizes.seed),
        "transport": lambda: transport.measure(sizes.rounds, sizes.run_episodes, sizes.pings, sizes.seed, say),
        "real-time": lambda: real_time.measure(sizes.runs, sizes.run_episodes, sizes.seed, say),
        "expert": lambda: expert.measure(sizes.expert_episodes, sizes.expert_protocol, sizes.seed),
        "calm": lambda: calm.measure(sizes.calm_episodes, sizes.expert_protocol, sizes.seed),
        "memory": lambda: memory.measure(sizes.transitions, sizes.seed),
        "recovery": lambda: recovery.measure(sizes.runs, sizes.seed),
        "guard": lambda: guard.measure(sizes.runs, say),
        "soak": lambda: soak.measure(sizes.minutes, sizes.seed, say),
        "scale": lambda: scale.measure(sizes.turns, sizes.seed),
        "scale-data": lambda: scale_data.measure(sizes.rounds, sizes.run_episodes, sizes.seed, say),
        "scale-trainer": lambda: scale_trainer.measure(sizes.rounds, sizes.transitions, sizes.seed, say),
        "scale-loop": lambda: scale_loop.measure(sizes.rounds, sizes.run_episodes, sizes.seed, say),
    }


def use_cores(count: int) -> None:
    """Restrict this process and its children to the first `count` of its allowed cores."""
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, allowed[:count])


def names_of(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Return the requested benchmarks: by default all but those by name only and, without a GPU, `encoder-gpu`."""
    if arguments.only is not None:
        return (arguments.only,)
    if arguments.check:
        return CHECKED
    left_out = BY_NAME_ONLY if torch.cuda.is_available() else (*BY_NAME_ONLY, "encoder-gpu")
    return tuple(name for name in BENCHMARKS if name not in left_out)


def regressions(committed: dict[str, dict[str, Any]], measured: dict[str, dict[str, Any]]) -> list[str]:
    """Return a line for each ratio or exponent in the records `measured` that is worse than the `committed` one.

    A difference within the noise does not count.
    """
    known = {figure["what"]: figure for content in committed.values() for figure in content["figures"]}
    lines = []
    for figure in (figure for content in measured.values() for figure in content["figures"]):
        if figure["unit"] not in ("times", UNIT) or figure["what"] not in known:
            continue
        before, now = known[figure["what"]]["value"], figure["value"]
        better, worse = (before, now) if figure["at_least"] else (now, before)
        if (better / worse > NOISE) if figure["unit"] == "times" else (better - worse > TOLERANCE):
            lines.append(f"{figure['what']}: {now:.3g} {figure['unit']}, committed is {before:.3g}")
    return lines


def destinations(arguments: argparse.Namespace) -> tuple[Path, Path]:
    """Return the folder for the records and the file for the document; a quick run never changes the committed ones."""
    if arguments.quick or arguments.check:
        results = arguments.results or Path(tempfile.mkdtemp(prefix="vjepa-bench-"))
        return results, arguments.document or results / "performance.md"
    return arguments.results or ROOT / "results", arguments.document or ROOT / "docs" / "performance.md"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the requested benchmarks, write their records and the document; return 0 if all could be measured."""
    arguments = build_parser().parse_args(argv)
    sizes = sizes_of(arguments)
    results, document = destinations(arguments)
    use_cores(arguments.cores)
    load = os.getloadavg()[0]
    if load > QUIET_LOAD:
        print(f"the machine is busy (load average {load:.1f}): figures will be worse than its own", flush=True)
    chosen = measurements(sizes, lambda line: print(f"  {line}", flush=True))
    try:
        with interruptible() as interrupts, interrupts.let_in():
            for name in names_of(arguments):
                print(f"{name} ...", flush=True)
                path = write_record(results, {**chosen[name](), "load_average_at_start": load})
                print(f"  written to {path}", flush=True)
    except VjepaError as error:
        print(f"make bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("make bench: interrupted", file=sys.stderr)
        return 130
    shown = results.parent if results.parent == ROOT / "results" else results
    report.write(shown, document)
    if shown == ROOT / "results":
        report.write_reliability()
    print(f"\n{report.table(report.rows(results))}\n\nThe document is {document}")
    if arguments.check:
        worse = regressions(read_records(ROOT / "results"), read_records(results))
        print("\n".join(worse) if worse else f"no ratio is worse than the committed one by more than {NOISE} times")
        return 1 if worse else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
