"""The time for which the arm stands still when a node is killed: from SIGKILL until torque is applied again."""

import os
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sensor_msgs.msg import JointState

from benchmarks.figures import Figure, command_of, mean_with_interval, record
from vjepa_bringup.graph import StackOptions
from vjepa_bringup.monitor import Monitor
from vjepa_bringup.run_graph import running_graph
from vjepa_bringup.supervisor import MAX_RESTARTS
from vjepa_interfaces import topics
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.managed_node import qos_profile

NODES = ("vjepa_planner", "vjepa_perception", "sim_bridge")
AIM_S = 5.0
TIMEOUT_S = 120.0
SETTLE_S = 3.0
"""The time between two kills, which is longer than the discovery that a start waits for."""

WATCHDOG_S = 0.5
"""Torque may still be applied for this time after a kill; it does not count."""


def measure(runs: int, seed: int) -> dict[str, Any]:
    """Kill each node of the loop `runs` times in real time, with the stack's defaults, and return the record."""
    times: dict[str, list[float]] = {name: [] for name in NODES}
    for first in range(0, runs, MAX_RESTARTS):  # A node that dies more often is not restarted.
        for name, found in stood_still(min(MAX_RESTARTS, runs - first), seed).items():
            times[name] += found
    listed = [{"what": name, "still_s": still_s} for name, found in times.items() for still_s in found]
    command = command_of("recovery", runs=runs, seed=seed)
    return record("recovery", figures(times), command, [seed], runs=listed)


def figures(times: Mapping[str, Sequence[float]]) -> list[Figure]:
    """Return the figures of the times by node, s."""
    found = []
    for name, values in times.items():
        mean, interval = mean_with_interval(values)
        what, sample = (
            f"torque again after a SIGKILL of `{name}`",
            f"{len(values)} kills in real time, the default planner",
        )
        found.append(Figure(what, mean, "s", sample, AIM_S, interval_95=interval, interval_of="bootstrap over kills"))
    return found


def stood_still(kills: int, seed: int) -> dict[str, list[float]]:
    """Run the stack, kill each node of the loop `kills` times, and return the times by node without torque, s.

    Raises:
        VjepaError: the stack did not start, or did not continue after a kill.
    """
    moved: list[float] = []

    def note(state: JointState) -> None:
        if any(state.effort):
            moved.append(time.monotonic())

    times: dict[str, list[float]] = {name: [] for name in NODES}
    options = StackOptions(seed=seed, episode_steps=1000)
    with running_graph(options, None, {"planner": "(recovery)"}) as (supervisor, domain), Monitor(domain) as monitor:
        topic = topics.JOINT_STATES
        monitor.node.create_subscription(JointState, topic.name, note, qos_profile(topic))

        def watch(condition, timeout_s: float) -> bool:
            """Listen and restart nodes that died, until the condition holds."""
            return monitor.wait_until(lambda: supervisor.poll() or condition(), timeout_s)

        for name in [name for name in NODES for _ in range(kills)]:
            watch(lambda: bool(moved), TIMEOUT_S)
            watch(lambda: False, SETTLE_S)
            killed = time.monotonic()
            os.kill(supervisor.pids()[name], signal.SIGKILL)
            watch(lambda: False, WATCHDOG_S)
            moved.clear()
            watch(lambda: bool(moved), TIMEOUT_S)
            if not moved:
                raise VjepaError(f"no torque within {TIMEOUT_S:.0f} s of the end of {name}: {supervisor.poll()}")
            times[name].append(moved[0] - killed)
    return times
