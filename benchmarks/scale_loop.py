"""The growth of memory of the loop's nodes, and of the recorder, over many episodes."""

import tempfile
from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import Vector3Stamped

from benchmarks.figures import command_of, record
from benchmarks.memory import private_bytes
from benchmarks.sweeps import FLAT, Sweep
from vjepa_bringup.graph import StackOptions
from vjepa_bringup.monitor import Monitor
from vjepa_bringup.run_graph import running_graph
from vjepa_interfaces import topics
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.managed_node import qos_profile

EPISODE_STEPS = 200
SHARES = (0.125, 0.25, 0.5, 0.95)
"""Memory is read after these shares of all control steps."""

STEP_S = 0.5
"""The longest time of a control step in a healthy run."""

START_S = 120.0
RECORDER = "episode_recorder"


def measure(rounds: int, episodes: int, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the stack in lockstep for short episodes with the recorder, and return the record.

    Args:
        rounds: runs of the stack.
        episodes: episodes of each run.
        seed: seed of the first episode.
        say: is called with lines of progress.
    """
    runs = []
    for turn in range(rounds):
        runs.append(memory_by_node(episodes, seed + turn * episodes))
        say(
            f"run {turn + 1}/{rounds}: {', '.join(f'{name} {values[-1]:.0f}' for name, values in runs[-1].items())} MiB"
        )
    sweeps = sweeps_of(runs, [share * episodes * EPISODE_STEPS for share in SHARES])
    command = command_of("scale-loop", rounds=rounds, run_episodes=episodes, seed=seed)
    return record(
        "scale-loop",
        [sweep.figure() for sweep in sweeps],
        command,
        range(seed, seed + rounds * episodes),
        sweeps=[sweep.content() for sweep in sweeps],
        memory_mib=runs,
    )


def sweeps_of(runs: list[dict[str, list[float]]], steps: list[float]) -> list[Sweep]:
    """Return the memory of the recorder and of all other nodes, by steps; `runs` contain it by node, MiB."""
    recorder: dict[float, list[float]] = {step: [] for step in steps}
    loop: dict[float, list[float]] = {step: [] for step in steps}
    for run in runs:
        for i, step in enumerate(steps):
            recorder[step].append(run[RECORDER][i])
            loop[step].append(sum(values[i] for name, values in run.items() if name != RECORDER))
    panel, x, y = "loop: memory", "control steps of a run", "MiB of their own"
    of = "the stack in lockstep, recorded, the default planner"
    return [
        Sweep("the recorder's memory with time", panel, x, y, FLAT, recorder, sample=of),
        Sweep("the loop's memory with time, all other nodes", panel, x, y, FLAT, loop, sample=of),
    ]


def memory_by_node(episodes: int, seed: int) -> dict[str, list[float]]:
    """Return the private memory of each node, MiB, after each of `SHARES` of a run of short episodes.

    Raises:
        VjepaError: the stack did not start or stood still, or a node died.
    """
    heard = 0

    def count(_: Vector3Stamped) -> None:
        nonlocal heard
        heard += 1

    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="vjepa-bench-") as bags:
        options = StackOptions(
            seed=seed, lockstep=True, episodes=episodes, episode_steps=EPISODE_STEPS, record=True, bag_dir=bags
        )
        with (
            running_graph(options, None, {"planner": "(scale-loop)"}) as (supervisor, domain),
            Monitor(domain) as monitor,
        ):
            topic = topics.TIMESTEP
            monitor.node.create_subscription(Vector3Stamped, topic.name, count, qos_profile(topic))
            for share in SHARES:
                wanted = share * episodes * EPISODE_STEPS
                monitor.wait_until(
                    lambda wanted=wanted: heard >= wanted or supervisor.poll(), START_S + wanted * STEP_S
                )
                if heard < wanted or supervisor.restarts():
                    raise VjepaError(f"{heard} of {wanted:g} steps; died: {supervisor.restarts()}, {supervisor.poll()}")
                for name, pid in supervisor.pids().items():
                    found.setdefault(name, []).append(private_bytes(pid) / 2**20)
    return found
