"""Joining topics by stamp: the one module that live nodes and offline training share.

A message that a frame caused is joined by an equal stamp. An independent sensor, such as a real arm's joint states, is
joined causally. The newest reading at or before the frame is used, if it is no older than a limit. The nearest reading
is never used, because it may lie in the future.
"""

import bisect
from collections import Counter, deque
from typing import Any

from vjepa_interfaces.stamps import EPISODE_GAP_NS

HISTORY_NS = 30_000_000_000
"""How long readings are kept: a large encoder takes six seconds for a clip on a processor, and readings wait for it."""
HISTORY_SIZE = 65_536
"""The most values of a topic that are kept: 30 s at 2 kHz. It bounds memory whatever a publisher does."""


class Outliers:
    """Single wrong stamps, far from the stamps before and after them.

    Attributes:
        count: how many there were.
        stamps: the newest of them, nanoseconds.
        neighbours: the stamps around the newest one, nanoseconds.
    """

    def __init__(self) -> None:
        self.count = 0
        self.stamps: deque[int] = deque(maxlen=1000)
        self.neighbours = (0, 0)

    def add(self, stamp_ns: int, before_ns: int, behind_ns: int) -> None:
        """Count a wrong stamp between two right ones."""
        self.count += 1
        self.stamps.append(stamp_ns)
        self.neighbours = before_ns, behind_ns

    def report(self, what: str, faults: Counter[str]) -> None:
        """Add the number of these messages to `faults`, under a text with their name `what` and an example."""
        if self.count:
            before, behind = (f"{stamp * 1e-9:.3f}" for stamp in self.neighbours)
            example = f"{self.stamps[-1] * 1e-9:.3f} between {before} and {behind}"
            faults[f"{what} with a stamp far from those around it, left out ({example})"] += self.count


class StampRing:
    """The newest values of one topic by stamp: those of the last `span_ns`, and never more than `size`.

    - A stamp that goes backwards clears the ring, because a new time line has begun (see `stamps.begins_episode`).
    - A stamp that is at most `tolerance_ns` older than the newest is inserted in its place.
    - A stamp that the ring contains is ignored, so a repeated message changes nothing.
    - A single stamp is wrong if it is more than half a second off and the next one continues the series before it. Only
      the wrong stamp is removed.

    Old values are removed many at a time. So the ring contains up to twice the span, and down to half of `size`.

    Attributes:
        outliers: the wrong stamps.
    """

    def __init__(self, span_ns: int = HISTORY_NS, tolerance_ns: int = 0, size: int = HISTORY_SIZE):
        self._span_ns, self._tolerance_ns, self._size = span_ns, tolerance_ns, size
        self._stamps: list[int] = []
        self._values: list[Any] = []
        self._before: tuple[list[int], list[Any]] = [], []  # Of the time line before, until this one has two stamps.
        self.outliers = Outliers()

    def __len__(self) -> int:
        return len(self._stamps)

    def add(self, stamp_ns: int, value: Any) -> None:
        """Store `value` under `stamp_ns` (nanoseconds), and remove old values."""
        self._forget_outlier(stamp_ns)
        place = bisect.bisect_left(self._stamps, stamp_ns)
        if self._stamps[place : place + 1] == [stamp_ns]:
            return
        if self.begins_anew(stamp_ns):
            self.begin_anew()
            place = 0
        self._stamps.insert(place, stamp_ns)
        self._values.insert(place, value)
        newest = self._stamps[-2] if len(self._stamps) > 1 and self._leaps() else self._stamps[-1]
        if newest - self._stamps[0] > 2 * self._span_ns:
            self._forget(bisect.bisect_right(self._stamps, newest - self._span_ns) - 1)
        if len(self._stamps) > self._size:
            self._forget(len(self._stamps) - max(1, self._size // 2))

    def _forget(self, count: int) -> None:
        """Remove the `count` oldest values."""
        del self._stamps[:count], self._values[:count]

    def begins_anew(self, stamp_ns: int) -> bool:
        """Return whether `stamp_ns` is so far before the newest stamp that a new time line has begun."""
        goes_back = bool(self._stamps) and stamp_ns < self._stamps[-1] - self._tolerance_ns
        return goes_back and not self._is_ahead_alone(stamp_ns)

    def begin_anew(self) -> None:
        """Remove all values, unless the next stamp shows that a single stamp was wrong."""
        self._before = self._stamps, self._values
        self._stamps, self._values = [], []

    def _leaps(self) -> bool:
        """Return whether the newest of several stamps is far ahead of the one before it."""
        return self._stamps[-1] - self._stamps[-2] > EPISODE_GAP_NS

    def _is_ahead_alone(self, stamp_ns: int) -> bool:
        """Return whether the newest stamp is wrong, because `stamp_ns` continues the series before it."""
        if len(self._stamps) < 2 or not self._leaps():
            return False
        before = self._stamps[-2]
        follows = -self._tolerance_ns <= stamp_ns - before <= EPISODE_GAP_NS
        return follows and stamp_ns != before and self._stamps[-1] - stamp_ns > EPISODE_GAP_NS

    def _forget_outlier(self, stamp_ns: int) -> None:
        """Remove the newest stamp if `stamp_ns` shows that it was wrong."""
        if self._is_ahead_alone(stamp_ns):
            self.outliers.add(self._stamps.pop(), self._stamps[-1], stamp_ns)
            self._values.pop()
        before = self._before[0]
        if before and len(self._stamps) < 2:
            alone = self._stamps[0] if self._stamps else None
            goes_on = -self._tolerance_ns <= stamp_ns - before[-1] <= EPISODE_GAP_NS
            if goes_on and (alone is None or before[-1] - alone > EPISODE_GAP_NS):
                if alone is not None:
                    self.outliers.add(alone, before[-1], stamp_ns)
                self._stamps, self._values = self._before
        self._before = [], []

    def at(self, stamp_ns: int) -> Any | None:
        """Return the value stamped exactly `stamp_ns`, or None."""
        i = bisect.bisect_left(self._stamps, stamp_ns)
        return self._values[i] if i < len(self._stamps) and self._stamps[i] == stamp_ns else None

    def at_or_before(self, stamp_ns: int, max_age_ns: int) -> Any | None:
        """Return the newest value stamped at or before `stamp_ns` and no older than `max_age_ns`, or None."""
        i = bisect.bisect_right(self._stamps, stamp_ns) - 1
        return self._values[i] if i >= 0 and stamp_ns - self._stamps[i] <= max_age_ns else None

    def stamps(self) -> list[int]:
        """Return the stored stamps, nanoseconds, rising."""
        return self._stamps.copy()

    def clear(self) -> None:
        """Remove all values."""
        self._stamps, self._values, self._before = [], [], ([], [])
