"""A training on cores that other processes use too: how long torch's threads may wait for each other in a loop.

Run as a module, this is the training: it prints the time of a step, ms.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, command_of, mean_with_interval, record
from benchmarks.memory import write_synthetic
from benchmarks.stack import ROOT, busy
from vjepa_interfaces.errors import VjepaError

ALONE, BUSY = "alone", "beside a busy process on each core"
OWN, LIBGOMP = "as `./vjepa` sets it", "libgomp's own"
AIMS = {ALONE: 1.25, BUSY: 0.75}
SETTINGS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")
TRANSITIONS = 2000
TIMEOUT_S = 600.0
STEPS, STEPS_OF_A_TRIAL = 60, 6


def measure(rounds: int, seed: int) -> dict[str, Any]:
    """Measure a step of training dynamics with both ways of waiting in turns, alone and on busy cores.

    Args:
        rounds: times that each is measured.
        seed: seed of the synthetic dataset.

    Raises:
        VjepaError: a training failed, or this process was not started by `./vjepa`.
    """
    spin_count = os.environ.get("GOMP_SPINCOUNT")
    if spin_count is None:
        raise VjepaError("GOMP_SPINCOUNT is not set; start by ./vjepa, with OMP_WAIT_POLICY unset, which sets it")
    clean = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    ways = {OWN: clean | {"GOMP_SPINCOUNT": spin_count}, LIBGOMP: clean}
    runs = []
    steps = STEPS if rounds > 1 else STEPS_OF_A_TRIAL
    with tempfile.TemporaryDirectory(prefix="vjepa-bench-") as folder:
        write_synthetic(Path(folder) / "data", TRANSITIONS, seed)
        for _ in range(rounds):
            for load, count in ((ALONE, 0), (BUSY, len(os.sched_getaffinity(0)))):
                with busy(count):
                    runs += [
                        {"what": load, "waiting": way, "step_ms": step_ms(environment, steps, folder)}
                        for way, environment in ways.items()
                    ]
    command = command_of("busy", rounds=rounds, seed=seed)
    return record("busy", figures(runs), command, [seed], spin_count=int(spin_count), runs=runs)


def figures(runs: Sequence[dict[str, Any]]) -> list[Figure]:
    """Return the ratio of the times of a step with both ways of waiting, alone and on busy cores."""
    found = []
    for load, aim in AIMS.items():
        own, other = (
            [r["step_ms"] for r in runs if (r["what"], r["waiting"]) == (load, way)] for way in (OWN, LIBGOMP)
        )
        mean, interval = mean_with_interval([a / b for a, b in zip(own, other, strict=True)])
        what = f"a training step {load}: threads wait as `./vjepa` sets it, over libgomp's own"
        found.append(Figure(what, mean, "times", f"{len(own)} rounds", aim, False, interval, "bootstrap over rounds"))
    return found


def step_ms(environment: dict[str, str], steps: int, folder: str) -> float:
    """Return the time of a training step on the dataset in `folder`, in a process of its own, ms."""
    command = [sys.executable, "-m", "benchmarks.busy", str(steps), folder]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    if done.returncode:
        raise VjepaError(f"the training ended with {done.returncode}: {done.stderr[-2000:]}")
    return float(done.stdout)


def train(steps: int, folder: Path) -> float:
    """Return the median time of a step forwards, backwards and of the optimiser, on torch's number of threads, ms."""
    from benchmarks.data import bare_step_s
    from vjepa_training.data.dataset import Dataset
    from vjepa_training.trainers.train_dynamics import DynamicsTraining

    return 1e3 * bare_step_s(Dataset(folder / "data"), DynamicsTraining(), folder / f"work-{os.getpid()}", steps)


if __name__ == "__main__":
    print(train(int(sys.argv[1]), Path(sys.argv[2])))
