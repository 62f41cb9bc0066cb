"""Loops that step a simulated arm by commands, in real time or in lockstep, without ROS.

In real time, a timer steps the simulation with or without commands. In lockstep, the command that answers the latest
frame steps it. A loop calls a given function to publish each step.
"""

import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sim_bridge.sim_parameters import SimParameters
from vjepa_interfaces.effort import CommandRefusedError
from vjepa_interfaces.messages import LAST
from vjepa_interfaces.rates import attainable_rate_hz
from vjepa_interfaces.statistics import Counts, Durations, RateMeter

if TYPE_CHECKING:  # The choice of an OpenGL backend must come before the import of the physics.
    from sim_bridge.env import SimEnv, SimStep

REFUSAL_SHOWN_S = 2.0
"""Seconds for which diagnostics, published once a second, show why a command was refused."""
RECENT_S, FEWEST_RECENT = 0.8, 10
"""Seconds, and least number, of the steps whose late commands are counted. Diagnostics, published once a second, then
report a rate that is too high within two seconds."""
MOST_LATE = 0.1
"""Largest share of these steps without a newer command at a rate that the loop holds."""
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
"""Publishes a step and its frame (height, width, 3), and returns the steady time of the frame in seconds."""

OnAnswer = Callable[[int, dict[str, float]], None]
"""Takes the stamp of an answered frame, nanoseconds, and its steady times in seconds by mark of `frame_trace`."""


class StepLoop(ABC):
    """Runs episodes of an environment, which commands step.

    Attributes:
        step: the present step; None before the first episode.
        is_paused: whether the simulation is paused.
        is_finished: whether all requested episodes are over.
        counts: counts of the events in `COUNTED`.
    """

    def __init__(
        self,
        env: "SimEnv",
        parameters: SimParameters,
        publish: Publish,
        on_end: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        on_answer: OnAnswer | None = None,
    ):
        """Store the arguments; `begin` starts the loop.

        Args:
            env: the simulation.
            parameters: episodes and timeouts.
            publish: called with each step.
            on_end: called at the end of each episode, and at the end of all.
            clock: returns the seconds of a steady clock.
            on_answer: called with the times of each answered frame; None to take no further times.
        """
        self.step: SimStep | None = None
        self.is_paused = self.is_finished = False
        self.counts = Counts()
        self._env, self._parameters = env, parameters
        self._publish, self._on_end, self._clock, self._on_answer = publish, on_end, clock, on_answer
        self._latency, self._response, self._command_age = Durations(), Durations(), Durations()
        self._rate = RateMeter()
        self._frame_times: dict[int, tuple[float, float, float]] = {}
        self._heard_s = math.inf
        self._refusal, self._refused_s = "", -math.inf

    @property
    @abstractmethod
    def tick_period_s(self) -> float:
        """Seconds from one `tick` to the next."""

    @abstractmethod
    def tick(self) -> None:
        """Do the periodic work, which needs no command."""

    @abstractmethod
    def _take(self, effort: np.ndarray, stamp_ns: int, now_s: float) -> None:
        """Act on a command that passed the checks."""

    @abstractmethod
    def _lateness(self, silence_s: float) -> str:
        """Return a text for diagnostics if commands come late or, for `silence_s`, not at all; else an empty text."""

    def begin(self) -> None:
        """Begin to measure the time without a command."""
        self._heard_s = self._clock()

    def restart(self) -> None:
        """Begin the next episode at once."""
        self.is_finished = False
        self._begin_episode()

    def set_paused(self, is_paused: bool) -> None:
        """Pause or continue the simulation."""
        self.is_paused = is_paused

    def command(self, names: Sequence[str] | None, efforts: Sequence[float], stamp_ns: int) -> None:
        """Check a command and act on it. The first episode must have begun.

        Args:
            names: joint names, in any order; None for the environment's joints, in its order.
            efforts: N·m, one per joint.
            stamp_ns: stamp of the frame that the command answers, nanoseconds; 0 for no frame and zero torque.

        Raises:
            CommandRefusedError: the command is not valid; the simulation did not move.
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
            begun_s, rendered_s, sent_s = self._frame_times.pop(stamp_ns)
            self._latency.add(now_s - begun_s)
            self._response.add(now_s - sent_s)
            if self._on_answer is not None:
                self._on_answer(stamp_ns, {"begun": begun_s, "rendered": rendered_s, "sent": sent_s, "answered": now_s})
        self._take(effort, stamp_ns, now_s)

    def trouble(self) -> str:
        """Return a text about missing or just refused commands; empty if there is no trouble."""
        if self.is_paused or self.is_finished:
            return ""
        now_s = self._clock()
        refusal = f"refused: {self._refusal}" if now_s - self._refused_s < REFUSAL_SHOWN_S else ""
        return "; ".join(filter(None, (self._lateness(now_s - self._heard_s), refusal)))

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
        """Step the environment once."""
        self.counts["steps"] += 1
        self._show(lambda: self._env.step(effort))

    def _show(self, advance: "Callable[[], SimStep]") -> None:
        """Advance the environment and publish the new step. The frame-to-torque time starts here."""
        begun_s = self._clock()
        self.step = advance()
        self._frame = self._env.render()
        rendered_s = begun_s if self._on_answer is None else self._clock()
        self.counts["frames"] += 1
        self._rate.tick(begun_s)
        self._send()
        self._frame_times[self.step.stamp_ns] = begun_s, rendered_s, self._sent_s
        if self.step.step_type == LAST:
            self._on_end()

    def _send(self) -> None:
        assert self.step is not None
        self._sent_s = self._publish(self.step, self._frame)


class RealTimeLoop(StepLoop):
    """Steps once each control period with the newest command, until that is too old."""

    _applied_ns = 0
    _late = deque[bool](maxlen=0)  # Diagnostics are published before `begin` too.

    @property
    def tick_period_s(self) -> float:
        """A control period of real time, seconds."""
        return self._env.control_period_s / self._parameters.playback_speed

    def begin(self) -> None:
        """Begin to measure the time without a command, and to note which steps have no newer one."""
        super().begin()
        self._late = deque[bool](maxlen=max(FEWEST_RECENT, round(RECENT_S / self.tick_period_s)))

    def tick(self) -> None:
        """Make one control step, or begin the next episode."""
        if self.is_paused or self.is_finished:
            return
        if self.step is None:
            self._begin_episode()
        elif self.step.step_type == LAST:
            self._end_episode()
        else:
            self._apply(self._due_effort(self.step.stamp_ns))

    def _due_effort(self, frame_ns: int) -> np.ndarray:
        """Return the efforts (n,) in N·m of the newest command; zeros if it is too old."""
        effort, stamp_ns, arrived_s = self._command
        is_late = stamp_ns <= self._applied_ns
        self._applied_ns = max(stamp_ns, self._applied_ns)
        self.counts["stale_steps"] += is_late
        if stamp_ns:
            self._late.append(is_late)
        if self._clock() - arrived_s > self._parameters.command_timeout_s:
            self.counts["timeout_steps"] += 1
            return np.zeros_like(effort)
        if stamp_ns:
            self._command_age.add((frame_ns - stamp_ns) * 1e-9)
        return effort

    def _begin_episode(self) -> None:
        # Torque is zero until the episode's first command. The silence counts from the last command before the episode.
        self._command = np.zeros(len(self._env.limits.joint_names)), 0, self._heard_s
        super()._begin_episode()
        assert self.step is not None
        self._episode_ns = self.step.stamp_ns

    def _take(self, effort: np.ndarray, stamp_ns: int, now_s: float) -> None:
        assert self.step is not None
        if stamp_ns == 0:  # Zeros of a deactivated planner hold until a newer command, and never count as fresh.
            self._command = effort, 0, now_s
        elif max(self._command[1], self._episode_ns) <= stamp_ns <= self.step.stamp_ns:
            self._command = effort, stamp_ns, now_s
            self._heard_s = now_s
        else:
            self.counts["old_commands"] += 1

    def values(self) -> dict[str, Any]:
        """Return the entries of diagnostics; with `attainable_rate_hz` while the loop does not hold its rate."""
        attainable_hz = self._attainable_rate_hz()
        return super().values() | ({} if attainable_hz is None else {"attainable_rate_hz": attainable_hz})

    def _lateness(self, silence_s: float) -> str:
        texts = []
        if silence_s > self._parameters.command_timeout_s:
            texts.append(f"no command for {silence_s:.1f} s: torque is zero")
        if (attainable_hz := self._attainable_rate_hz()) is not None:
            texts.append(
                f"{1.0 / self.tick_period_s:.4g} Hz cannot be held: {sum(self._late)} of {len(self._late)} steps had "
                f"no newer command, and a frame takes {1e3 * self._response_s():.1f} ms to its command; "
                f"{attainable_hz:.1f} Hz can"
            )
        return "; ".join(texts)

    def _attainable_rate_hz(self) -> float | None:
        """Return the highest rate that the loop can hold, Hz; None while it holds its own or gets no commands."""
        late, steps, response_s = sum(self._late), len(self._late), self._response_s()
        is_silent = self._clock() - self._heard_s > max(self._parameters.command_timeout_s, 2.0 * response_s)
        if steps < (self._late.maxlen or 0) or late <= MOST_LATE * steps or is_silent:
            return None
        newer_hz = (steps - late) / steps / self.tick_period_s
        return min(attainable_rate_hz(response_s), newer_hz or math.inf)

    def _response_s(self) -> float:
        """Return the recent time from a frame to its command, s, without the wait until an older one is encoded."""
        (quarter_ms,) = self._response.percentiles(25, last=max(1, len(self._late) - sum(self._late)))
        return 1e-3 * quarter_ms


class LockstepLoop(StepLoop):
    """Steps once for each command that answers the latest frame, and publishes an unanswered frame again."""

    _answered_ns = 0
    _pending: np.ndarray | None = None

    @property
    def tick_period_s(self) -> float:
        """Seconds between two checks whether the latest frame must be published again."""
        return self._parameters.lockstep_retry_s / 4

    def begin(self) -> None:
        """Begin the first episode."""
        super().begin()
        self._begin_episode()

    def restart(self) -> None:
        """Begin the next episode at once, and discard an answer from the pause."""
        self._pending = None
        super().restart()

    def set_paused(self, is_paused: bool) -> None:
        """Pause the simulation, or continue it with the answer that arrived during the pause."""
        super().set_paused(is_paused)
        if not is_paused and self._pending is not None:
            effort, self._pending = self._pending, None
            self._answer(effort)

    def tick(self) -> None:
        """Publish an unanswered frame again with the same stamp: a lost message or a new node must not end the run."""
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

    def _lateness(self, silence_s: float) -> str:
        if silence_s <= self._parameters.lockstep_retry_s:
            return ""
        return f"no answer to the latest frame for {silence_s:.1f} s: it is sent again and again"
