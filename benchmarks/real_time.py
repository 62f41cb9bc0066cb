"""Real time at 50 Hz with the small encoder in the loop: it measures whether commands keep up with the arm."""

from collections.abc import Callable
from typing import Any

from benchmarks.figures import Figure, command_of, mean_with_interval, record
from benchmarks.stack import real_time_run

STALE_AIM = 0.01
AGE_AIM_PERIODS = 2.0
LATENCY_AIM_MS = 8.0


def measure(runs: int, episodes: int, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the loop `runs` times for `episodes` short episodes each and return the record, which contains every run."""
    loops = []
    for run in range(runs):
        loop = real_time_run(episodes, seed + run * episodes)["loop"]
        loops.append(loop)
        say(f"run {run + 1}/{runs}: {describe(loop)}")
    command = command_of("real-time", runs=runs, run_episodes=episodes, seed=seed)
    return record("real-time", figures(loops), command, range(seed, seed + runs * episodes), runs=loops)


def describe(loop: dict[str, float]) -> str:
    """Return one run's figures in a line."""
    return (
        f"stale {loop['stale_steps']:.0f} of {loop['steps']:.0f} steps, "
        f"command age p99 {loop['command_age_p99_periods']:.1f} periods, "
        f"frame to torque p50 {loop['latency_p50_ms']:.1f} ms, encoder p50 {loop['encode_p50_ms']:.1f} ms"
    )


def figures(loops: list[dict[str, float]]) -> list[Figure]:
    """Return the figures of the `loops` of all runs, each from `vjepa run --json`."""
    stale = [loop["stale_steps"] / loop["steps"] for loop in loops]
    beyond_encoder = [loop["latency_p50_ms"] - loop["encode_p50_ms"] for loop in loops]
    steps = sum(loop["steps"] for loop in loops)
    pooled = sum(loop["stale_steps"] for loop in loops) / steps
    mean, interval = mean_with_interval(beyond_encoder)
    sample = f"{len(loops)} runs, {steps:.0f} steps"
    over_runs = "bootstrap over runs"
    return [
        Figure(
            "control steps without a newer command, real time at 50 Hz",
            pooled,
            "%",
            sample,
            STALE_AIM,
            interval_95=mean_with_interval(stale)[1],
            interval_of=over_runs,
        ),
        Figure(
            "99th percentile of the applied command's age, worst run",
            max(loop["command_age_p99_periods"] for loop in loops),
            "periods",
            sample,
            AGE_AIM_PERIODS,
        ),
        Figure(
            "frame to torque beyond the encoder (median less the encoder's median), mean of the runs",
            mean,
            "ms",
            sample,
            LATENCY_AIM_MS,
            interval_95=interval,
            interval_of=over_runs,
        ),
    ]
