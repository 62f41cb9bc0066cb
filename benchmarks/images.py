"""The travel time of camera frames of several sizes, with and without the stack's Fast DDS profile."""

import itertools
from collections.abc import Callable
from typing import Any

from benchmarks.figures import Figure, command_of, mean_with_interval, record
from benchmarks.ping import measure_ping
from vjepa_bringup.graph import StackOptions, environment
from vjepa_interfaces.shared_memory import PROFILES

SHAPES = ((64, 64, 3), (480, 640, 3), (720, 1280, 3))
RATE_HZ = 20.0
OWN, PLAIN = "the stack's profile", "Fast DDS's own"


def measure(rounds: int, pings: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure every size with both profiles in turns and return the record; `say` is called with lines of progress."""
    runs = []
    shapes = SHAPES if rounds > 1 else SHAPES[:2]
    profiles = {OWN: environment(StackOptions()), PLAIN: dict.fromkeys(PROFILES)}
    for _ in range(rounds):
        for shape in shapes:
            for name, variables in profiles.items():
                found = measure_ping(pings, shape, RATE_HZ, variables)
                size = shape[0] * shape[1] * shape[2]
                runs.append({"height": shape[0], "width": shape[1], "profile": name, "bytes": size, **found})
                say(f"{shape[1]} x {shape[0]}, {name}: {found['p50_ms']:.2f} ms")
    return record("images", figures(runs), command_of("images", rounds=rounds, pings=pings), [0], runs=runs)


def figures(runs: list[dict[str, Any]]) -> list[Figure]:
    """Return the ratio of the time per byte in each size to that in the next smaller size, with the stack's profile."""
    by_size: dict[int, list[dict[str, Any]]] = {}
    for run in runs:
        if run["profile"] == OWN:
            by_size.setdefault(run["bytes"], []).append(run)
    sizes = sorted(by_size)
    found = []
    for small, large in itertools.pairwise(sizes):
        pairs = zip(by_size[small], by_size[large], strict=True)
        ratios = [(above["p50_ms"] / large) / (below["p50_ms"] / small) for below, above in pairs]
        mean, interval = mean_with_interval(ratios)
        names = [f"{by_size[size][0]['width']} x {by_size[size][0]['height']}" for size in (large, small)]
        found.append(
            Figure(
                f"time a byte of a frame takes to its answer, {names[0]} over {names[1]}",
                mean,
                "times",
                f"{len(ratios)} rounds in turns, three bare rclpy nodes, {RATE_HZ:.0f} Hz",
                1.0,
                interval_95=interval,
                interval_of="bootstrap over rounds",
            )
        )
    return found
