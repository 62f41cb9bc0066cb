"""Whether the memory of the loop's nodes, and of the recorder, stays what it is while episodes go on."""

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
"""Of all control steps, behind which memory is read."""

STEP_S = 0.5
"""A control step takes no longer than this, or something is wrong."""

START_S = 120.0
RECORDER = "episode_recorder"


def measure(rounds: int, episodes: int, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the stack in lockstep while it records, for short episodes, and return the record.

    Args:
        rounds: runs of the stack.
        episodes: of each run.
        seed: of the first episode.
        say: told how it goes.
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
    """Return the memory of the recorder and of all other nodes, by steps; `runs` have it by node, MiB."""
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
    """Return the memory of each node's own, MiB, behind each of `SHARES` of a run of short episodes.

    Raises:
        VjepaError: it did not come up, stood still, or a node died.
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
