"""What a node counts and times, for `/diagnostics`: plain numbers, no ROS."""

import threading
from collections import Counter, deque

import numpy as np

MAX_SAMPLES = 200_000
"""Durations kept for percentiles; the oldest are forgotten beyond this (over an hour at 50 Hz)."""


class Durations:
    """Durations in milliseconds, and their percentiles. Safe to use from several threads."""

    def __init__(self, max_samples: int = MAX_SAMPLES):
        self._samples: deque[float] = deque(maxlen=max_samples)
        self._lock = threading.Lock()

    def add(self, seconds: float) -> None:
        """Add a duration given in seconds."""
        with self._lock:
            self._samples.append(seconds * 1e3)

    def percentiles(self, *ranks: float) -> tuple[float, ...]:
        """Return the percentiles at `ranks` (0 to 100) in milliseconds; NaN where there are no samples."""
        with self._lock:
            samples = np.array(self._samples)
        if not samples.size:
            return tuple(float("nan") for _ in ranks)
        return tuple(float(value) for value in np.percentile(samples, ranks))

    def __len__(self) -> int:
        return len(self._samples)

    def clear(self) -> None:
        """Forget all samples."""
        with self._lock:
            self._samples.clear()


class RateMeter:
    """The rate of events over the last `window_s` seconds of the steady clock."""

    def __init__(self, window_s: float = 5.0):
        self._window_s = window_s
        self._times: deque[float] = deque()

    def tick(self, now_s: float) -> None:
        """Count one event at steady time `now_s`."""
        self._times.append(now_s)
        self._forget(now_s)

    def rate(self, now_s: float) -> float:
        """Return events per second, 0 where fewer than two were counted in the window."""
        self._forget(now_s)
        if len(self._times) < 2:
            return 0.0
        return (len(self._times) - 1) / max(self._times[-1] - self._times[0], 1e-9)

    def _forget(self, now_s: float) -> None:
        while self._times and now_s - self._times[0] > self._window_s:
            self._times.popleft()


class Counts(Counter):
    """Named counts of events since activation: published, refused, clamped, skipped, repeated and the like."""
