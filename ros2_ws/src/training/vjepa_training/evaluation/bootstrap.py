"""Compute percentile bootstrap intervals (Efron 1979); all intervals of figures over episodes come from here."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

RESAMPLES = 10_000
BLOCK_VALUES = 1_000_000
"""Number of values drawn at a time, which bounds the memory."""


def bootstrap_interval(
    values: ArrayLike,
    statistic: Callable[[np.ndarray], np.ndarray] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[float, float]:
    """Return the 95 % percentile-bootstrap interval of a figure over independent units, such as episodes.

    Args:
        values: (N,) or (N, k): the values of each unit.
        statistic: returns the figures, (B,), of B resamples from the means of their columns, (B, k); None: the means of
            the only column. Resamples whose figure is NaN are left out.
        seed: seed of the draws.
        resamples: number of resamples.

    Returns:
        The ends of the interval; NaN if there are no values, or some are not finite.
    """
    sample = np.asarray(values, np.float64)
    if not sample.size or not np.isfinite(sample).all():
        return float("nan"), float("nan")
    columns = np.ascontiguousarray(sample.reshape(len(sample), -1).T)
    count = len(sample)
    block = max(1, BLOCK_VALUES // count)
    random, means = np.random.default_rng(seed), np.empty((resamples, len(columns)))
    for start in range(0, resamples, block):
        drawn = random.integers(0, count, (min(block, resamples - start), count))
        for column, of_unit in enumerate(columns):
            means[start : start + block, column] = of_unit[drawn].mean(axis=1)
    figures = means[:, 0] if statistic is None else statistic(means)
    defined = figures[~np.isnan(figures)]
    low, high = np.percentile(defined, [2.5, 97.5]) if len(defined) else (np.nan, np.nan)
    return float(low), float(high)
