"""rclpy's executors in the bare ping of three nodes: round trip, and time on processors."""

from collections.abc import Callable
from typing import Any

from benchmarks.figures import Figure, command_of, mean_with_interval, record
from benchmarks.ping import measure_ping

NAMES = {"single": "SingleThreadedExecutor", "multi": "MultiThreadedExecutor", "events": "EventsExecutor"}
OWN = "events"
"""The executor of the stack's nodes, see `managed_node.run`."""

RATE_HZ = 25.0
"""At 50 Hz the multi-threaded executor leaves pings unanswered on two cores."""


def measure(rounds: int, pings: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure every executor in turns and return the record; `say` is called with lines of progress."""
    runs = []
    for _ in range(rounds):
        for executor, name in NAMES.items():
            runs.append({"what": name, **measure_ping(pings, rate_hz=RATE_HZ, executor=executor)})
            say(f"{name}: {runs[-1]['p50_ms']:.2f} ms, {runs[-1]['cpu_ms']:.2f} ms on processors a message")
    return record("executors", figures(runs), command_of("executors", rounds=rounds, pings=pings), [0], runs=runs)


def figures(runs: list[dict[str, Any]]) -> list[Figure]:
    """Return the ratio of the costs of rclpy's default executor to those of the nodes' events executor."""
    own, usual = ([run for run in runs if run["what"] == NAMES[executor]] for executor in (OWN, "single"))
    found = []
    for what, key in (("median round trip", "p50_ms"), ("time on processors", "cpu_ms")):
        mean, interval = mean_with_interval([theirs[key] / ours[key] for theirs, ours in zip(usual, own, strict=True)])
        found.append(
            Figure(
                f"bare ping, {what}: rclpy's default executor over the nodes' own, of events",
                mean,
                "times",
                f"{len(own)} rounds in turns, {RATE_HZ:g} Hz",
                1.0,
                at_least=True,
                interval_95=interval,
                interval_of="bootstrap over rounds",
            )
        )
    return found
