"""Counts, times and failures of a node, for `/diagnostics`: no ROS."""

from collections import Counter, deque

import numpy as np

MAX_SAMPLES = 16_384
"""The most durations kept for percentiles, over five minutes at 50 Hz; older ones are dropped."""


class Durations:
    """The latest durations, in milliseconds, and their percentiles. One thread adds, any may read."""

    def __init__(self, max_samples: int = MAX_SAMPLES):
        self._samples = np.zeros(max_samples)
        self._added = 0

    def add(self, seconds: float) -> None:
        """Add a duration given in seconds."""
        self._samples[self._added % len(self._samples)] = seconds * 1e3
        self._added += 1

    def percentiles(self, *ranks: float, last: int = MAX_SAMPLES) -> tuple[float, ...]:
        """Return the percentiles at `ranks` (0 to 100) of the `last` durations, milliseconds; NaN without samples."""
        first = self._added - min(last, len(self))
        samples = self._samples[np.arange(first, self._added) % len(self._samples)]
        if not samples.size:
            return tuple(float("nan") for _ in ranks)
        return tuple(float(value) for value in np.percentile(samples, ranks))

    def __len__(self) -> int:
        return min(self._added, len(self._samples))


class RateMeter:
    """The rate of events over the last `window_s` seconds of the steady clock. Any thread may tick and read."""

    def __init__(self, window_s: float = 5.0):
        self._window_s = window_s
        self._times: deque[float] = deque(maxlen=4096)

    def tick(self, now_s: float) -> None:
        """Count one event at steady time `now_s`; of two threads, one may count an earlier event later."""
        self._times.append(now_s)

    def rate(self, now_s: float) -> float:
        """Return events per second at steady time `now_s`, 0 if fewer than two were counted in the window.

        The time since the last event counts, so that the rate falls as soon as events stop.
        """
        recent = [t for t in self._times.copy() if now_s - t <= self._window_s]
        return (len(recent) - 1) / max(now_s - min(recent), 1e-9) if len(recent) > 1 else 0.0


class Counts(Counter[str]):
    """Named counts of events since activation: published, refused, clamped, skipped, repeated and the like."""


class Failure:
    """The present failure, for diagnostics. A failure that ended before it was reported is also reported once."""

    def __init__(self) -> None:
        self._present = self._unreported = ""

    def begin(self, reason: str) -> None:
        """Record a failure; it replaces an earlier one."""
        self._present = self._unreported = reason

    def end(self) -> None:
        """Record that the failure has ended."""
        self._present = ""

    def report(self) -> str:
        """Return the present failure, or one that ended since the last call; empty if there is none."""
        reason, self._unreported = self._present or self._unreported, ""
        return reason
