"""The inputs of `effort_guard` and their checks: the dead-man's switch, commands and joint states, without ROS.

There are two clocks. Timeouts use a steady clock, in seconds. The age of a message on receipt uses the clock of the
stamps, in integer nanoseconds. Afterwards the age grows by the steady time that passes.
"""

import math
from collections import deque
from collections.abc import Sequence

import numpy as np

from vjepa_interfaces.effort import CommandRefusedError

MAX_MESSAGES_HZ = 500.0
"""The most commands, or messages of the switch, a second: a faster publisher is faulty, and is not followed."""
RATE_WINDOW_S = 0.2


class RateBound:
    """Whether events come faster than `MAX_MESSAGES_HZ`, over the last `RATE_WINDOW_S` seconds."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=int(MAX_MESSAGES_HZ * RATE_WINDOW_S) + 1)

    def count(self, now: float) -> None:
        """Count one event at steady time `now`."""
        self._times.append(now)

    def is_exceeded(self, now: float) -> bool:
        """Return whether the window that ends `now` is full."""
        return len(self._times) == self._times.maxlen and now - self._times[0] <= RATE_WINDOW_S


class StampedInput:
    """The rules for the stamps of an input: recent, not in the future, and rising. It keeps the newest stamp's age.

    Attributes:
        stamp_ns: the newest accepted stamp, nanoseconds; None if there is none.
    """

    def __init__(self, max_age_s: float):
        self._max_age_ns = round(max_age_s * 1e9)
        self.stamp_ns: int | None = None
        self.forget()

    def forget(self) -> None:
        """Discard the newest message. Its stamp stays known, so that no message is accepted twice."""
        self._age_s = self._arrived_s = math.inf

    def refusal(self, stamp_ns: int, clock_ns: int) -> str:
        """Return why a message with this stamp is refused at `clock_ns` of the clock of stamps, or nothing."""
        limit_s = self._max_age_ns * 1e-9
        if clock_ns <= 0:
            return "there is no time yet to compare stamps with: no message on /clock"
        if stamp_ns <= 0:
            return "it has no stamp; expected that of its frame or reading"
        age_s = (clock_ns - stamp_ns) * 1e-9
        if age_s > limit_s:
            return f"its stamp is {age_s:.3f} s old; expected at most {limit_s:g} s"
        if age_s < -limit_s:
            return f"its stamp is {-age_s:.3f} s in the future; are both computers' clocks the same?"
        newest = self.stamp_ns
        # A newest stamp that is itself out of range is of a clock that was set back, or of an earlier simulation.
        if newest is not None and stamp_ns <= newest and abs(clock_ns - newest) <= self._max_age_ns:
            return "its stamp does not rise; expected a later one than that of the message before"
        return ""

    def take(self, stamp_ns: int, clock_ns: int, now: float) -> None:
        """Accept a message that `refusal` let pass, at steady time `now`."""
        self.stamp_ns = stamp_ns
        self._age_s, self._arrived_s = (clock_ns - stamp_ns) * 1e-9, now

    def age_s(self, now: float) -> float:
        """Return the age of the newest stamp at steady time `now`, seconds; infinite if there is none."""
        return math.inf if math.isinf(self._arrived_s) else self._age_s + (now - self._arrived_s)

    def silence_s(self, now: float) -> float:
        """Return the seconds since the newest accepted message; infinite if there is none."""
        return now - self._arrived_s if math.isfinite(self._arrived_s) else math.inf

    def is_fresh(self, now: float) -> bool:
        """Return whether the newest stamp is recent at steady time `now`."""
        return self.age_s(now) <= self._max_age_ns * 1e-9


class Switch:
    """The dead-man's switch: held as long as messages of a held button come, with rising stamps.

    The stamps may be of any clock, because the button's computer may have another clock. They must rise. Their delay
    may exceed the smallest delay since the guard began by at most the timeout; a network that holds messages back
    exceeds it. A clock that is set back there looks like a delay.

    Attributes:
        pressed: whether it was pressed after a message that it was released; `take_press` clears it.
        refusal: why the last message of a held button was refused; empty if it was accepted.
    """

    def __init__(self, timeout_s: float):
        self._timeout_s = timeout_s
        self._offset_s = math.inf
        self.forget()

    def forget(self) -> None:
        """Set the switch to not held; a press then needs a message of a released button first."""
        self._held_s = -math.inf
        self._is_released = False
        self._stamp_ns: int | None = None
        self.pressed = False
        self.refusal = ""

    def release(self) -> None:
        """Take a message of a released button; any stamp is accepted."""
        self.forget()
        self._is_released = True

    def hold(self, stamp_ns: int, now: float) -> bool:
        """Take a message of a held button at steady time `now`, and return whether it was accepted."""
        self._expire(now)
        self.refusal = self._refusal(stamp_ns, now)
        if self.refusal:
            return False
        self._stamp_ns = stamp_ns
        self._held_s = now
        self.pressed = self.pressed or self._is_released
        self._is_released = False
        return True

    def _refusal(self, stamp_ns: int, now: float) -> str:
        if stamp_ns <= 0:
            return "messages of the switch have no stamp; expected the time"
        if self._stamp_ns is not None and stamp_ns <= self._stamp_ns:
            return "stamps of the switch do not rise: a publisher that is stuck is not a hand"
        offset_s = now - stamp_ns * 1e-9
        self._offset_s = min(self._offset_s, offset_s)
        late_s = offset_s - self._offset_s
        return f"messages of the switch come {late_s:.2f} s late" if late_s > self._timeout_s else ""

    def take_press(self) -> bool:
        """Return whether the switch was pressed since the last call."""
        pressed, self.pressed = self.pressed, False
        return pressed

    def _expire(self, now: float) -> None:
        """Require a message of a released button after a timeout: the state of the switch meanwhile is unknown."""
        if now - self._held_s > self._timeout_s and not self._is_released:
            self._held_s = -math.inf
            self.pressed = False

    def why_not_held(self, now: float) -> str:
        """Return why the switch is not held at steady time `now`, or nothing."""
        reason = f": {self.refusal}" if self.refusal else ""
        if self._is_released:
            return f"not enabled: the switch is released{reason}"
        if now - self._held_s <= self._timeout_s:
            return ""
        self._expire(now)
        return f"not enabled: no message of a held switch within {self._timeout_s:g} s{reason}"


class JointReadings:
    """The newest position and velocity of every joint of the arm."""

    def __init__(self, joint_names: tuple[str, ...], max_age_s: float):
        self._names = joint_names
        self._input = StampedInput(max_age_s)
        self._position = self._velocity = np.full(len(joint_names), math.nan)

    def forget(self) -> None:
        """Discard all readings."""
        self._input.forget()

    def take(
        self,
        names: Sequence[str],
        position: Sequence[float],
        velocity: Sequence[float],
        stamp_ns: int,
        clock_ns: int,
        now: float,
    ) -> str:
        """Take a joint state, and return why it is refused, or nothing.

        A message that names none of the arm's joints, such as a gripper's, is ignored.

        Args:
            names: joints of the message, in any order.
            position: rad, one for each name.
            velocity: rad/s, one for each name.
            stamp_ns: stamp of the message, nanoseconds.
            clock_ns: present time of the clock of stamps, nanoseconds.
            now: present steady time, seconds.
        """
        if not set(names) & set(self._names):
            return ""
        if len(set(names)) != len(names):
            return "joint state names a joint twice; expected each once"
        found = [self._by_name(names, values) for values in (position, velocity)]
        if not np.all(np.isfinite(found[1])):
            return f"joint state without a finite velocity for each of {', '.join(self._names)}"
        if reason := self._input.refusal(stamp_ns, clock_ns):
            return f"joint state is not used: {reason}"
        self._position, self._velocity = found
        self._input.take(stamp_ns, clock_ns, now)
        return ""

    def _by_name(self, names: Sequence[str], values: Sequence[float]) -> np.ndarray:
        by_name = dict(zip(names, values, strict=False))
        return np.array([by_name.get(name, math.nan) for name in self._names], np.float64)

    def fresh(self, now: float) -> tuple[np.ndarray, np.ndarray] | None:
        """Return position (n,) rad, NaN if unknown, and velocity (n,) rad/s; None if no reading is recent."""
        return (self._position, self._velocity) if self._input.is_fresh(now) else None


class Commands:
    """The newest accepted command, clamped to the limits.

    Attributes:
        effort: (n,) N·m; zeros if there is none.
    """

    def __init__(self, joints: int, timeout_s: float, max_age_s: float):
        self._timeout_s, self._max_age_s = timeout_s, max_age_s
        self._input = StampedInput(max_age_s)
        self._rate = RateBound()
        self._joints = joints
        self.forget()

    def forget(self) -> None:
        """Discard the command."""
        self._input.forget()
        self.effort = np.zeros(self._joints)

    def count(self, now: float) -> None:
        """Count a message, whatever its content, for the bound on the rate."""
        self._rate.count(now)

    def take(self, effort: np.ndarray, stamp_ns: int, clock_ns: int, now: float) -> None:
        """Take a command.

        Args:
            effort: (n,) N·m, clamped to the limits.
            stamp_ns: stamp of the frame that the command answers, nanoseconds.
            clock_ns: present time of the clock of stamps, nanoseconds.
            now: present steady time, seconds.

        Raises:
            CommandRefusedError: the stamp is refused.
        """
        if reason := self._input.refusal(stamp_ns, clock_ns):
            raise CommandRefusedError(f"command refused: {reason}")
        self._input.take(stamp_ns, clock_ns, now)
        self.effort = effort

    def why_not(self, now: float) -> str:
        """Return why no command drives at steady time `now`, or nothing."""
        if self._rate.is_exceeded(now):
            return f"commands come faster than {MAX_MESSAGES_HZ:g} a second; expected the rate of the camera"
        if self._input.silence_s(now) > self._timeout_s:
            return f"no command within {self._timeout_s:g} s"
        if self._input.age_s(now) > self._max_age_s:
            return f"the newest command is of a frame older than {self._max_age_s:g} s"
        return ""

    def age_s(self, now: float) -> float:
        """Return the age of the frame whose command drives, seconds; infinite if none drives."""
        return self._input.age_s(now)
