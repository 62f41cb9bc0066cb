"""The guard between a planner and a real arm: limits, slew rates, a dead-man's switch and watchdogs, without ROS.

The guard takes messages as they arrive, and returns the allowed torque at a fixed rate. Whatever arrives, and whenever:

- No torque is beyond its joint's limit, and none is NaN.
- Torque is zero unless a person holds the switch, and pressed it after the last fault.
- Torque changes by at most `slew_rates` times the time passed. Only a change towards zero is immediate, because a slow
  one would continue to push after the switch was released.
- With limits of position or velocity, torque brakes a joint before the end of its travel.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vjepa_interfaces.effort import CommandRefusedError, EffortLimits
from vjepa_interfaces.guard_inputs import MAX_MESSAGES_HZ, Commands, JointReadings, RateBound, Switch
from vjepa_interfaces.guard_parameters import GuardParameters, checked
from vjepa_interfaces.joint_limits import SoftJointLimits
from vjepa_interfaces.statistics import Counts

COUNTED = (
    "commands",
    "refused_commands",
    "clamped_commands",
    "braked_ticks",
    "slew_limited_ticks",
    "timeouts",
    "late_ticks",
    "refused_enables",
    "refused_joint_states",
    "too_large_messages",
)
IDLE, DRIVING, FALLBACK = "idle", "driving", "fallback"
FALLBACK_REGAINED = 0.1
"""Seconds of `on_timeout` that a second of driving adds: commands that come and go must not hold torque without end."""


def boot_clock() -> float:
    """Return seconds of a steady clock that runs while the computer sleeps; CLOCK_MONOTONIC stops then."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class Publishers:
    """The number of publishers of each topic that must have one."""

    commands: int = 1
    enables: int = 1
    joint_states: int = 1
    outputs: int = 1


class EffortGuard:
    """Decides which torque may be sent. Its methods may be called from several threads.

    Attributes:
        dry_run: whether only zero torque is sent; see `set_dry_run`.
        torque: the computed torque, (n,) N·m in the order of the joints.
        output: the torque that may be sent: `torque`, or zeros in a dry run.
        state: `IDLE` (zero torque), `DRIVING` (the command's torque), or `FALLBACK` (the torque of `on_timeout`).
        not_enabled: why the switch is not held, at the last tick; empty if it is held.
        not_commanded: why no command drives, at the last tick; empty if one drives.
        stopped_by: the error that keeps torque at zero, at the last tick; empty if there is none.
        latched: why the switch must be released and pressed although no fault is present; empty if it need not.
        counts: events by the names in `COUNTED`.
    """

    def __init__(
        self,
        parameters: GuardParameters,
        clock: Callable[[], float] = boot_clock,
        stamp_clock: Callable[[], int] = time.time_ns,
    ):
        """Check the parameters and begin.

        Args:
            parameters: limits, rates and timeouts, as given; missing limits are taken from the URDF.
            clock: returns seconds of a steady clock, for timeouts and ticks.
            stamp_clock: returns nanoseconds of the clock of the stamps of commands and joint states.

        Raises:
            VjepaError: the parameters are invalid or contradict each other; the message states which.
        """
        self._parameters = parameters = checked(parameters)
        self._clock, self._stamp_clock = clock, stamp_clock
        joints = parameters.joint_names
        self._arm = EffortLimits.of(joints, parameters.effort_limits)
        self._limits = np.array(parameters.effort_limits)
        self._slew_rates = np.array(parameters.slew_rates)
        self._damping = np.array(parameters.damping)
        self._soft_limits = SoftJointLimits(parameters) if parameters.has_joint_limits else None
        self._longest_tick_s = min(parameters.command_timeout_s, parameters.enable_timeout_s)
        self._commands = Commands(len(joints), parameters.command_timeout_s, parameters.command_max_age_s)
        self._readings = JointReadings(joints, parameters.joint_state_max_age_s)
        self._lock = threading.RLock()
        self.dry_run = parameters.dry_run
        self.begin()

    def begin(self) -> None:
        """Discard everything that has arrived: torque is zero until the switch is released and pressed."""
        with self._lock:
            self.counts = Counts()
            self._publishers = Publishers()
            self._enable_rate = RateBound()
            self._fallback_s = self._parameters.fallback_s
            self._was_silent = True
            self._ticked_s = self._clock()
            self.refused_joint_state = self.refused_command = ""
            self._switch = Switch(self._parameters.enable_timeout_s)
            self._forget("the guard has begun")
            self.not_enabled = self.not_commanded = "not begun"
            self.stopped_by = ""

    def _forget(self, why: str) -> None:
        self._commands.forget()
        self._switch.forget()
        self._readings.forget()
        self._stop(why)

    def _stop(self, why: str) -> None:
        """Set zero torque; with `rearm: release` it stays zero until the switch is released and pressed."""
        self.state = IDLE
        self.latched = why if self._parameters.rearm == "release" else ""
        self.torque = self._zeros()
        self.output = self._zeros()

    def set_dry_run(self, dry_run: bool) -> None:
        """Begin or end a dry run. Torque is zero during it, and after its end until the switch is pressed again."""
        with self._lock:
            if dry_run != self.dry_run:
                self._stop("the dry run has begun" if dry_run else "the dry run has ended")
                self._switch.take_press()  # An earlier press does not count.
            self.dry_run = dry_run

    # Inputs.

    def see_publishers(self, publishers: Publishers) -> None:
        """Record the number of publishers.

        The guard cannot distinguish two publishers, so it follows neither and discards their messages.
        """
        with self._lock:
            self._publishers = publishers
            if publishers.commands > 1:
                self._commands.forget()
            if publishers.enables > 1:
                self._switch.forget()
            if publishers.joint_states > 1:
                self._readings.forget()

    def take_enable(self, held: bool, stamp_ns: int) -> bool:
        """Take a message of the dead-man's switch.

        Args:
            held: whether the button is pressed.
            stamp_ns: stamp of the message, nanoseconds.

        Returns:
            Whether zero torque must be sent at once, because the switch was released while torque was sent.
        """
        now = self._clock()
        with self._lock:
            self._enable_rate.count(now)
            if not held:
                was_moving = bool(self.output.any())
                self._switch.release()
                self._stop("the switch was released")
                return was_moving
            if self._publishers.enables > 1 or not self._switch.hold(stamp_ns, now):
                self.counts["refused_enables"] += 1
            return False

    def take_command(self, names: Sequence[str], effort: Sequence[float], stamp_ns: int) -> None:
        """Take a command.

        Zeros with stamp 0 are the last command of a planner that stops: torque is zero at once, or `damp` begins.

        Args:
            names: joints of the command, in any order, each once.
            effort: torques in N·m, one for each name.
            stamp_ns: stamp of the frame that the command answers, nanoseconds.

        Raises:
            CommandRefusedError: the command must not move the arm; the previous command stays.
        """
        now = self._clock()
        with self._lock:
            self.counts["commands"] += 1
            self._commands.count(now)
            try:
                if self._publishers.commands > 1:
                    raise CommandRefusedError(f"{self._publishers.commands} publishers of commands; expected one")
                within, is_clamped = self._arm.checked(names, effort)
                if stamp_ns == 0 and not within.any():
                    self._commands.forget()
                    if self._parameters.on_timeout != "damp":
                        self._stop("the planner has stopped")
                    return
                self._commands.take(within, stamp_ns, self._stamp_clock(), now)
            except CommandRefusedError as error:
                self.counts["refused_commands"] += 1
                self.refused_command = str(error)
                raise
            self.refused_command = ""
            self.counts["clamped_commands"] += is_clamped

    def take_joint_state(
        self, names: Sequence[str], position: Sequence[float], velocity: Sequence[float], stamp_ns: int
    ) -> None:
        """Take a joint state; a message that is not used is counted.

        Args:
            names: joints of the message, in any order.
            position: rad, one for each name.
            velocity: rad/s, one for each name.
            stamp_ns: stamp of the message, nanoseconds.
        """
        with self._lock:
            refusal = f"{self._publishers.joint_states} publishers of joint states; expected one"
            if self._publishers.joint_states <= 1:
                refusal = self._readings.take(names, position, velocity, stamp_ns, self._stamp_clock(), self._clock())
            self.refused_joint_state = refusal
            self.counts["refused_joint_states"] += bool(refusal)

    # Outputs.

    def tick(self) -> np.ndarray:
        """Return the torques (n,) in N·m that may be sent now. Call it `rate_hz` times a second."""
        with self._lock:
            now = self._clock()
            passed_s = now - self._ticked_s
            self._ticked_s = now
            if not 0 <= passed_s <= self._longest_tick_s:
                self.counts["late_ticks"] += 1
                self._forget(f"the guard stood still for {passed_s:.1f} s")
            # A late tick makes no larger step: torque changes no faster after a stall.
            seconds = min(max(passed_s, 0.0), 1.0 / self._parameters.rate_hz)
            before = self.state
            self._decide(now)
            falls_back = self.state == FALLBACK and before != FALLBACK
            self._move(now, 0.0 if falls_back else seconds)
            self.output = self._zeros() if self.dry_run else self.torque.copy()
            return self.output

    @property
    def command_age_s(self) -> float:
        """Age of the frame whose command drives, seconds; infinite if none drives."""
        return self._commands.age_s(self._clock())

    def _decide(self, now: float) -> None:
        """Compute the state of this tick."""
        self.not_enabled = self._switch.why_not_held(now)
        self.not_commanded = self._why_not_commanded(now)
        self.stopped_by = self._why_stopped(now)
        pressed = not self.not_enabled and self._switch.take_press()
        if self.stopped_by:
            self._stop(self.stopped_by)
        elif self.not_enabled:
            self._stop(self.latched or self.not_enabled)
        elif self.not_commanded:
            self._fall_back()
        elif pressed or self._parameters.rearm == "auto":
            self.state, self.latched = DRIVING, ""

    def _fall_back(self) -> None:
        """Continue with `on_timeout` if a command drove. Damping begins at zero torque, so the last command ends."""
        self.latched = self.not_commanded if self._parameters.rearm == "release" else ""
        if self.state == DRIVING:
            self.state = FALLBACK
            if self._parameters.on_timeout == "damp":
                self.torque = self._zeros()

    def _move(self, now: float, seconds: float) -> None:
        """Compute the torque of this tick, `seconds` after the previous tick."""
        if self.state == FALLBACK:
            self._fallback_s -= seconds
        elif self.state == DRIVING:
            regained = self._fallback_s + FALLBACK_REGAINED * seconds
            self._fallback_s = min(regained, self._parameters.fallback_s)
        target = self._target(now)
        if target is None:
            self._stop(self.latched)
            return
        self._slew_to(*self._braked(target, now), self._slew_rates * seconds)
        if not np.all(np.isfinite(self.torque)):  # The last defence: no motor may receive NaN.
            self.stopped_by = f"the torque computed is not finite: {self.torque.tolist()}"
            self._stop(self.stopped_by)

    def _target(self, now: float) -> np.ndarray | None:
        """Return the requested torque, or None for zero at once."""
        if self.state == DRIVING:
            return self._commands.effort
        if self.state == IDLE or self._fallback_s <= 0:
            return None
        if self._parameters.on_timeout == "hold":
            return self.torque
        readings = self._readings.fresh(now)
        if readings is None:
            return None
        with np.errstate(over="ignore"):
            return np.clip(-self._damping * readings[1], -self._limits, self._limits)

    def _braked(self, target: np.ndarray, now: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the target clipped to the band that the limits of position and velocity allow, and that band."""
        readings = self._readings.fresh(now)
        if self._soft_limits is None or readings is None:
            return target, -self._limits, self._limits
        least, most = self._soft_limits.band(*readings)
        within = np.clip(target, least, most)
        self.counts["braked_ticks"] += bool(np.any(within != target))
        return within, least, most

    def _why_not_commanded(self, now: float) -> str:
        rivals = self._publishers.commands
        why = f"{rivals} publishers of commands; expected one" if rivals > 1 else self._commands.why_not(now)
        self.counts["timeouts"] += bool(why) and not self._was_silent and rivals <= 1
        self._was_silent = bool(why)
        return f"{why} (refused: {self.refused_command})" if why and self.refused_command and rivals <= 1 else why

    def _why_stopped(self, now: float) -> str:
        """Return the error that makes torque zero whatever the command and the switch, or nothing."""
        if self._publishers.outputs > 1:
            return f"{self._publishers.outputs} publishers of torques to the arm; expected this guard alone"
        if self._publishers.enables > 1:
            return f"{self._publishers.enables} publishers of enable; expected one"
        if self._enable_rate.is_exceeded(now):
            return f"messages of the switch come faster than {MAX_MESSAGES_HZ:g} a second; expected 10 to 100"
        if self._soft_limits is None:
            return ""
        readings = self._readings.fresh(now)
        if readings is None:
            reason = f" ({self.refused_joint_state})" if self.refused_joint_state else ""
            return f"limits of position and velocity need joint states, and none is recent{reason}"
        if not self._soft_limits.knows(readings[0]):
            return "a joint with an end of travel has no finite position in its joint states"
        return ""

    def _slew_to(self, target: np.ndarray, least: np.ndarray, most: np.ndarray, step: np.ndarray) -> None:
        """Move torque towards `target` by at most `step`; torque outside of `least` and `most` is clipped at once.

        Braking drops torque to zero at once if necessary, and continues from there at the slew rate.
        """
        torque = np.clip(self.torque, np.minimum(least, 0.0), np.maximum(most, 0.0))
        change = target - torque
        limited = np.abs(change) > step
        self.torque = np.where(limited, torque + np.copysign(step, change), target)
        self.counts["slew_limited_ticks"] += bool(np.any(limited))

    def _zeros(self) -> np.ndarray:
        return np.zeros(len(self._parameters.joint_names))
