"""What stands between a planner and a real arm: limits, slew, a dead-man's switch and a watchdog, without ROS.

The guard is told what arrives and asked at a fixed rate what may go out. Whatever arrives, and whenever:

- no torque is beyond its joint's limit, and none is NaN;
- torque is zero unless somebody has said within `enable_timeout_s` that the arm may move;
- torque changes by at most `slew_rates` times the time passed, except to zero, which is always at once: a slewed way to
  zero would go on pushing after somebody has let go.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vjepa_interfaces.effort import CommandRefusedError, EffortLimits
from vjepa_interfaces.errors import VjepaError, unknown_name
from vjepa_interfaces.statistics import Counts

TIMEOUT_ACTIONS = ("zero", "damp", "hold")
COUNTED = (
    "commands",
    "refused_commands",
    "clamped_commands",
    "slew_limited_ticks",
    "timeouts",
    "refused_joint_states",
)


@dataclass(frozen=True)
class GuardParameters:
    """Parameters of `effort_guard`. Those in the plural have one value a joint, in the order of `joint_names`.

    Attributes:
        joint_names: joints of the arm, in the order in which its controller takes torques.
        effort_limits: largest absolute torque, N·m.
        slew_rates: fastest change of torque, N·m/s.
        rate_hz: torques sent a second.
        command_timeout_s: without a command for longer, `on_timeout` is done.
        enable_timeout_s: without a true on the enable topic for longer, torque is zero.
        on_timeout: `zero`; `damp`: torque against the joints' velocity; or `hold`: the last torque, for `hold_s`.
        damping: of `damp`, N·m per rad/s.
        joint_state_max_age_s: of `damp`: with velocities older than this, torque is zero.
        hold_s: of `hold`: after this many seconds, torque is zero.
        dry_run: compute and show everything, and send zero torque.
    """

    joint_names: tuple[str, ...] = ("shoulder", "wrist")
    effort_limits: tuple[float, ...] = (0.05, 0.05)
    slew_rates: tuple[float, ...] = (0.5, 0.5)
    rate_hz: float = 100.0
    command_timeout_s: float = 0.2
    enable_timeout_s: float = 0.3
    on_timeout: str = "zero"
    damping: tuple[float, ...] = (0.0, 0.0)
    joint_state_max_age_s: float = 0.1
    hold_s: float = 0.5
    dry_run: bool = True


class EffortGuard:
    """Decides which torque goes out. Times are of a steady clock, in seconds.

    Attributes:
        dry_run: whether only zero torque goes out; see `set_dry_run`.
        torque: what the guard has computed, (n,) N·m in the order of the joints.
        output: what may go out: `torque`, or zeros in a dry run.
        not_enabled: why torque is zero whatever is commanded, as of the last tick; empty where it is not.
        not_commanded: why no command drives, as of the last tick; empty where one does.
        counts: events by the names in `COUNTED`.
    """

    def __init__(self, parameters: GuardParameters, clock: Callable[[], float] = time.monotonic):
        """Check the parameters and begin.

        Raises:
            VjepaError: parameters that make no sense; the message says which and what is expected.
        """
        _check(parameters)
        self._parameters = parameters
        self._clock = clock
        self._shape = EffortLimits(parameters.joint_names, math.inf)
        self._limits = np.array(parameters.effort_limits)
        self._slew_rates = np.array(parameters.slew_rates)
        self._damping = np.array(parameters.damping)
        self.dry_run = parameters.dry_run
        self.begin()

    def begin(self) -> None:
        """Forget everything that has arrived: torque is zero, and both enabling and a command are waited for."""
        self.counts = Counts()
        self.torque = self._zeros()
        self.output = self._zeros()
        self.not_enabled = self.not_commanded = "not begun"
        self._command = self._zeros()
        self._velocity = self._zeros()
        self._commanded_s = self._enabled_s = self._velocity_s = -math.inf
        self._fallback_s: float | None = None
        self._timed_out, self._let_go = True, False
        self._command_publishers = self._enable_publishers = 1
        self._ticked_s = self._clock()

    def set_dry_run(self, dry_run: bool) -> None:
        """Begin or end a dry run; torque after one begins with what went out last, which is zero."""
        if self.dry_run and not dry_run:
            self.torque = self.output.copy()
        self.dry_run = dry_run

    # What arrives.

    def see_publishers(self, commands: int, enables: int) -> None:
        """Take note of how many publishers there are of commands and of enabling.

        Which of two is the right one cannot be known, so none is followed. When the second one has gone, a command, or
        a true, that comes after that is waited for.
        """
        self._command_publishers, self._enable_publishers = commands, enables
        if commands > 1:
            self._commanded_s, self._timed_out = -math.inf, True
        if enables > 1:
            self._disable()

    def take_enable(self, enabled: bool) -> None:
        """Take a message of the dead-man's switch: true for another `enable_timeout_s`, false at once."""
        if not enabled:
            self._disable()
        elif self._enable_publishers <= 1:
            self._enabled_s = self._clock()

    def take_command(self, names, effort) -> None:
        """Take a command: `effort` in N·m of the joints `names`, in any order, each once.

        Raises:
            CommandRefusedError: it must not move the arm; what was commanded before stays.
        """
        self.counts["commands"] += 1
        try:
            if self._command_publishers > 1:
                raise CommandRefusedError(f"{self._command_publishers} publishers of commands; expected one")
            checked, _ = self._shape.checked(names, effort)
        except CommandRefusedError:
            self.counts["refused_commands"] += 1
            raise
        self._command = np.clip(checked, -self._limits, self._limits)
        self.counts["clamped_commands"] += bool(np.any(self._command != checked))
        self._commanded_s = self._clock()
        self._timed_out = False

    def take_joint_state(self, names, velocity) -> None:
        """Take joint velocities in rad/s for `damp`; one without a finite one for every joint is counted, not used."""
        by_name = dict(zip(names, velocity, strict=False))
        found = np.array([by_name.get(name, math.nan) for name in self._parameters.joint_names], np.float64)
        if np.all(np.isfinite(found)):
            self._velocity, self._velocity_s = found, self._clock()
        else:
            self.counts["refused_joint_states"] += 1

    # What goes out.

    def tick(self) -> np.ndarray:
        """Return the torques (n,) in N·m that may go out now; to be called `rate_hz` times a second."""
        now = self._clock()
        # A late tick does not make a larger step: after a stall the way is as slow as without one.
        seconds = min(max(now - self._ticked_s, 0.0), 1.0 / self._parameters.rate_hz)
        self._ticked_s = now
        self.not_enabled = self._why_not_enabled(now)
        self.not_commanded = self._why_not_commanded(now)
        self._let_go = False
        target = self._fallback(now) if self.not_commanded else self._commanded()
        if self.not_enabled or target is None:
            self.torque = self._zeros()
        else:
            self._slew_to(target, self._slew_rates * seconds)
        self.output = self._zeros() if self.dry_run else self.torque.copy()
        return self.output

    @property
    def command_age_s(self) -> float:
        """Seconds since the last command that was taken; infinite where there is none."""
        return self._clock() - self._commanded_s

    def _disable(self) -> None:
        """Disable for one tick at least, also where a true comes before it."""
        self._enabled_s, self._let_go = -math.inf, True

    def _why_not_enabled(self, now: float) -> str:
        limit = self._parameters.enable_timeout_s
        if self._enable_publishers > 1:
            return f"{self._enable_publishers} publishers of enable; expected one"
        if self._let_go:
            return "not enabled: told false"
        return "" if now - self._enabled_s <= limit else f"not enabled: no true within {limit} s"

    def _why_not_commanded(self, now: float) -> str:
        limit = self._parameters.command_timeout_s
        if self._command_publishers > 1:
            return f"{self._command_publishers} publishers of commands; expected one"
        if now - self._commanded_s <= limit:
            return ""
        self.counts["timeouts"] += not self._timed_out
        self._timed_out = True
        return f"no command within {limit} s"

    def _commanded(self) -> np.ndarray:
        self._fallback_s = None
        return self._command

    def _fallback(self, now: float) -> np.ndarray | None:
        """Return the torque of `on_timeout`, or None for zero at once."""
        began, action = self._fallback_s is None, self._parameters.on_timeout
        if self._fallback_s is None:
            self._fallback_s = now
        if action == "hold" and now - self._fallback_s <= self._parameters.hold_s:
            return self.torque
        # Damping builds up from zero, so that the last command does not push on while torque slews to it.
        if action == "damp" and not began and now - self._velocity_s <= self._parameters.joint_state_max_age_s:
            with np.errstate(over="ignore"):
                return np.clip(-self._damping * self._velocity, -self._limits, self._limits)
        return None

    def _slew_to(self, target: np.ndarray, step: np.ndarray) -> None:
        change = target - self.torque
        limited = np.abs(change) > step
        self.torque = np.where(limited, self.torque + np.copysign(step, change), target)
        self.counts["slew_limited_ticks"] += bool(np.any(limited))

    def _zeros(self) -> np.ndarray:
        return np.zeros(len(self._parameters.joint_names))


def _check(parameters: GuardParameters) -> None:
    if parameters.on_timeout not in TIMEOUT_ACTIONS:
        raise unknown_name("on_timeout", parameters.on_timeout, TIMEOUT_ACTIONS)
    joints = parameters.joint_names
    if not joints or len(set(joints)) != len(joints):
        raise VjepaError(f"joint_names is {list(joints)}; expected each joint of the arm once")
    for name in ("effort_limits", "slew_rates", "damping"):
        values = getattr(parameters, name)
        if len(values) != len(joints):
            raise VjepaError(f"{name} has {len(values)} values; expected one for each of {', '.join(joints)}")
        needed = name != "damping" or parameters.on_timeout == "damp"
        if not all(math.isfinite(value) and (value > 0 or (value == 0 and not needed)) for value in values):
            raise VjepaError(f"{name} is {list(values)}; expected finite values of more than 0")
    for name in ("rate_hz", "command_timeout_s", "enable_timeout_s", "joint_state_max_age_s", "hold_s"):
        value = getattr(parameters, name)
        if not (math.isfinite(value) and value > 0):
            raise VjepaError(f"{name} is {value}; expected a finite value of more than 0")
