"""Joining topics by stamp: the one module that live nodes and offline training share.

What a frame caused is joined by stamp equality. An independent sensor, such as a real arm's joint states, is joined
causally: the newest reading at or before the frame, no older than a limit, never the nearest, which may lie in the
future.
"""

import bisect
from typing import Any

import numpy as np

HISTORY_NS = 30_000_000_000
"""What is kept of a topic: a large encoder takes six seconds for a clip on a processor, and a reading waits as long."""
HISTORY_SIZE = 65_536
"""Values of a topic that are kept at most, so that memory is bounded whatever a publisher does: 30 s at 2 kHz."""


class StampRing:
    """The newest values of one topic by stamp: those of the last `span_ns`, and never more than `size`.

    A stamp that goes backwards clears the ring, as a new time line has begun (see `stamps.begins_episode`); a stamp
    already held is ignored, so a repeated message changes nothing. One that is at most `tolerance_ns` older than the
    newest is put where it belongs.

    What is too old is forgotten many values at a time, so up to twice the span is held, and down to half of `size`.
    """

    def __init__(self, span_ns: int = HISTORY_NS, tolerance_ns: int = 0, size: int = HISTORY_SIZE):
        self._span_ns, self._tolerance_ns, self._size = span_ns, tolerance_ns, size
        self._stamps: list[int] = []
        self._values: list[Any] = []

    def __len__(self) -> int:
        return len(self._stamps)

    def add(self, stamp_ns: int, value: Any) -> None:
        """Hold `value` under `stamp_ns` (nanoseconds), and forget what is too old."""
        place = bisect.bisect_left(self._stamps, stamp_ns)
        if self._stamps[place : place + 1] == [stamp_ns]:
            return
        if self.begins_anew(stamp_ns):
            self.clear()
            place = 0
        self._stamps.insert(place, stamp_ns)
        self._values.insert(place, value)
        if self._stamps[-1] - self._stamps[0] > 2 * self._span_ns:
            self._forget(bisect.bisect_right(self._stamps, self._stamps[-1] - self._span_ns) - 1)
        if len(self._stamps) > self._size:
            self._forget(len(self._stamps) - max(1, self._size // 2))

    def _forget(self, count: int) -> None:
        """Forget the `count` oldest values."""
        del self._stamps[:count], self._values[:count]

    def begins_anew(self, stamp_ns: int) -> bool:
        """Return whether `stamp_ns` lies so far before the newest stamp that a new time line has begun."""
        return bool(self._stamps) and stamp_ns < self._stamps[-1] - self._tolerance_ns

    def at(self, stamp_ns: int) -> Any | None:
        """Return the value stamped exactly `stamp_ns`, or None."""
        i = bisect.bisect_left(self._stamps, stamp_ns)
        return self._values[i] if i < len(self._stamps) and self._stamps[i] == stamp_ns else None

    def at_or_before(self, stamp_ns: int, max_age_ns: int) -> Any | None:
        """Return the newest value stamped at or before `stamp_ns` and no older than `max_age_ns`, or None."""
        i = bisect.bisect_right(self._stamps, stamp_ns) - 1
        return self._values[i] if i >= 0 and stamp_ns - self._stamps[i] <= max_age_ns else None

    def stamps(self) -> list[int]:
        """Return the stamps that are held, nanoseconds, rising."""
        return self._stamps.copy()

    def clear(self) -> None:
        """Forget everything."""
        self._stamps.clear()
        self._values.clear()


def causal_join(stamps_ns: np.ndarray, sensor_stamps_ns: np.ndarray, max_age_ns: int) -> np.ndarray:
    """Return, for each stamp, the index of the sensor reading that `StampRing.at_or_before` would give, or -1.

    Args:
        stamps_ns: frame stamps, int64 nanoseconds, shape (N,).
        sensor_stamps_ns: sensor stamps in increasing order, int64 nanoseconds, shape (M,).
        max_age_ns: oldest reading allowed, nanoseconds.

    Returns:
        int64 indices into `sensor_stamps_ns`, shape (N,); -1 where no reading is recent enough.
    """
    indices = np.searchsorted(sensor_stamps_ns, stamps_ns, side="right") - 1
    found = indices >= 0
    age = stamps_ns - sensor_stamps_ns[np.maximum(indices, 0)] if len(sensor_stamps_ns) else np.zeros_like(stamps_ns)
    return np.where(found & (age <= max_age_ns), indices, -1)


def exact_join(stamps_ns: np.ndarray, other_stamps_ns: np.ndarray) -> np.ndarray:
    """Return, for each stamp, the index of the first equal stamp in `other_stamps_ns`, or -1.

    Args:
        stamps_ns: int64 nanoseconds, shape (N,).
        other_stamps_ns: int64 nanoseconds in any order, shape (M,).
    """
    order = np.argsort(other_stamps_ns, kind="stable")
    ordered = other_stamps_ns[order]
    indices = np.searchsorted(ordered, stamps_ns, side="left")
    inside = indices < len(ordered)
    clipped = np.minimum(indices, max(len(ordered) - 1, 0))
    equal = inside & (ordered[clipped] == stamps_ns) if len(ordered) else np.zeros(len(stamps_ns), bool)
    return np.where(equal, order[clipped] if len(ordered) else -1, -1)
