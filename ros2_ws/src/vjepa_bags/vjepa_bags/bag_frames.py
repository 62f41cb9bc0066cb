"""Join camera frames with the messages at their stamps, in the order of arrival in a bag.

The joiner holds about a second of a bag: a frame waits until its messages have arrived.
"""

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from vjepa_bags.bag_causes import JointStateCauses, RewardCauses
from vjepa_interfaces import topics
from vjepa_interfaces.alignment import StampRing
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.joint_states import Added, JointReading, JointStateRefusedError, JointStates
from vjepa_interfaces.messages import Timestep, timestep_of
from vjepa_interfaces.stamps import to_nanoseconds

IMAGE, JOINT_STATES, JOINT_COMMAND = topics.IMAGE.name, topics.JOINT_STATES.name, topics.JOINT_COMMAND.name
TIMESTEP, TARGET, FINGERTIP = topics.TIMESTEP.name, topics.TARGET.name, topics.FINGERTIP.name
OF_THE_SIM = (TIMESTEP, TARGET, FINGERTIP)
REWARD = "reward"
"""A topic of other recorders, read on request: a number that rates how well the arm does."""

SETTLE_NS = 1_000_000_000
"""Nanoseconds, by the bag's clock, by which a message of a frame may arrive later than the frame."""
LATER_FRAMES = 2
"""Frames that must also arrive after a frame: with a slow encoder in lockstep a command takes more than a second."""
HELD_PICTURE_BYTES = 512 * 2**20
"""Largest number of bytes of waiting frames: twenty uncompressed 4K frames. Beyond it the oldest stops waiting."""


@dataclass(frozen=True, eq=False)
class Frame:
    """A camera frame and the messages joined to it; None where the bag has no message.

    Attributes:
        stamp_ns: the frame's stamp, nanoseconds.
        image: the `sensor_msgs` Image or CompressedImage.
        joint_state: the joints of the arm at this stamp, or their newest earlier readings (see `Bag.frames`).
        timestep: reward, discount and step type.
        target: (3,) m, world frame.
        fingertip: (3,) m, world frame.
        command: the `sensor_msgs/JointState` that answered this frame.
        reward: the newest reward at or before the frame, of a requested topic.
    """

    stamp_ns: int
    image: Any
    joint_state: JointReading | None = None
    timestep: Timestep | None = None
    target: np.ndarray | None = None
    fingertip: np.ndarray | None = None
    command: Any | None = None
    reward: float | None = None


class _Waiting(NamedTuple):
    """A frame whose messages may still arrive; times in nanoseconds."""

    arrived_ns: int
    stamp_ns: int
    image: Any


class FrameJoiner:
    """Waiting frames, and the messages that may belong to them."""

    def __init__(
        self,
        joint_names: Sequence[str],
        exact: bool,
        joint_state_max_age_ns: int,
        derive_velocity: bool,
        faults: Counter[str],
    ):
        """Wait for the first message.

        Args:
            joint_names: joints of the arm; joint states of other joints are ignored.
            exact: whether joint states are joined by equal stamp, as in a simulation.
            joint_state_max_age_ns: the largest age of a reward that is joined, and if not exact of a joint state,
                nanoseconds.
            derive_velocity: see `JointStates`.
            faults: counter of faults, in words; increased.
        """
        self._joint_names, self._exact, self._max_age_ns = joint_names, exact, joint_state_max_age_ns
        self._rings = {name: StampRing() for name in (JOINT_COMMAND, *OF_THE_SIM, REWARD)}
        self._joints = JointStates(joint_names, derive_velocity, exact)
        self._joint_causes = JointStateCauses(joint_names, exact, joint_state_max_age_ns, SETTLE_NS * 1e-9)
        self._reward_causes = RewardCauses(joint_state_max_age_ns)
        self._waiting: deque[_Waiting] = deque()
        self._held_bytes = 0
        self._newest_frame_ns: int | None = None
        self._faults = faults

    def add(self, name: str, arrived_ns: int, message: Any) -> Iterator[Frame]:
        """Add the next message of a topic, and yield the frames that need not wait any longer.

        Args:
            name: the stack's name of the topic.
            arrived_ns: time of arrival, nanoseconds.
            message: the deserialized message.
        """
        stamp_ns = to_nanoseconds(message.header.stamp) if hasattr(message, "header") else arrived_ns
        if self._is_left_out(name, stamp_ns, message):
            return
        if self._begins_anew(name, stamp_ns, message):
            while self._waiting and self._waiting[0].stamp_ns > stamp_ns:  # The rings will forget their messages.
                yield self._settle()
        while self._is_settled(arrived_ns):
            yield self._settle()
        if name == IMAGE:
            self._newest_frame_ns = stamp_ns
            self._waiting.append(_Waiting(arrived_ns, stamp_ns, message))
            self._held_bytes += len(message.data)
        else:
            self._hold(name, stamp_ns, arrived_ns, message)

    def end(self) -> Iterator[Frame]:
        """Yield the frames that still wait."""
        while self._waiting:
            yield self._settle()

    def report(self, notes: Counter[str]) -> None:
        """Add the causes that are only known at the end to the faults, and remarks to `notes`, in words."""
        self._joint_causes.report(self._joints.seen, self._joints.outliers, self._faults, notes)
        self._reward_causes.report(self._faults)
        for name, ring in self._rings.items():
            ring.outliers.report(f"message on {name}", self._faults)

    def _is_left_out(self, name: str, stamp_ns: int, message: Any) -> bool:
        """Return whether a message is left out, because it has no stamp or is a repeated frame, and count it."""
        if stamp_ns == 0 and name != JOINT_STATES:
            if name != JOINT_COMMAND or np.any(message.effort):  # A planner that is switched off sends zeros.
                self._faults[f"{'frame' if name == IMAGE else f'message on {name}'} without a stamp"] += 1
            return True
        if name == IMAGE and stamp_ns == self._newest_frame_ns:
            self._faults["repeated stamp of a frame"] += 1
            return True
        return False

    def _begins_anew(self, name: str, stamp_ns: int, message: Any) -> bool:
        """Return whether a message begins a new time line."""
        if name == IMAGE:
            return self._newest_frame_ns is not None and stamp_ns < self._newest_frame_ns
        if name == JOINT_STATES:
            is_own = stamp_ns != 0 and not set(self._joint_names).isdisjoint(message.name)
            return is_own and self._joints.begins_anew(stamp_ns)
        return self._rings[name].begins_anew(stamp_ns)

    def _is_settled(self, now_ns: int) -> bool:
        """Return whether the oldest frame need not wait any longer at the time of arrival `now_ns`."""
        if len(self._waiting) <= LATER_FRAMES:
            return False
        return now_ns - self._waiting[0].arrived_ns > SETTLE_NS or self._held_bytes > HELD_PICTURE_BYTES

    def _settle(self) -> Frame:
        """Return the oldest frame with the messages that have arrived for it."""
        arrived_ns, stamp_ns, image = self._waiting.popleft()
        self._held_bytes -= len(image.data)
        joints, max_age_ns = self._joints, self._max_age_ns
        reading = joints.at(stamp_ns) if self._exact else joints.at_or_before(stamp_ns, max_age_ns)
        reward = self._rings[REWARD].at_or_before(stamp_ns, max_age_ns)
        self._joint_causes.frame(stamp_ns, arrived_ns, reading is not None)
        self._reward_causes.frame(stamp_ns, arrived_ns, reward is not None)
        return Frame(
            stamp_ns=stamp_ns,
            image=image,
            joint_state=reading,
            timestep=self._rings[TIMESTEP].at(stamp_ns),
            target=self._rings[TARGET].at(stamp_ns),
            fingertip=self._rings[FINGERTIP].at(stamp_ns),
            command=self._rings[JOINT_COMMAND].at(stamp_ns),
            reward=reward,
        )

    def _hold(self, name: str, stamp_ns: int, arrived_ns: int, message: Any) -> None:
        """Hold a message under its stamp, or count the reason if it cannot be held."""
        try:
            if name == JOINT_STATES:
                self._hold_joint_state(stamp_ns, arrived_ns, message)
            else:
                self._rings[name].add(stamp_ns, _value(name, message))
        except JointStateRefusedError as error:
            self._faults[str(error)] += 1
        except VjepaError:
            self._faults[f"unreadable message on {name}"] += 1
        else:
            if name == REWARD:
                self._reward_causes.hold(stamp_ns, arrived_ns)

    def _hold_joint_state(self, stamp_ns: int, arrived_ns: int, message: Any) -> None:
        added = self._joints.add(stamp_ns, message)
        if added != Added.OTHER_JOINTS:
            self._joint_causes.hold(stamp_ns, arrived_ns, message)
            if added == Added.PARTLY:
                self._faults["joint state without a finite position of each joint"] += 1
        elif message.name:
            self._joint_causes.other(message.name)
        else:
            self._faults["joint state that names no joint"] += 1


def _value(name: str, message: Any) -> Any:
    """Return the value of a message of the topic `name` in the form that `Frame` holds."""
    if name == TIMESTEP:
        return timestep_of(message)
    if name == REWARD:
        return float(message.vector.x if hasattr(message, "vector") else message.data)
    if name in (TARGET, FINGERTIP):
        return np.array([message.point.x, message.point.y, message.point.z])
    return message
