"""Timing of contenders in turns, so that other work of the machine affects all of them alike."""

import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

import torch

from benchmarks.figures import mean_with_interval

LEAST_CALLS = 3
ROUND_S = 0.3
"""Time for the calls of a contender in a round."""


Name = TypeVar("Name", bound=Hashable)


def in_turns(
    contenders: Mapping[Name, Callable[[], object]], rounds: int, least_calls: int = LEAST_CALLS
) -> dict[Name, list[float]]:
    """Return the median time of a call in each round, s, by contender.

    Args:
        contenders: the calls, by name.
        rounds: number of rounds in which they take turns.
        least_calls: the least number of calls of each before the first round, and in each round.
    """
    for call in contenders.values():
        for _ in range(least_calls):
            call()
    medians: dict[Name, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            medians[name].append(_median(call, least_calls))
    return medians


def ratio(slow: Sequence[float], fast: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Return the mean of the rounds' ratios and its 95 % bootstrap interval."""
    return mean_with_interval([above / below for above, below in zip(slow, fast, strict=True)])


def product_rate(dtype: torch.dtype, device: str = "cpu", side: int = 1024) -> float:
    """Return the rate of large matrix products, FLOP/s: the best of several, because it is a floor for other times."""
    if device == "cuda":
        side *= 8
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    times = in_turns({"product": lambda: finish(left @ right)}, 5)["product"]
    return 2 * side**3 / min(times)


def finish(result: torch.Tensor) -> torch.Tensor:
    """Return `result` once it is computed, because a GPU computes while Python continues."""
    if result.device.type == "cuda":
        torch.cuda.synchronize()
    return result


def _median(call: Callable[[], object], least_calls: int) -> float:
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < least_calls or time.perf_counter() - began < ROUND_S:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times)
