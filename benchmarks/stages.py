"""The parts of the time from frame to torque, by the middleware's own source and reception times of every message.

An observer beside the stack notes, by stamp, when the middleware took each message from its publisher and when it gave
it to the observer. All processes are on one machine, so these times are of one clock. The travel time of a message to
the observer stands for that to the node that needs it.
"""

import itertools
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from sensor_msgs.msg import Image, JointState

from benchmarks.figures import Figure, command_of, record
from benchmarks.stack import ROOT, free_domain
from vjepa_bringup.graph import StackOptions, environment
from vjepa_bringup.monitor import Monitor
from vjepa_interfaces import topics
from vjepa_interfaces.environment import environment_of
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.managed_node import qos_profile
from vjepa_interfaces.stamps import to_nanoseconds

RATES_HZ = (50.0, 60.0, 75.0, 90.0, 105.0)
LEAST_ANSWERED = 0.99
WARM_UP = 50
TIMEOUT_S = 300.0
HEARD = {
    "frame": (Image, topics.IMAGE),
    "latent": (Image, topics.LATENT),
    "command": (JointState, topics.JOINT_COMMAND),
}
STAGES = {
    "frame, on its way": ("frame", "sent", "frame", "heard"),
    "frame sent to latent sent: receive, encode, publish": ("frame", "sent", "latent", "sent"),
    "latent, on its way": ("latent", "sent", "latent", "heard"),
    "latent sent to command sent: receive, plan, publish": ("latent", "sent", "command", "sent"),
    "command, on its way": ("command", "sent", "command", "heard"),
    "frame sent to command heard": ("frame", "sent", "command", "heard"),
}

TASK_HZ = 50.0
"""Control steps a second of simulated time, as in the policy's training; the rates are playback speeds."""

Times = Mapping[str, Mapping[int, tuple[float, float]]]
"""By message and stamp: the times of sending and of hearing, ms."""


def measure(turns: int, episodes: int, seed: int) -> dict[str, Any]:
    """Run the stack at rising rates, at most `turns`, until one does not hold, and return the record."""
    runs: list[dict[str, Any]] = []
    held = 0.0
    for rate_hz in RATES_HZ[:turns]:
        try:
            times = observed(episodes, seed, rate_hz)
        except VjepaError:
            if not runs:
                raise
            break  # Episodes with lost frames have no score, and `vjepa run` refuses them.
        answered = answered_share(times)
        runs += [{"rate_hz": rate_hz, "answered": answered, **stage} for stage in stages(times)]
        if answered < LEAST_ANSWERED:
            break
        held = rate_hz
    command = command_of("stages", turns=turns, run_episodes=episodes, seed=seed)
    rates = ", ".join(f"{rate:g}" for rate in RATES_HZ[:turns])
    sample = f"{episodes} short episodes of `bc`, small encoder, rates {rates} Hz"
    figure = Figure("highest rate tried at which 99 % of the frames get a command", held, "Hz", sample, 50.0, True)
    return record("stages", [figure], command, range(seed, seed + episodes), runs=runs)


def observed(episodes: int, seed: int, rate_hz: float) -> Times:
    """Run the stack for short episodes at a rate; return the times when its messages were sent and heard.

    Raises:
        VjepaError: the run failed.
    """
    domain = free_domain()
    times: dict[str, dict[int, tuple[float, float]]] = {name: {} for name in HEARD}
    with tempfile.TemporaryDirectory(prefix="vjepa-bench-") as folder:
        parameters = Path(folder) / "rate.yaml"
        parameters.write_text(
            yaml.safe_dump({"sim_bridge": {"ros__parameters": {"playback_speed": rate_hz / TASK_HZ}}})
        )
        command = [
            str(ROOT / "vjepa"),
            "run",
            "--planner",
            "bc",
            "--protocol",
            "short",
            "--params-file",
            str(parameters),
        ]
        command += ["--episodes", str(episodes), "--seed", str(seed), "--domain", str(domain)]
        with environment_of(environment(StackOptions())), Monitor(domain) as monitor:
            for name, (message_type, topic) in HEARD.items():

                def note(message: Any, info: Mapping[str, int], name: str = name) -> None:
                    found = (info["source_timestamp"] / 1e6, info["received_timestamp"] / 1e6)
                    times[name][to_nanoseconds(message.header.stamp)] = found

                monitor.node.create_subscription(message_type, topic.name, note, qos_profile(topic))
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            deadline = time.monotonic() + TIMEOUT_S
            try:
                monitor.wait_until(lambda: process.poll() is not None, deadline - time.monotonic())
            finally:
                process.terminate()
                said, _ = process.communicate()
    if process.returncode != 0:
        raise VjepaError(f"{' '.join(command)} ended with {process.returncode}: {said[-2000:]}")
    return times


def answered_share(times: Times) -> float:
    """Return the share of the frames after the warm-up that a command answers."""
    stamps = sorted(times["frame"])[WARM_UP:]
    return sum(stamp in times["command"] for stamp in stamps) / max(1, len(stamps))


def stages(times: Times) -> list[dict[str, Any]]:
    """Return the percentiles of each stage over the stamps that passed it, ms, and the jitter of frames."""
    stamps = sorted(times["frame"])[WARM_UP:]
    found = []
    for what, (first, first_kind, second, second_kind) in STAGES.items():
        i, j = (("sent", "heard").index(kind) for kind in (first_kind, second_kind))
        passed = [stamp for stamp in stamps if stamp in times[first] and stamp in times[second]]
        found.append(_percentiles(what, [times[second][stamp][j] - times[first][stamp][i] for stamp in passed]))
    between: dict[int, list[float]] = defaultdict(list)
    for before, after in itertools.pairwise(stamps):
        between[after - before].append(times["frame"][after][0] - times["frame"][before][0])
    usual = max(between.values(), key=len, default=[])  # The gaps of a control step; a reset advances stamps by more.
    middle = statistics.median(usual) if usual else 0.0
    found.append(
        _percentiles(
            "jitter: a frame's distance from the one before, off the usual", [abs(gap - middle) for gap in usual]
        )
    )
    return found


def _percentiles(what: str, values: list[float]) -> dict[str, Any]:
    p50, p90, p99 = np.percentile(values, [50, 90, 99]) if values else [float("nan")] * 3
    return {"what": what, "p50_ms": float(p50), "p90_ms": float(p90), "p99_ms": float(p99), "count": len(values)}
