"""The full loop for half an hour in real time, with the recorder: it measures growth and counts timeouts."""

import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import Figure, command_of, record
from benchmarks.memory import private_bytes
from vjepa_bringup.graph import StackOptions
from vjepa_bringup.monitor import Monitor
from vjepa_bringup.run_graph import running_graph
from vjepa_interfaces.errors import VjepaError

EPISODE_STEPS = 1000
EVERY_S = 10.0
START_TIMEOUT_S = 120.0
SETTLED = 0.2
"""Share of the time that does not count, in which caches fill and the recorder's buffers reach their size."""

GROWTH_AIM_MIB = 1.0
COUNTED = ("steps", "timeout_steps", "stale_steps", "frames", "answered_frames", "refused_commands")

Sample = Mapping[str, float]
"""State of a process: `minutes` since the loop began, private `memory_mib`, open `files`, and `threads`."""


def measure(minutes: float, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the loop for some `minutes` with its defaults, record all of it, and return the record.

    Raises:
        VjepaError: the loop did not start, or a node died.
    """
    with tempfile.TemporaryDirectory(prefix="vjepa-bench-") as folder:
        samples, progress = watched(minutes, seed, folder, say)
    processes = [summary(name, samples[name]) for name in sorted(samples)]
    command = command_of("soak", minutes=minutes, seed=seed)
    counts = {name: progress[-1][name] for name in COUNTED}
    content = record("soak", figures(processes, counts, minutes), command, [seed], runs=processes, counts=counts)
    return {**content, "progress": progress}


class Heartbeat:
    """A thread that only sleeps: its delay in waking shows how long the machine ran no process."""

    BEAT_S = 0.005

    def __init__(self):
        self._longest_s = 0.0
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        last = time.monotonic()
        while True:
            time.sleep(self.BEAT_S)
            now = time.monotonic()
            self._longest_s, last = max(self._longest_s, now - last - self.BEAT_S), now

    def take(self) -> float:
        """Return the longest delay of waking since the last call, s."""
        longest_s, self._longest_s = self._longest_s, 0.0
        return longest_s


def watched(
    minutes: float, seed: int, bags: str, say: Callable[[str], None]
) -> tuple[dict[str, list[Sample]], list[Sample]]:
    """Run the loop; return the samples of each node's process by name, and the simulation's counts over time.

    Each entry of the counts has the `late_s` of a `Heartbeat`, which distinguishes a machine that stood still from a
    fault.
    """
    options = StackOptions(seed=seed, episode_steps=EPISODE_STEPS, record=True, bag_dir=bags)
    samples: dict[str, list[Sample]] = {}
    with running_graph(options, None, {"planner": "(soak)"}) as (supervisor, domain), Monitor(domain) as monitor:
        if not monitor.wait_until(lambda: monitor.value("sim_bridge", "steps") > 0, START_TIMEOUT_S):
            raise VjepaError(f"no step within {START_TIMEOUT_S:.0f} s")
        began, heartbeat, progress = time.monotonic(), Heartbeat(), []
        while (elapsed_s := time.monotonic() - began) < 60 * minutes:
            for name, pid in supervisor.pids().items():
                samples.setdefault(name, []).append(sample(pid, elapsed_s / 60))
            monitor.wait_until(supervisor.poll, min(EVERY_S, 60 * minutes - elapsed_s))
            if supervisor.poll() or supervisor.restarts():
                raise VjepaError(f"a node died after {elapsed_s / 60:.1f} minutes: {supervisor.restarts()}")
            counts = {name: monitor.value("sim_bridge", name) for name in COUNTED}
            progress.append({"minutes": (time.monotonic() - began) / 60, **counts, "late_s": heartbeat.take()})
            if len(samples["sim_bridge"]) % 30 == 0:
                say(f"{elapsed_s / 60:.0f} of {minutes:g} minutes")
        return samples, progress


def sample(pid: int, minutes: float) -> Sample:
    """Return the state of a process now."""
    folder = Path(f"/proc/{pid}")
    return {
        "minutes": minutes,
        "memory_mib": private_bytes(pid) / 2**20,
        "files": len(list((folder / "fd").iterdir())),
        "threads": len(list((folder / "task").iterdir())),
    }


def summary(name: str, samples: Sequence[Sample]) -> dict[str, Any]:
    """Return the figures of a process after it had settled.

    Growth is that of the least-squares line through its memory, from the first of these samples to the last.
    """
    settled = samples[int(SETTLED * len(samples)) :]
    times, memory = (np.array([each[key] for each in settled]) for key in ("minutes", "memory_mib"))
    slope = float(np.polyfit(times, memory, 1)[0]) if len(settled) > 1 else float("nan")
    found: dict[str, Any] = {"what": name, "growth_mib": slope * float(times[-1] - times[0])}
    found |= {"first_mib": float(memory[0]), "last_mib": float(memory[-1]), "most_mib": float(memory.max())}
    for key in ("files", "threads"):
        values = [each[key] for each in settled]
        found |= {f"least_{key}": min(values), f"most_{key}": max(values)}
    return found | {"samples": [[round(value, 3) for value in each.values()] for each in samples]}


def figures(processes: Sequence[Mapping[str, Any]], counts: Mapping[str, float], minutes: float) -> list[Figure]:
    """Return the figures of all processes' summaries and the simulation's counts."""
    ran = f"{minutes:g} minutes, {counts['steps']:.0f} steps, {len(processes)} processes"
    settled = f"{ran}, from {SETTLED * minutes:g} minutes on"

    def widest(key: str) -> float:
        return max(each[f"most_{key}"] - each[f"least_{key}"] for each in processes)

    grown = max(each["growth_mib"] for each in processes)
    return [
        Figure("soak: growth of the process that grows most", grown, "MiB", settled, GROWTH_AIM_MIB),
        Figure("soak: open files, most less least of one process", widest("files"), "", settled, 0.0),
        Figure("soak: threads, most less least of one process", widest("threads"), "", settled, 0.0),
        Figure("soak: steps without torque, as no command came in time", counts["timeout_steps"], "", ran, 0.0),
    ]
