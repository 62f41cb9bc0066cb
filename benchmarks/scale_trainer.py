"""The growth of a trainer with the transitions of its dataset, up to a million of synthetic latents."""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.figures import command_of, record
from benchmarks.memory import peak_private_gib, write_synthetic
from benchmarks.sweeps import FLAT, LINEAR, Sweep

PARTS = (10, 3, 1)
"""Divisors of the transitions: each dataset has the largest one's transitions over one of these."""

TRAINED_STEPS = 200
MIB = 1024.0


def measure(rounds: int, transitions: int, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Train for some steps on datasets of up to `transitions`, and return the record.

    Args:
        rounds: rounds in which the trainer starts again.
        transitions: transitions of the largest dataset.
        seed: seed of the latents.
        say: is called with lines of progress.
    """
    prepared: dict[float, list[float]] = {}
    steps: dict[float, list[float]] = {}
    memory: dict[float, list[float]] = {}
    for part in PARTS:
        count = transitions // part
        with tempfile.TemporaryDirectory(prefix="vjepa-bench-") as folder:
            write_synthetic(Path(folder) / "data", count, seed)
            for turn in range(rounds):
                said = Path(folder) / "said"
                command = [sys.executable, "-m", "benchmarks.scale_trainer", f"{folder}/data", f"{folder}/{turn}"]
                peak = peak_private_gib(command, said)
                found = json.loads(said.read_text().splitlines()[-1])
                prepared.setdefault(count, []).append(max(1e-3, found["prepared_s"]))
                steps.setdefault(count, []).append(found["step_ms"])
                memory.setdefault(count, []).append(MIB * peak)
                say(f"{count} transitions: prepared in {found['prepared_s']:.1f} s, {found['step_ms']:.1f} ms a step")
    of = f"{TRAINED_STEPS} steps of dynamics on principal components of the mean rows of random latents, one core"
    x = "transitions"
    what = "a trainer's {} with transitions"
    sweeps = [
        Sweep(what.format("time to prepare"), "trainer: preparing", x, "s", LINEAR, prepared, sample=of),
        Sweep(what.format("time of a step"), "trainer: a step", x, "ms a step", FLAT, steps, sample=of),
        Sweep(what.format("memory"), "trainer: memory", x, "MiB of its own", FLAT, memory, sample=of),
    ]
    command = command_of("scale-trainer", rounds=rounds, transitions=transitions, seed=seed)
    figures = [sweep.figure() for sweep in sweeps]
    return record("scale-trainer", figures, command, [seed], sweeps=[sweep.content() for sweep in sweeps])


class _EnoughError(Exception):
    pass


def train(data: str, work: str) -> dict[str, float]:
    """Train dynamics for some steps; return the time until the first step, s, and the usual time of a step, ms."""
    import torch

    from vjepa_training.data.dataset import Dataset
    from vjepa_training.trainers.configs import DynamicsTraining, Job
    from vjepa_training.trainers.train_dynamics import train_dynamics

    torch.set_num_threads(1)
    began = time.perf_counter()
    said: list[tuple[int, float]] = []
    prepared_s = 0.0

    def on_step(step: int, _: int, figures: dict[str, float]) -> None:
        nonlocal prepared_s
        if "steps_per_s" in figures:
            said.append((step, time.perf_counter()))
            prepared_s = prepared_s or said[0][1] - began - step / figures["steps_per_s"]
        if step >= TRAINED_STEPS:
            raise _EnoughError

    settings = DynamicsTraining(epochs=1, state_projection="pca", rows="mean", checkpoint_every=10**9)
    with contextlib.suppress(_EnoughError):
        train_dynamics(Dataset(Path(data)), settings, Job(f"{work}/model", work, "a benchmark", on_step))
    (first, first_s), (last, last_s) = said[0] if len(said) > 1 else (0, began + prepared_s), said[-1]
    return {"prepared_s": prepared_s, "step_ms": 1e3 * (last_s - first_s) / (last - first)}


def main() -> None:
    """Run the trainer, and print its times as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("data")
    parser.add_argument("work")
    arguments = parser.parse_args()
    print(json.dumps(train(arguments.data, arguments.work)))


if __name__ == "__main__":
    main()
