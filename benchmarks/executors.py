"""rclpy's executors beside each other, in the bare ping of three nodes: round trip, and time on processors."""

from collections.abc import Callable
from typing import Any

from benchmarks.figures import Figure, command_of, mean_with_interval, record
from benchmarks.ping import measure_ping

NAMES = {"single": "SingleThreadedExecutor", "multi": "MultiThreadedExecutor", "events": "EventsExecutor"}
OWN = "events"
"""What the stack's nodes spin in, see `managed_node.run`."""

RATE_HZ = 25.0
"""At 50 Hz the multi-threaded one does not keep up on two cores: it leaves pings unanswered."""


def measure(rounds: int, pings: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure every executor in turns and return the record; `say` is told how it goes."""
    runs = []
    for _ in range(rounds):
        for executor, name in NAMES.items():
            runs.append({"what": name, **measure_ping(pings, rate_hz=RATE_HZ, executor=executor)})
            say(f"{name}: {runs[-1]['p50_ms']:.2f} ms, {runs[-1]['cpu_ms']:.2f} ms on processors a message")
    return record("executors", figures(runs), command_of("executors", rounds=rounds, pings=pings), [0], runs=runs)


def figures(runs: list[dict[str, Any]]) -> list[Figure]:
    """Return what rclpy's default executor takes over what the events executor takes, which the nodes spin in."""
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
