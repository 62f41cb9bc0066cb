"""The memory of a trainer as its dataset grows to a million transitions of synthetic latents."""

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import Figure, command_of, record
from benchmarks.stack import ROOT
from vjepa_interfaces.errors import VjepaError
from vjepa_training.data.dataset import LATENT, DatasetInfo, EpisodeWriter, finish_dataset

LIMIT_GIB = 2.0
PERIOD_NS = 20_000_000
SMALL_ROWS = DatasetInfo(
    joint_names=("shoulder", "wrist"),
    effort_limit=(0.05, 0.05),
    control_period_ns=PERIOD_NS,
    latent_shape=(17, 128),
    image_shape=None,
    encoder=None,
    task="reacher-easy",
    sources=(),
)
"""The columns of rows with latents of the small encoder."""

EPISODE_ROWS = 26
EPISODES_MADE = 64
"""The first episodes differ; further episodes are the same ones, scaled."""

EVERY_S = 0.1


def measure(transitions: int, seed: int) -> dict[str, Any]:
    """Train dynamics for one epoch on a tenth of `transitions` and on all, and return the record of the peak memory."""
    runs = []
    for count in (transitions // 10, transitions):
        with tempfile.TemporaryDirectory(prefix="vjepa-bench-") as folder:
            write_synthetic(Path(folder) / "data", count, seed)
            command = [sys.executable, "-P", "-m", "vjepa_cli.cli", "train", "dynamics"]
            command += ["--data", f"{folder}/data", "--out", f"{folder}/model", "--epochs", "1", "--device", "cpu"]
            started = time.monotonic()
            peak = peak_private_gib(command, Path(folder) / "said")
            runs.append({"transitions": count, "peak_gib": peak, "wall_s": time.monotonic() - started})
    command_line = command_of("memory", transitions=transitions, seed=seed)
    return record("memory", figures(runs), command_line, [seed], runs=runs)


def figures(runs: list[dict[str, Any]]) -> list[Figure]:
    """Return the figures of `runs`, the smaller dataset first."""
    small, large = runs
    sample = f"one epoch of `vjepa train dynamics` on {large['transitions']} transitions"
    return [
        Figure("memory of a trainer's own at its peak", large["peak_gib"], "GiB", sample, LIMIT_GIB),
        Figure(
            "the same over that on a tenth of the transitions",
            large["peak_gib"] / small["peak_gib"],
            "times",
            sample,
            1.5,
        ),
    ]


def write_synthetic(folder: Path, transitions: int, seed: int) -> None:
    """Write a dataset of at least `transitions` with random latents of the small encoder's shape."""
    encoder = {"model": "synthetic", "fingerprint": "0" * 16, "shape": [17, 128], "untrained": True}
    info = replace(SMALL_ROWS, encoder=encoder, sources=({"made": "at random", "seed": seed},))
    rng = np.random.default_rng(seed)
    made = [_episode(rng, info) for _ in range(EPISODES_MADE)]
    with EpisodeWriter(folder, info) as writer:
        for number in range(-(-transitions // (EPISODE_ROWS - 1))):
            rows = made[number % EPISODES_MADE]
            scale = np.float16(1 + number // EPISODES_MADE / 1000)
            writer.add(number, rows | {LATENT: rows[LATENT] * scale})
    finish_dataset(folder, info)


def _episode(rng: np.random.Generator, info: DatasetInfo) -> dict[str, np.ndarray]:
    """Return rows with the columns of `info`: random numbers, except for columns that mark the episode's end."""
    rows = {
        name: rng.standard_normal((EPISODE_ROWS, *shape)).astype(kind)
        for name, (kind, shape) in info.columns().items()
        if name != "episode_index"
    }
    number = np.arange(EPISODE_ROWS)
    has_next = number < EPISODE_ROWS - 1
    rows |= {"frame_index": number, "stamp_ns": number * PERIOD_NS, "has_next": has_next, "next.done": ~has_next}
    efforts = np.where(has_next[:, None], np.clip(0.05 * rows["effort"], -0.05, 0.05), np.nan)
    return rows | {"effort": efforts, "action": info.arm.to_action(efforts)}


def peak_private_gib(command: list[str], said: Path, environment: Mapping[str, str] | None = None) -> float:
    """Run `command` and return the largest private memory of it and the processes that it starts, GiB.

    The system cannot drop private memory, unlike mapped files. The output of the command goes into the file `said`.
    Its environment is this process's, if none is given.

    Raises:
        VjepaError: the command failed; the message quotes its output.
    """
    peak = 0
    with said.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=ROOT, env=environment)
        try:
            while process.poll() is None:
                peak = max(peak, sum(map(private_bytes, family(process.pid))))
                time.sleep(EVERY_S)
        finally:
            process.terminate()
            process.wait()
    if process.returncode:
        raise VjepaError(f"{' '.join(command)} ended with {process.returncode}: {said.read_text()[-2000:]}")
    return peak / 2**30


def family(pid: int) -> list[int]:
    """Return a process and all its descendants, as far as they run."""
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):
            for children in Path(f"/proc/{one}/task").glob("*/children"):
                found += map(int, children.read_text().split())
    return found


def private_bytes(pid: int) -> int:
    """Return the private memory of a process, which the system cannot drop; 0 if the process has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    kept = [int(line.split()[1]) for line in status.splitlines() if line.startswith(("RssAnon", "RssShmem", "VmSwap"))]
    return 1024 * sum(kept)
