"""The time of one clip in the encoder by number of threads, and the operations that it goes to."""

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.timing import in_turns

PROFILED_CALLS = 20


def by_threads(calls: dict[str, Callable[[], object]], threads: tuple[int, ...], rounds: int) -> list[dict[str, Any]]:
    """Return the time of each call with each number of threads.

    Args:
        calls: the timed calls, each for one clip, by their type.
        threads: numbers of threads.
        rounds: number of rounds in which all take turns.

    Returns:
        For each type and number of threads: `dtype`, `threads`, `median_ms` (of the rounds) and `operations_ms`. The
        last is the time in each operation of torch, a call, under torch's profiler.
    """
    before = torch.get_num_threads()
    try:
        contenders = {(name, count): _with_threads(call, count) for name, call in calls.items() for count in threads}
        times = in_turns(contenders, rounds)
        return [
            {
                "dtype": name,
                "threads": count,
                "median_ms": 1e3 * statistics.median(times[name, count]),
                "operations_ms": _operations_ms(call),
            }
            for (name, count), call in contenders.items()
        ]
    finally:
        torch.set_num_threads(before)


def _with_threads(call: Callable[[], object], count: int) -> Callable[[], object]:
    def run() -> None:
        torch.set_num_threads(count)
        call()

    return run


def _operations_ms(call: Callable[[], object]) -> dict[str, float]:
    """Return the time in each operation of torch, milliseconds a call, without the operations that it calls."""
    call()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(PROFILED_CALLS):
            call()
    return {event.key: event.self_cpu_time_total / PROFILED_CALLS / 1e3 for event in profiler.key_averages()}
