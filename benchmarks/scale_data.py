"""The growth of `vjepa collect` and `vjepa eval` in time and memory, with episodes and with worker processes.

With several rounds, both also run on two Ray nodes of this machine, if `./vjepa --with ray --setup-only` installed Ray.
"""

import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, command_of, mean_with_interval, record
from benchmarks.memory import peak_private_gib
from benchmarks.ray_nodes import FOLDER, environment, ray_nodes
from benchmarks.sweeps import FLAT, LINEAR, Sweep
from vjepa_interfaces.json_text import read_json

EPISODE_STEPS = 50
SHARES = (1, 2, 4)
WORKERS = (1, 2)
CROWD, KEPT_RATE = 16, 0.8
"""Workers for a machine of 16 cores, and the share of the rate of one worker a core that they, and Ray, must keep."""
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
    crowd = f"with {CROWD} workers on {WORKERS[-1]} cores"
    figures += [_kept(name, crowd, ratios, samples[name]) for name, ratios in crowded.items() if ratios]
    if rounds > 1 and FOLDER.is_dir():
        on_ray = _on_ray(commands, {name: rates[name][WORKERS[-1]] for name in commands}, int(counts[-1]), seed, say)
        where = f"on {WORKERS[-1]} Ray nodes of this machine"
        figures += [_kept(name, where, ratios, samples[name]) for name, ratios in on_ray.items()]
    command = command_of("scale-data", rounds=rounds, run_episodes=episodes, seed=seed)
    return record("scale-data", figures, command, [seed], sweeps=[sweep.content() for sweep in sweeps])


def _on_ray(
    commands: Mapping[str, Callable[..., tuple[float, float]]],
    rates: Mapping[str, list[float]],
    count: int,
    seed: int,
    say: Callable[[str], None],
) -> dict[str, list[float]]:
    """Return the rate of each command on as many Ray nodes as workers, over that with the workers, by round."""
    found: dict[str, list[float]] = {name: [] for name in commands}
    nodes = WORKERS[-1]
    with ray_nodes(nodes) as address:
        for turn in range(len(next(iter(rates.values())))):
            for name, run in commands.items():
                start_s, _ = run(nodes, address, seed)
                taken_s, _ = run(nodes + count, address, seed)
                rate = count / max(1e-3, taken_s - start_s)
                say(f"round {turn + 1}: {name}, {nodes} Ray nodes, {rate:.2f} episodes a second")
                found[name].append(rate / rates[name][turn])
    return found


def _kept(name: str, where: str, ratios: list[float], sample: str) -> Figure:
    """Return the figure of the rates `where` over those with one worker a core, one for each round."""
    mean, interval = mean_with_interval(ratios)
    return Figure(
        f"`vjepa {name}`'s rate {where}, over that with {WORKERS[-1]} workers",
        mean,
        "times",
        f"{sample}; {len(ratios)} rounds",
        KEPT_RATE,
        at_least=True,
        interval_95=interval,
        interval_of="bootstrap over rounds",
    )


def _where(workers: int | str) -> list[str]:
    """Return the options for a number of worker processes, or for the address of a Ray cluster."""
    return ["--workers", str(workers)] if isinstance(workers, int) else ["--ray-address", workers]


def collected(episodes: int, workers: int | str, seed: int) -> tuple[float, float]:
    """Return the time that `vjepa collect` reports, s, and the largest private memory of its processes, MiB.

    Args:
        episodes: number of episodes.
        workers: number of processes, or the address of a Ray cluster.
        seed: seed of the first episode.
    """
    with tempfile.TemporaryDirectory(prefix="vjepa-bench-") as folder:
        command = [sys.executable, "-P", "-m", "vjepa_cli.cli", "collect", "--out", f"{folder}/data"]
        command += ["--episodes", str(episodes), "--episode-steps", str(EPISODE_STEPS), *_where(workers)]
        command += ["--behaviour", "random", "--encoder", "encoder-small", "--device", "cpu", "--seed", str(seed)]
        peak = peak_private_gib(command, Path(folder) / "said", environment())
        (taken,) = re.findall(r"frames in ([\d.]+) s", (Path(folder) / "said").read_text())
    return float(taken), MIB * peak


def evaluated(episodes: int, workers: int | str, seed: int) -> tuple[float, float]:
    """Return the time that `vjepa eval` reports, s, and the largest private memory of its processes, MiB.

    Args:
        episodes: number of episodes.
        workers: number of processes, or the address of a Ray cluster.
        seed: seed of the first episode.
    """
    with tempfile.TemporaryDirectory(prefix="vjepa-bench-") as folder:
        command = [sys.executable, "-P", "-m", "vjepa_cli.cli", "eval", "--through", "process", "--planner", "random"]
        command += ["--episodes", str(episodes), "--protocol", "baseline", *_where(workers)]
        command += ["--encoder", "encoder-small", "--device", "cpu", "--seed", str(seed)]
        command += ["--json", f"{folder}/result.json"]
        peak = peak_private_gib(command, Path(folder) / "said", environment())
        return float(read_json(Path(folder) / "result.json")["wall_s"]), MIB * peak
