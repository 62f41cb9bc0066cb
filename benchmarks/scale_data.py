"""The growth of `vjepa collect` and `vjepa eval` in time and memory, with episodes and with worker processes."""

import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, command_of, mean_with_interval, record
from benchmarks.memory import peak_private_gib
from benchmarks.sweeps import FLAT, LINEAR, Sweep
from vjepa_interfaces.json_text import read_json

EPISODE_STEPS = 50
SHARES = (1, 2, 4)
WORKERS = (1, 2)
CROWD, CROWDED_RATE = 16, 0.8
"""Workers for a machine of 16 cores, and the share of the rate of one worker a core that they must keep here."""
MIB = 1024.0


def measure(rounds: int, episodes: int, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure time and memory by episodes, and rate and memory by workers, and return the record.

    The time of a run with one episode for each worker, which is mostly the start, is subtracted from every time. With
    several rounds, both commands also run with `CROWD` workers: a machine of so many cores, simulated on those here.

    Args:
        rounds: rounds in which every size is measured once.
        episodes: a quarter of the largest number of episodes.
        seed: seed of the first episode.
        say: is called with lines of progress.
    """
    counts = [float(episodes * share) for share in (SHARES if rounds > 1 else SHARES[:2])]
    times_s: dict[float, list[float]] = {count: [] for count in counts}
    memory: dict[float, list[float]] = {count: [] for count in counts}
    commands = {"collect": collected, "eval": evaluated}
    rates = {name: {float(workers): list[float]() for workers in WORKERS} for name in commands}
    memory_of_workers = {name: {float(workers): list[float]() for workers in WORKERS} for name in commands}
    crowded: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(rounds):
        for name, run in commands.items():
            for workers in WORKERS if rounds == 1 else (*WORKERS, CROWD):
                by_episodes = (name, workers) == ("collect", 1)
                start_s, _ = run(workers, workers, seed)
                for count in counts if by_episodes else counts[-1:]:
                    taken_s, peak = run(workers + int(count), workers, seed)
                    beyond_s = max(1e-3, taken_s - start_s)
                    say(
                        f"round {turn + 1}: {name}, {workers} workers, {count:g} episodes in {beyond_s:.1f} s, "
                        f"{peak:.0f} MiB"
                    )
                    if by_episodes:
                        times_s[count].append(beyond_s)
                        memory[count].append(peak)
                rate = counts[-1] / beyond_s
                if workers == CROWD:
                    crowded[name].append(rate / rates[name][WORKERS[-1]][-1])
                else:
                    rates[name][workers].append(rate)
                    memory_of_workers[name][workers].append(peak)
    samples = {
        "collect": f"`vjepa collect`, episodes of {EPISODE_STEPS} steps with latents of the small encoder",
        "eval": "`vjepa eval --through process`, episodes of 100 steps with latents of the small encoder",
    }
    of, beyond, mib = samples["collect"], "episodes beyond the first", "MiB of its own, all processes"
    sweeps = [
        Sweep(
            "`vjepa collect`'s time with episodes", "collect, episodes: time", beyond, "s", LINEAR, times_s, sample=of
        ),
        Sweep(
            "`vjepa collect`'s memory with episodes", "collect, episodes: memory", beyond, mib, FLAT, memory, sample=of
        ),
    ]
    for name, sample in samples.items():
        sweeps += [
            Sweep(
                f"`vjepa {name}`'s rate with workers",
                f"{name}, workers: rate",
                "worker processes",
                "episodes a second",
                LINEAR,
                rates[name],
                gain=True,
                sample=sample,
            ),
            Sweep(
                f"`vjepa {name}`'s memory with workers",
                f"{name}, workers: memory",
                "worker processes",
                mib,
                LINEAR,
                memory_of_workers[name],
                sample=sample,
            ),
        ]
    figures = [sweep.figure() for sweep in sweeps]
    figures += [_crowd(name, ratios, samples[name]) for name, ratios in crowded.items() if ratios]
    command = command_of("scale-data", rounds=rounds, run_episodes=episodes, seed=seed)
    return record("scale-data", figures, command, [seed], sweeps=[sweep.content() for sweep in sweeps])


def _crowd(name: str, ratios: list[float], sample: str) -> Figure:
    """Return the figure of the rates with `CROWD` workers over those with one worker a core, one for each round."""
    mean, interval = mean_with_interval(ratios)
    what = f"`vjepa {name}`'s rate with {CROWD} workers on {WORKERS[-1]} cores, over that with {WORKERS[-1]} workers"
    return Figure(
        what,
        mean,
        "times",
        f"{sample}; {len(ratios)} rounds",
        CROWDED_RATE,
        at_least=True,
        interval_95=interval,
        interval_of="bootstrap over rounds",
    )


def collected(episodes: int, workers: int, seed: int) -> tuple[float, float]:
    """Return the time that `vjepa collect` reports, s, and the largest private memory of its processes, MiB."""
    with tempfile.TemporaryDirectory(prefix="vjepa-bench-") as folder:
        command = [sys.executable, "-P", "-m", "vjepa_cli.cli", "collect", "--out", f"{folder}/data"]
        command += ["--episodes", str(episodes), "--episode-steps", str(EPISODE_STEPS), "--workers", str(workers)]
        command += ["--behaviour", "random", "--encoder", "encoder-small", "--device", "cpu", "--seed", str(seed)]
        peak = peak_private_gib(command, Path(folder) / "said")
        (taken,) = re.findall(r"frames in ([\d.]+) s", (Path(folder) / "said").read_text())
    return float(taken), MIB * peak


def evaluated(episodes: int, workers: int, seed: int) -> tuple[float, float]:
    """Return the time that `vjepa eval` reports, s, and the largest private memory of its processes, MiB."""
    with tempfile.TemporaryDirectory(prefix="vjepa-bench-") as folder:
        command = [sys.executable, "-P", "-m", "vjepa_cli.cli", "eval", "--through", "process", "--planner", "random"]
        command += ["--episodes", str(episodes), "--protocol", "baseline", "--workers", str(workers)]
        command += ["--encoder", "encoder-small", "--device", "cpu", "--seed", str(seed)]
        command += ["--json", f"{folder}/result.json"]
        peak = peak_private_gib(command, Path(folder) / "said")
        return float(read_json(Path(folder) / "result.json")["wall_s"]), MIB * peak
