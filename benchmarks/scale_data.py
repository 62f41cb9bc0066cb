"""The growth of `vjepa collect` in time and memory, with episodes and with worker processes."""

import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.figures import command_of, record
from benchmarks.memory import peak_private_gib
from benchmarks.sweeps import FLAT, LINEAR, Sweep

EPISODE_STEPS = 50
SHARES = (1, 2, 4)
WORKERS = (1, 2)
MIB = 1024.0


def measure(rounds: int, episodes: int, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure time and memory by episodes, and rate and memory by workers, and return the record.

    The time of a run with one episode for each worker, which is mostly the start, is subtracted from every time.

    Args:
        rounds: rounds in which every size is measured once.
        episodes: a quarter of the largest number of episodes.
        seed: seed of the first episode.
        say: is called with lines of progress.
    """
    counts = [float(episodes * share) for share in (SHARES if rounds > 1 else SHARES[:2])]
    times_s: dict[float, list[float]] = {count: [] for count in counts}
    memory: dict[float, list[float]] = {count: [] for count in counts}
    rates: dict[float, list[float]] = {float(workers): [] for workers in WORKERS}
    memory_of_workers: dict[float, list[float]] = {float(workers): [] for workers in WORKERS}
    for turn in range(rounds):
        for workers in WORKERS:
            start_s, _ = collected(workers, workers, seed)
            for count in counts if workers == 1 else counts[-1:]:
                taken_s, peak = collected(workers + int(count), workers, seed)
                beyond_s = max(1e-3, taken_s - start_s)
                say(f"round {turn + 1}: {workers} workers, {count:g} episodes in {beyond_s:.1f} s, {peak:.0f} MiB")
                if workers == 1:
                    times_s[count].append(beyond_s)
                    memory[count].append(peak)
            rates[workers].append(counts[-1] / beyond_s)
            memory_of_workers[workers].append(peak)
    of = f"`vjepa collect`, episodes of {EPISODE_STEPS} steps with latents of the small encoder"
    beyond, mib = "episodes beyond the first", "MiB of its own, all processes"
    sweeps = [
        Sweep(
            "`vjepa collect`'s time with episodes", "collect, episodes: time", beyond, "s", LINEAR, times_s, sample=of
        ),
        Sweep(
            "`vjepa collect`'s memory with episodes", "collect, episodes: memory", beyond, mib, FLAT, memory, sample=of
        ),
        Sweep(
            "`vjepa collect`'s rate with workers",
            "collect, workers: rate",
            "worker processes",
            "episodes a second",
            LINEAR,
            rates,
            gain=True,
            sample=of,
        ),
        Sweep(
            "`vjepa collect`'s memory with workers",
            "collect, workers: memory",
            "worker processes",
            mib,
            LINEAR,
            memory_of_workers,
            sample=of,
        ),
    ]
    command = command_of("scale-data", rounds=rounds, run_episodes=episodes, seed=seed)
    figures = [sweep.figure() for sweep in sweeps]
    return record("scale-data", figures, command, [seed], sweeps=[sweep.content() for sweep in sweeps])


def collected(episodes: int, workers: int, seed: int) -> tuple[float, float]:
    """Return the time that `vjepa collect` reports, s, and the largest private memory of its processes, MiB."""
    with tempfile.TemporaryDirectory(prefix="vjepa-bench-") as folder:
        command = [sys.executable, "-P", "-m", "vjepa_cli.cli", "collect", "--out", f"{folder}/data"]
        command += ["--episodes", str(episodes), "--episode-steps", str(EPISODE_STEPS), "--workers", str(workers)]
        command += ["--behaviour", "random", "--encoder", "encoder-small", "--device", "cpu", "--seed", str(seed)]
        peak = peak_private_gib(command, Path(folder) / "said")
        (taken,) = re.findall(r"frames in ([\d.]+) s", (Path(folder) / "said").read_text())
    return float(taken), MIB * peak
