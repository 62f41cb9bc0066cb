"""Count the causes of frames without a joint state or a reward: each cause by itself, with an example."""

import math
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from vjepa_interfaces import topics
from vjepa_interfaces.alignment import Outliers

JOINTS = topics.JOINT_STATES.name
HELD_FRAMES = 1000
"""Number of frames without a joint state that are held in case one arrives late."""
APART_S = 1.0
"""Clocks are apart if the offsets (stamp minus arrival) of frames and messages differ by more seconds than this."""


class Causes:
    """The faults of one kind of message that is joined to frames."""

    def __init__(self, what: str, exact: bool, max_age_ns: int):
        """Begin to count.

        Args:
            what: the kind of message, such as `reward`.
            exact: whether the messages are joined by equal stamp.
            max_age_ns: if not exact, the largest age of a message that is joined, nanoseconds.
        """
        self._what, self._exact, self._max_age_ns = what, exact, 0 if exact else max_age_ns
        self._joined = 0
        self._missed = array("q")
        self._frame_offsets, self._offsets = array("q"), array("q")

    def frame(self, stamp_ns: int, arrived_ns: int, is_joined: bool) -> None:
        """Record a frame, and whether a message was joined to it."""
        self._frame_offsets.append(stamp_ns - arrived_ns)
        self._joined += is_joined
        if not is_joined:
            self._missed.append(stamp_ns)

    def _are_apart(self, stamps: np.ndarray, faults: Counter[str]) -> bool:
        """Count the frames without a message if clocks that are apart are the cause, and return whether they are."""
        apart_s = (np.median(self._offsets) - np.median(self._frame_offsets)) * 1e-9
        if self._joined or abs(apart_s) <= APART_S:
            return False
        side = "ahead of" if apart_s > 0 else "behind"
        low, high = np.quantile(stamps, (0.01, 0.99)) * 1e-9
        example = f"frame {self._missed[0] * 1e-9:.3f}, {self._what}s {low:.3f} to {high:.3f}"
        what = f"clocks apart: {self._what}s are stamped {abs(apart_s):.1f} s {side} the frames ({example})"
        faults[what] += len(self._missed)
        return True

    def _count_by_place(self, what: str, stamps: np.ndarray, missed: np.ndarray, faults: Counter[str]) -> None:
        """Count frames without a message by the place of their stamps.

        Args:
            what: the kind of message.
            stamps: (n,) stamps of the messages, rising, ns.
            missed: (m,) stamps of the frames, ns.
            faults: counter of faults, increased.
        """
        newest = np.searchsorted(stamps, missed, side="right") - 1
        before, after = newest < 0, missed > stamps[-1] + self._max_age_ns
        if before.any():
            faults[f"frame before the first {what}"] += int(before.sum())
        if after.any():
            faults[f"frame after the last {what}"] += int(after.sum())
        old = ~before & ~after & (missed - stamps[newest] > self._max_age_ns)
        if old.any() and not self._exact:
            frame = missed[old][0]
            rate_hz = (len(stamps) - 1) / max((stamps[-1] - stamps[0]) * 1e-9, 1e-9)
            age_s = (frame - stamps[newest[old][0]]) * 1e-9
            example = f"frame {frame * 1e-9:.3f}: the newest is {age_s:.3f} s older; they come at {rate_hz:.3g} Hz"
            faults[f"no {what} in the {self._max_age_ns * 1e-9:g} s before a frame ({example})"] += int(old.sum())
        other = ~before & ~after & ~old
        if other.any() and not self._exact:
            example = f"frame {missed[other][0] * 1e-9:.3f}"
            faults[f"{what} that came out of order, too late for its frame ({example})"] += int(other.sum())


class RewardCauses(Causes):
    """The faults of the rewards of a requested topic."""

    def __init__(self, max_age_ns: int):
        super().__init__("reward", False, max_age_ns)
        self._stamps = array("q")

    def hold(self, stamp_ns: int, arrived_ns: int) -> None:
        """Record a reward."""
        self._stamps.append(stamp_ns)
        self._offsets.append(stamp_ns - arrived_ns)

    def report(self, faults: Counter[str]) -> None:
        """Add the causes to `faults`."""
        stamps = np.sort(np.asarray(self._stamps))
        if self._missed and len(stamps) and not self._are_apart(stamps, faults):
            self._count_by_place(self._what, stamps, np.asarray(self._missed), faults)


class JointStateCauses(Causes):
    """The faults of the joint states."""

    def __init__(self, joint_names: Sequence[str], exact: bool, max_age_ns: int, settle_s: float):
        """Begin to count.

        Args:
            joint_names: joints of the arm.
            exact: whether joint states are joined by equal stamp.
            max_age_ns: if not exact, the largest age of a joint state that is joined, nanoseconds.
            settle_s: seconds that a frame waits for its messages.
        """
        super().__init__("joint state", exact, max_age_ns)
        self._names, self._settle_s = tuple(joint_names), settle_s
        self._stamps: dict[tuple[str, ...], array[int]] = {}
        self._others: Counter[str] = Counter()
        self._waiting: list[tuple[int, int]] = []
        self._late = 0
        self._longest_ns = 0

    def hold(self, stamp_ns: int, arrived_ns: int, message: Any) -> None:
        """Record a joint state of the arm, and find the frames for which it is too late."""
        positions = zip(message.name, message.position, strict=False)
        joints = tuple(name for name, position in positions if name in self._names and math.isfinite(position))
        self._stamps.setdefault(joints, array("q")).append(stamp_ns)
        self._offsets.append(stamp_ns - arrived_ns)
        first = bisect_left(self._waiting, (stamp_ns, 0))
        last = bisect_right(self._waiting, (stamp_ns + self._max_age_ns, 2**63))
        for _, frame_arrived_ns in self._waiting[first:last]:
            self._late += 1
            self._longest_ns = max(self._longest_ns, arrived_ns - frame_arrived_ns)
        for frame_ns, _ in self._waiting[first:last]:
            self._missed.remove(frame_ns)
        del self._waiting[first:last]

    def other(self, names: Sequence[str]) -> None:
        """Record a joint state of other joints."""
        self._others[", ".join(names) or "(none)"] += 1

    def frame(self, stamp_ns: int, arrived_ns: int, is_joined: bool) -> None:
        """Record a frame, and whether a joint state was joined to it."""
        super().frame(stamp_ns, arrived_ns, is_joined)
        if is_joined:
            return
        if self._waiting and stamp_ns < self._waiting[-1][0]:  # A new time line began.
            self._waiting.clear()
        self._waiting.append((stamp_ns, arrived_ns))
        del self._waiting[:-HELD_FRAMES]

    def report(self, seen: np.ndarray, outliers: Outliers, faults: Counter[str], notes: Counter[str]) -> None:
        """Add the causes to the counters.

        Args:
            seen: (n,) whether each joint was seen with a position.
            outliers: joint states that were left out because of their stamps.
            faults: counter of faults by description, increased.
            notes: counter of remarks that are no faults, increased.
        """
        expected, held = ", ".join(self._names), sum(map(len, self._stamps.values()))
        for names, count in self._others.items():
            if held:
                notes[f"joint state of other joints, left aside ({names})"] += count
            else:
                faults[f"joint state of other joints ({names}; expected {expected})"] += count
        outliers.report("joint state", faults)
        if held and not seen.all():
            missing = ", ".join(name for name, has in zip(self._names, seen, strict=True) if not has)
            faults[f"joint state without a position of {missing}"] += held
        if self._late:
            longest_s = self._longest_ns * 1e-9
            what = f"joint state arrived more than {self._settle_s:g} s after its frame"
            faults[f"{what} (up to {longest_s:.1f} s)"] += self._late
        if self._missed and held and seen.all():
            self._report_missed(outliers.stamps, faults)

    def _report_missed(self, outliers: Sequence[int], faults: Counter[str]) -> None:
        """Count the frames without a joint state by the joints that they lack and the place of their stamps."""
        stamps = [np.sort(np.setdiff1d(self._of(joint), outliers)) for joint in self._names]
        if not all(map(len, stamps)) or self._are_apart(np.sort(np.concatenate(stamps)), faults):
            return
        missed = np.asarray(self._missed)
        lacking = np.stack([self._is_lacking(own, missed) for own in stamps], axis=1)
        for pattern in np.unique(lacking, axis=0):
            own = np.flatnonzero(pattern) if pattern.any() else np.arange(len(stamps))
            whose = "" if len(own) == len(stamps) else f" of {', '.join(self._names[joint] for joint in own)}"
            rarest = min(own, key=lambda joint: len(stamps[joint]))
            chosen = missed[(lacking == pattern).all(axis=1)]
            self._count_by_place(f"joint state{whose}", stamps[rarest], chosen, faults)

    def _of(self, joint: str) -> np.ndarray:
        """Return the stamps of the messages that contain a joint."""
        return np.concatenate(
            [np.asarray(s) for joints, s in self._stamps.items() if joint in joints] or [np.empty(0, np.int64)]
        )

    def _is_lacking(self, stamps: np.ndarray, missed: np.ndarray) -> np.ndarray:
        """Return for each frame whether no message of a joint is near enough before it."""
        newest = np.searchsorted(stamps, missed, side="right") - 1
        return (newest < 0) | (missed - stamps[newest] > self._max_age_ns)
