"""Why frames of a bag have no joint state: each cause is counted by itself, with an example."""

from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence

import numpy as np

from vjepa_interfaces import topics

JOINTS = topics.JOINT_STATES.name
HELD_FRAMES = 1000
"""Frames without a joint state that are held in case one comes late."""


class JointStateCauses:
    """What was wrong with the joint states that were joined to frames."""

    def __init__(self, joint_names: Sequence[str], exact: bool, max_age_ns: int, settle_s: float):
        """Begin to count.

        Args:
            joint_names: joints of the arm.
            exact: whether joint states are joined by equal stamp.
            max_age_ns: oldest joint state that is joined otherwise, nanoseconds.
            settle_s: seconds that a frame waits.
        """
        self._names, self._max_age_ns, self._settle_s = tuple(joint_names), 0 if exact else max_age_ns, settle_s
        self._exact = exact
        self._stamps = array("q")
        self._others: Counter[str] = Counter()
        self._missed = array("q")
        self._waiting: list[tuple[int, int]] = []
        self._late = 0
        self._longest_ns = 0

    def hold(self, stamp_ns: int, arrived_ns: int) -> None:
        """Take note of a joint state of the arm; which frames it comes too late for is found out."""
        self._stamps.append(stamp_ns)
        first = bisect_left(self._waiting, (stamp_ns, 0))
        last = bisect_right(self._waiting, (stamp_ns + self._max_age_ns, 2**63))
        for _, frame_arrived_ns in self._waiting[first:last]:
            self._late += 1
            self._longest_ns = max(self._longest_ns, arrived_ns - frame_arrived_ns)
        for frame_ns, _ in self._waiting[first:last]:
            self._missed.remove(frame_ns)
        del self._waiting[first:last]

    def other(self, names: Sequence[str]) -> None:
        """Take note of a joint state of other joints."""
        self._others[", ".join(names) or "(none)"] += 1

    def miss(self, stamp_ns: int, arrived_ns: int) -> None:
        """Take note of a frame that got no joint state."""
        self._missed.append(stamp_ns)
        if self._waiting and stamp_ns < self._waiting[-1][0]:  # A new time line.
            self._waiting.clear()
        self._waiting.append((stamp_ns, arrived_ns))
        del self._waiting[:-HELD_FRAMES]

    def report(self, seen: np.ndarray, faults: Counter[str], notes: Counter[str]) -> None:
        """Count up `faults` by the causes, and `notes` by what is no fault; `seen`: (n,) joints with a position."""
        expected = ", ".join(self._names)
        for names, count in self._others.items():
            if self._stamps:
                notes[f"joint state of other joints, left aside ({names})"] += count
            else:
                faults[f"joint state of other joints ({names}; expected {expected})"] += count
        if self._stamps and not seen.all():
            missing = ", ".join(name for name, has in zip(self._names, seen, strict=True) if not has)
            faults[f"joint state without a position of {missing}"] += len(self._stamps)
        if self._late:
            longest_s = self._longest_ns * 1e-9
            what = f"joint state arrived more than {self._settle_s:g} s after its frame"
            faults[f"{what} (up to {longest_s:.1f} s)"] += self._late
        if self._missed and self._stamps and seen.all():
            self._report_missed(faults)

    def _report_missed(self, faults: Counter[str]) -> None:
        """Count the frames without a joint state by where their stamps lie."""
        stamps, missed = np.sort(np.asarray(self._stamps)), np.asarray(self._missed)
        before = missed < stamps[0]
        after = missed > stamps[-1] + self._max_age_ns
        apart_s = (stamps[0] - missed.max()) * 1e-9 if before.all() else (missed.min() - stamps[-1]) * 1e-9
        if (before.all() or after.all()) and abs(apart_s) > self._settle_s:
            side = "ahead of" if before.all() else "behind"
            example = f"frame {missed[0] * 1e-9:.3f}, joint states {stamps[0] * 1e-9:.3f} to {stamps[-1] * 1e-9:.3f}"
            what = f"clocks apart: joint states are stamped {abs(apart_s):.1f} s {side} the frames ({example})"
            faults[what] += len(missed)
            return
        if before.any():
            faults["frame before the first joint state"] += int(before.sum())
        if after.any():
            faults["frame after the last joint state"] += int(after.sum())
        rest = missed[~before & ~after]
        if len(rest) and not self._exact:
            newest = stamps[np.searchsorted(stamps, rest[0], side="right") - 1]
            age = f"frame {rest[0] * 1e-9:.3f}: the newest is {(rest[0] - newest) * 1e-9:.3f} s older"
            faults[f"no joint state in the {self._max_age_ns * 1e-9:g} s before a frame ({age})"] += len(rest)
