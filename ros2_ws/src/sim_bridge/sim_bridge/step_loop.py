"""How commands step a simulated arm, under either of two clocks, without ROS.

In real time a timer steps the simulation whatever is commanded; in lockstep the command that answers the latest frame
steps it. A loop publishes each step by a function that it is given.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sim_bridge.sim_parameters import SimParameters
from vjepa_interfaces.effort import CommandRefusedError
from vjepa_interfaces.messages import LAST
from vjepa_interfaces.statistics import Counts, Durations, RateMeter

if TYPE_CHECKING:  # Importing the physics waits for the choice of an OpenGL backend.
    from sim_bridge.env import SimEnv, SimStep

REFUSAL_SHOWN_S = 2.0
"""How long diagnostics, which come once a second, show why a command was refused."""
COUNTED = (
    "episodes",
    "frames",
    "steps",
    "answered_frames",
    "resent_frames",
    "stale_steps",
    "timeout_steps",
    "commands",
    "refused_commands",
    "clamped_commands",
    "old_commands",
)

Publish = Callable[["SimStep", np.ndarray], float]
"""Publishes a step and its frame (height, width, 3), and returns when the frame was sent, steady seconds."""


class StepLoop(ABC):
    """Episodes of an environment that is stepped by commands.

    Attributes:
        step: the present one; None before the first episode.
        is_paused: whether the simulation is held still.
        is_finished: whether all episodes asked for are over.
        counts: of the events in `COUNTED`.
    """

    def __init__(
        self,
        env: "SimEnv",
        parameters: SimParameters,
        publish: Publish,
        on_end: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ):
        """Wait for `begin`.

        Args:
            env: the simulation.
            parameters: episodes and timeouts.
            publish: called with each step.
            on_end: called when an episode has ended, and when the last one has.
            clock: seconds of a steady clock.
        """
        self.step: SimStep | None = None
        self.is_paused = self.is_finished = False
        self.counts = Counts()
        self._env, self._parameters = env, parameters
        self._publish, self._on_end, self._clock = publish, on_end, clock
        self._latency, self._response, self._command_age = Durations(), Durations(), Durations()
        self._rate = RateMeter()
        self._frame_times: dict[int, tuple[float, float]] = {}
        self._heard_s = math.inf
        self._refusal, self._refused_s = "", -math.inf

    @property
    @abstractmethod
    def tick_period_s(self) -> float:
        """Seconds from one `tick` to the next."""

    @abstractmethod
    def tick(self) -> None:
        """Do what is due without a command."""

    @abstractmethod
    def _take(self, effort: np.ndarray, stamp_ns: int, now_s: float) -> None:
        """Act on a command that may be applied."""

    @abstractmethod
    def _silence(self, silence_s: float) -> str:
        """Return what is wrong where no command has come for so long, or nothing."""

    def begin(self) -> None:
        """Begin: the silence of whoever commands counts from now."""
        self._heard_s = self._clock()

    def restart(self) -> None:
        """Begin the next episode at once."""
        self.is_finished = False
        self._begin_episode()

    def set_paused(self, is_paused: bool) -> None:
        """Hold the simulation still, or let it go on."""
        self.is_paused = is_paused

    def command(self, names: Sequence[str] | None, efforts: Sequence[float], stamp_ns: int) -> None:
        """Take a command, once the first episode has begun.

        Args:
            names: joints, in any order; None for those of the environment, in its order.
            efforts: N·m, one per joint.
            stamp_ns: stamp of the frame that it answers, nanoseconds; 0 of no frame, then without torque.

        Raises:
            CommandRefusedError: it makes no sense; the simulation has not moved.
        """
        now_s = self._clock()
        self.counts["commands"] += 1
        try:
            effort, clamped = self._env.limits.checked(names, efforts)
            if stamp_ns == 0 and effort.any():
                raise CommandRefusedError("command has torque and stamp 0; expected the stamp of the frame it answers")
        except CommandRefusedError as error:
            self.counts["refused_commands"] += 1
            self._refusal, self._refused_s = str(error), now_s
            raise
        self.counts["clamped_commands"] += clamped
        if stamp_ns in self._frame_times:
            self.counts["answered_frames"] += 1
            shown_s, sent_s = self._frame_times.pop(stamp_ns)
            self._latency.add(now_s - shown_s)
            self._response.add(now_s - sent_s)
        self._take(effort, stamp_ns, now_s)

    def trouble(self) -> str:
        """Return what is wrong: commands that fail to come, or were refused just now; empty where nothing is."""
        if self.is_paused or self.is_finished:
            return ""
        now_s = self._clock()
        refusal = f"refused: {self._refusal}" if now_s - self._refused_s < REFUSAL_SHOWN_S else ""
        return "; ".join(filter(None, (self._silence(now_s - self._heard_s), refusal)))

    def values(self) -> dict[str, Any]:
        """Return the entries of diagnostics: rate, latencies and counts."""
        latency, response = self._latency.percentiles(50, 99), self._response.percentiles(50, 99)
        age, period_ms = self._command_age.percentiles(50, 99), 1e3 * self._env.control_period_s
        values: dict[str, Any] = {"achieved_rate_hz": self._rate.rate(self._clock())}
        values |= dict(zip(("latency_p50_ms", "latency_p99_ms"), latency, strict=True))
        values |= dict(zip(("response_p50_ms", "response_p99_ms"), response, strict=True))
        values |= {"command_age_p50_periods": age[0] / period_ms, "command_age_p99_periods": age[1] / period_ms}
        return values | {name: self.counts[name] for name in COUNTED}

    def _begin_episode(self) -> None:
        self._frame_times.clear()
        self._show(self._env.reset)
        self.counts["episodes"] += 1

    def _end_episode(self) -> None:
        if self._parameters.episodes and self.counts["episodes"] >= self._parameters.episodes:
            self.is_finished = True
            self._on_end()
        else:
            self._begin_episode()

    def _apply(self, effort: np.ndarray) -> None:
        """Make one step of the environment."""
        self.counts["steps"] += 1
        self._show(lambda: self._env.step(effort))

    def _show(self, advance: "Callable[[], SimStep]") -> None:
        """Advance the environment and publish what it became; the frame-to-torque time starts here."""
        shown_s = self._clock()
        self.step = advance()
        self._frame = self._env.render()
        self.counts["frames"] += 1
        self._rate.tick(shown_s)
        self._send()
        self._frame_times[self.step.stamp_ns] = shown_s, self._sent_s
        if self.step.step_type == LAST:
            self._on_end()

    def _send(self) -> None:
        assert self.step is not None
        self._sent_s = self._publish(self.step, self._frame)


class RealTimeLoop(StepLoop):
    """A step each control period, by the newest command, which holds until a newer one or until it is too old."""

    _applied_ns = 0

    @property
    def tick_period_s(self) -> float:
        """A control period of real time."""
        return self._env.control_period_s / self._parameters.playback_speed

    def tick(self) -> None:
        """Make one control step."""
        if self.is_paused or self.is_finished:
            return
        if self.step is None:
            self._begin_episode()
        elif self.step.step_type == LAST:
            self._end_episode()
        else:
            self._apply(self._due_effort(self.step.stamp_ns))

    def _due_effort(self, frame_ns: int) -> np.ndarray:
        """Return the efforts (n,) of the command that holds at a frame; zeros where it is too old."""
        effort, stamp_ns, arrived_s = self._command
        if stamp_ns > self._applied_ns:
            self._applied_ns = stamp_ns
        else:
            self.counts["stale_steps"] += 1
        if self._clock() - arrived_s > self._parameters.command_timeout_s:
            self.counts["timeout_steps"] += 1
            return np.zeros_like(effort)
        if stamp_ns:
            self._command_age.add((frame_ns - stamp_ns) * 1e-9)
        return effort

    def _begin_episode(self) -> None:
        # No torque until the episode's first command; the silence counts from the last one of the episode before.
        self._command = np.zeros(len(self._env.limits.joint_names)), 0, self._heard_s
        super()._begin_episode()
        assert self.step is not None
        self._episode_ns = self.step.stamp_ns

    def _take(self, effort: np.ndarray, stamp_ns: int, now_s: float) -> None:
        assert self.step is not None
        if stamp_ns == 0:  # A deactivated planner's zeros: they hold until a newer command, and never count as fresh.
            self._command = effort, 0, now_s
        elif max(self._command[1], self._episode_ns) <= stamp_ns <= self.step.stamp_ns:
            self._command = effort, stamp_ns, now_s
            self._heard_s = now_s
        else:
            self.counts["old_commands"] += 1

    def _silence(self, silence_s: float) -> str:
        if silence_s <= self._parameters.command_timeout_s:
            return ""
        return f"no command for {silence_s:.1f} s: torque is zero"


class LockstepLoop(StepLoop):
    """A step for each command that answers the latest frame; an unanswered frame is sent again."""

    _answered_ns = 0
    _pending: np.ndarray | None = None

    @property
    def tick_period_s(self) -> float:
        """How often it is looked whether the latest frame is due to be sent again."""
        return self._parameters.lockstep_retry_s / 4

    def begin(self) -> None:
        """Begin the first episode."""
        super().begin()
        self._begin_episode()

    def restart(self) -> None:
        """Begin the next episode at once, and forget an answer that the pause held back."""
        self._pending = None
        super().restart()

    def set_paused(self, is_paused: bool) -> None:
        """Hold the simulation still, or let it go on with the answer that came meanwhile."""
        super().set_paused(is_paused)
        if not is_paused and self._pending is not None:
            effort, self._pending = self._pending, None
            self._answer(effort)

    def tick(self) -> None:
        """Send an unanswered frame again, same stamp: a lost message or a restarted node never ends the run."""
        silence_s = self._clock() - self._sent_s
        if not self.is_paused and not self.is_finished and silence_s >= self._parameters.lockstep_retry_s:
            self.counts["resent_frames"] += 1
            self._send()

    def _answer(self, effort: np.ndarray) -> None:
        assert self.step is not None
        if self.step.step_type == LAST:
            self._end_episode()
        else:
            self._apply(effort)

    def _take(self, effort: np.ndarray, stamp_ns: int, now_s: float) -> None:
        assert self.step is not None
        if stamp_ns != self.step.stamp_ns or stamp_ns <= self._answered_ns:
            self.counts["old_commands"] += 1
            return
        self._answered_ns, self._heard_s = stamp_ns, now_s
        if self.is_paused:
            self._pending = effort
        else:
            self._answer(effort)

    def _silence(self, silence_s: float) -> str:
        if silence_s <= self._parameters.lockstep_retry_s:
            return ""
        return f"no answer to the latest frame for {silence_s:.1f} s: it is sent again and again"
