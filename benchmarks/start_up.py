"""The time of `vjepa --help`, and of `vjepa run` to its first torque command, with everything installed."""

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sensor_msgs.msg import JointState

from benchmarks.figures import Figure, command_of, mean_with_interval, record
from benchmarks.stack import ROOT, free_domain
from vjepa_bringup.graph import StackOptions, environment
from vjepa_bringup.monitor import Monitor
from vjepa_interfaces import topics
from vjepa_interfaces.environment import environment_of
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.managed_node import qos_profile

AIM_S = 3.0
HELP_AIM_S = 0.3
TIMEOUT_S = 120.0
END_S = 30.0
JOIN_S = 1.5
"""The listener starts after this time, because `vjepa run` first looks 1.5 s for another stack in a used domain."""


def measure(runs: int, seed: int) -> dict[str, Any]:
    """Request the help and start the stack with its defaults, `runs` times each in turns, and return the record."""
    times = [{"help_s": help_s(), "first_torque_s": first_torque_s(seed + i)} for i in range(runs)]
    command = command_of("start-up", runs=runs, seed=seed)
    return record("start-up", figures(times), command, range(seed, seed + runs), runs=times)


def figures(runs: Sequence[Mapping[str, float]]) -> list[Figure]:
    """Return the mean times of all runs."""
    found = []
    for what, key, sample, aim in (
        ("`vjepa --help`", "help_s", f"{len(runs)} calls", HELP_AIM_S),
        (
            "`vjepa run` to its first torque command",
            "first_torque_s",
            f"{len(runs)} starts, the default planner",
            AIM_S,
        ),
    ):
        mean, interval = mean_with_interval([run[key] for run in runs])
        found.append(Figure(what, mean, "s", sample, aim, interval_95=interval, interval_of="bootstrap over starts"))
    return found


def help_s() -> float:
    """Return the time of `vjepa --help`, from the start of the process to its end, s."""
    started = time.monotonic()
    subprocess.run([str(ROOT / "vjepa"), "--help"], stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - started


def first_torque_s(seed: int, script: Path = ROOT / "vjepa", variables: Mapping[str, str] | None = None) -> float:
    """Return the time from the start of `vjepa run` to the first torque command on its topic, s.

    Args:
        seed: seed of the episode.
        script: path of `./vjepa`.
        variables: environment of the script, to which the stack's own is added; None for that of this process.

    Raises:
        VjepaError: no torque command came, or the command failed.
    """
    domain = free_domain()
    heard: list[float] = []
    command = [str(script), "run", "--episodes", "1", "--seed", str(seed), "--domain", str(domain)]
    surroundings = None if variables is None else {**variables, **environment(StackOptions())}
    started = time.monotonic()
    process = subprocess.Popen(command, env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        time.sleep(JOIN_S)
        with environment_of(environment(StackOptions())), Monitor(domain) as monitor:
            topic = topics.JOINT_COMMAND
            monitor.node.create_subscription(
                JointState, topic.name, lambda _: heard.append(time.monotonic()), qos_profile(topic)
            )
            monitor.wait_until(lambda: bool(heard) or process.poll() is not None, TIMEOUT_S)
    finally:
        process.terminate()
        try:
            said, _ = process.communicate(timeout=END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
    if not heard:
        raise VjepaError(f"no torque command came from {' '.join(command)}; it said: {said[-2000:]}")
    return heard[0] - started
