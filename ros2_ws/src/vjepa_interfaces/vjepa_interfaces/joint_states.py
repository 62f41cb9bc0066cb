"""The joint states of one arm, selected from all messages on their topic: for live planners and for datasets.

A gripper often publishes on the arm's topic, and some drivers send each joint by itself. Messages that have the same
joints of the arm form a group with its own time line. A reading takes each joint from the newest message at or before
the frame, never from a later one.
"""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from vjepa_interfaces.alignment import Outliers, StampRing
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.stamps import EPISODE_GAP_NS


class JointStateRefusedError(VjepaError):
    """A message that is no valid joint state; the error states the reason."""


class Added(Enum):
    """The use of a message: stored whole, stored without joints whose position is not finite, or of other joints."""

    WHOLE = "whole"
    PARTLY = "partly"
    OTHER_JOINTS = "other joints"


@dataclass(frozen=True, eq=False)
class JointReading:
    """Position, velocity and effort of the joints of an arm, in its order; NaN if the driver does not send them.

    Attributes:
        position: (n,) rad, finite.
        velocity: (n,) rad/s.
        effort: (n,) N·m.
    """

    position: np.ndarray
    velocity: np.ndarray
    effort: np.ndarray


@dataclass
class _Positions:
    """A stamp and a position of each joint; the position is NaN if there is none."""

    stamps: np.ndarray
    positions: np.ndarray

    def take(self, other: "_Positions", joints: np.ndarray) -> None:
        """Copy the stamps and positions of some joints from `other`."""
        self.stamps[joints], self.positions[joints] = other.stamps[joints], other.positions[joints]


class JointStates:
    """The newest joint states of an arm, by stamp.

    Attributes:
        seen: (n,) whether a message had a finite position of the joint.
    """

    def __init__(self, joint_names: Sequence[str], derive_velocity: bool = False, exact: bool = False):
        """Begin without messages; those of each group of joints are kept as long as in a `StampRing`.

        Args:
            joint_names: joints of the arm, n of them, in its order.
            exact: whether any stamp that goes backwards begins a new time line, as in a simulation. Otherwise a message
                up to half a second out of order is inserted in its place.
            derive_velocity: whether the velocity of a joint is computed from its last two positions and their stamps,
                whatever its driver sends. The first message after a gap of half a second gives none, and is not stored.
        """
        self._names = tuple(joint_names)
        self._derives = derive_velocity
        self._tolerance_ns = 0 if exact else EPISODE_GAP_NS
        self._groups: dict[bytes, StampRing] = {}
        count = len(self._names)
        self._last = _Positions(np.zeros(count, np.int64), np.full(count, np.nan))
        self._before = _Positions(np.zeros(count, np.int64), np.full(count, np.nan))
        self.seen = np.zeros(count, bool)

    def add(self, stamp_ns: int, message: Any, needs_velocity: bool = False) -> Added:
        """Store a `sensor_msgs/JointState` under its stamp, and return how it was used.

        Args:
            stamp_ns: stamp of the message, nanoseconds.
            message: the joint state, of rclpy's class or rosbags'.
            needs_velocity: whether a message without the velocity of a joint of the arm is refused.

        Raises:
            JointStateRefusedError: the message has no stamp, names a joint twice, or does not have one position for
                each name. Or it lacks a velocity that is needed.
        """
        names = list(message.name)
        own = [joint for joint, name in enumerate(self._names) if name in names]
        if not own:
            return Added.OTHER_JOINTS
        if stamp_ns == 0:
            raise JointStateRefusedError(
                "joint state without a stamp; expected the time of the reading in header.stamp"
            )
        if len(set(names)) != len(names):
            raise JointStateRefusedError(f"joint state names {', '.join(names)}; expected each joint once")
        if len(message.position) != len(names):
            raise JointStateRefusedError(
                f"joint state names {', '.join(names)} with {len(message.position)} positions; expected one for each"
            )
        order = [names.index(self._names[joint]) for joint in own]
        reading = JointReading(*(self._by_joint(values, own, order) for values in _fields(message)))
        finite = np.isfinite(reading.position)
        if needs_velocity and not np.isfinite(reading.velocity[finite]).all():
            raise JointStateRefusedError(
                f"joint state of {', '.join(names)} has no velocity of each joint; expected one, or derive_velocity"
            )
        self.seen |= finite
        if self._derives:
            reading = JointReading(reading.position, self._velocity(stamp_ns, reading.position), reading.effort)
            reading.position[~np.isfinite(reading.velocity)] = np.nan
        self._hold(stamp_ns, reading)
        return Added.WHOLE if finite[own].all() else Added.PARTLY

    def at(self, stamp_ns: int) -> JointReading | None:
        """Return the reading stamped exactly `stamp_ns`; None unless it has every joint."""
        return self._merged(stamp_ns, 0)

    def at_or_before(self, stamp_ns: int, max_age_ns: int) -> JointReading | None:
        """Return each joint's newest reading at or before `stamp_ns`; None unless all are at most `max_age_ns` old."""
        return self._merged(stamp_ns, max_age_ns)

    def begins_anew(self, stamp_ns: int) -> bool:
        """Return whether a message of this stamp begins a new time line."""
        return any(group.begins_anew(stamp_ns) for group in self._groups.values())

    @property
    def outliers(self) -> Outliers:
        """Messages of all groups that were left out because of their stamps."""
        found = Outliers()
        for group in self._groups.values():
            found.count += group.outliers.count
            found.stamps.extend(group.outliers.stamps)
            found.neighbours = group.outliers.neighbours if group.outliers.count else found.neighbours
        return found

    def why_none(self, stamp_ns: int, max_age_ns: int) -> str:
        """Return why `at_or_before` has no reading for a frame stamped `stamp_ns`, with figures."""
        if not self.seen.all():
            unseen = ", ".join(name for name, seen in zip(self._names, self.seen, strict=True) if not seen)
            return f"no joint state of {unseen} has arrived"
        return "; ".join(
            f"joint states of {', '.join(np.array(self._names)[np.frombuffer(joints, bool)])} {_rate(ring.stamps())}, "
            f"{_nearest(ring.stamps(), stamp_ns)}; the limit is {max_age_ns * 1e-6:g} ms"
            for joints, ring in self._groups.items()
            if ring.at_or_before(stamp_ns, max_age_ns) is None
        )

    def _by_joint(self, values: Sequence[float], own: list[int], order: list[int]) -> np.ndarray:
        """Return one of a message's arrays in the order of the arm, (n,); NaN if it has no such value."""
        found = np.full(len(self._names), np.nan)
        if len(values) > max(order):
            found[own] = np.asarray(values, np.float64)[order]
        return found

    def _velocity(self, stamp_ns: int, position: np.ndarray) -> np.ndarray:
        """Return the velocities since the joints' last messages; NaN if there is none within half a second."""
        since_before = stamp_ns - self._before.stamps
        is_alone = np.isfinite(self._before.positions) & (np.abs(stamp_ns - self._last.stamps) > EPISODE_GAP_NS)
        is_alone &= (since_before > 0) & (since_before <= EPISODE_GAP_NS)  # The last stamp was a single wrong one.
        self._last.take(self._before, is_alone)
        passed, has_last = stamp_ns - self._last.stamps, np.isfinite(self._last.positions)
        known = has_last & (passed > 0) & (passed <= EPISODE_GAP_NS)
        way = position - self._last.positions
        way = np.where(np.abs(way) > np.pi, way - np.round(way / (2 * np.pi)) * 2 * np.pi, way)
        goes_on = (passed > 0) | (passed < -self._tolerance_ns)
        present = np.isfinite(position) & (goes_on | ~has_last)
        self._before.take(self._last, present)
        self._last.take(_Positions(np.full_like(self._last.stamps, stamp_ns), position), present)
        return np.where(known, way / np.where(known, passed * 1e-9, 1.0), np.nan)

    def _hold(self, stamp_ns: int, reading: JointReading) -> None:
        joints = np.isfinite(reading.position)
        if not joints.any():
            return
        group = self._groups.setdefault(joints.tobytes(), StampRing(tolerance_ns=self._tolerance_ns))
        if group.begins_anew(stamp_ns) and group.at(stamp_ns) is None:
            for other in self._groups.values():  # The new time line ends those of the other groups too.
                if other is not group and other.begins_anew(stamp_ns):
                    other.begin_anew()
        group.add(stamp_ns, (stamp_ns, reading))

    def _merged(self, stamp_ns: int, max_age_ns: int) -> JointReading | None:
        """Return one reading from several groups, with each joint's newest values."""
        found = [pair for group in self._groups.values() if (pair := group.at_or_before(stamp_ns, max_age_ns))]
        if not found:
            return None
        merged = JointReading(*(np.full(len(self._names), np.nan) for _ in range(3)))
        for _, reading in sorted(found, key=lambda pair: pair[0]):
            joints = np.isfinite(reading.position)
            merged.position[joints] = reading.position[joints]
            merged.velocity[joints] = reading.velocity[joints]
            merged.effort[joints] = reading.effort[joints]
        return merged if np.isfinite(merged.position).all() else None


def _fields(message: Any) -> tuple[Sequence[float], Sequence[float], Sequence[float]]:
    """Return positions, velocities and efforts; an array without a value for each name is left out."""
    count = len(message.name)
    velocity, effort = (values if len(values) == count else () for values in (message.velocity, message.effort))
    return message.position, velocity, effort


def _rate(stamps: list[int]) -> str:
    """Return the rate of the stamps, or their number if they give no rate."""
    passed_s = (stamps[-1] - stamps[0]) * 1e-9
    return f"at {(len(stamps) - 1) / passed_s:.0f} Hz" if passed_s > 0 else f"({len(stamps)} held)"


def _nearest(stamps: list[int], stamp_ns: int) -> str:
    """Return the age of the newest stamp at or before a frame, or the delay of the oldest stamp after it."""
    before = bisect.bisect_right(stamps, stamp_ns) - 1
    if before >= 0:
        return f"the newest before the frame is {(stamp_ns - stamps[before]) * 1e-6:.0f} ms older"
    return f"the oldest is {(stamps[0] - stamp_ns) * 1e-6:.0f} ms later than the frame"
