"""The ROS node of the planners. It takes latents and publishes torque commands; planners can be swapped while it runs.

A latent triggers a plan. The node joins joint states and, for scripted experts, the target to it by stamp. In lockstep
the join is exact, so that an evaluation does not depend on the order of arrival. In real time it is causal.
"""

import contextlib
import json
import math
import sys
import time
from typing import Any

import numpy as np
from geometry_msgs.msg import PointStamped
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from vjepa_interfaces import topics
from vjepa_interfaces.effort import EffortLimits
from vjepa_interfaces.encoder_info import EncoderInfo
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.joint_states import Added, JointStateRefusedError
from vjepa_interfaces.managed_node import ERROR, OK, STEADY, WARN, ManagedNode, run
from vjepa_interfaces.messages import latent_of
from vjepa_interfaces.ros_trace import TracePublisher
from vjepa_interfaces.stamps import set_stamp, to_nanoseconds
from vjepa_interfaces.statistics import Counts, Durations, Failure, RateMeter
from vjepa_planner.contract import GOAL, JOINT_STATE, TARGET, Observation, Plan, Planner, PlannerContext
from vjepa_planner.fallback import Decision, PlannerSupervisor
from vjepa_planner.joining import ObservationJoiner
from vjepa_planner.latent_timeline import LatentTimeline
from vjepa_planner.planner_parameters import PlannerParameters
from vjepa_planner.planner_pool import PlannerPool
from vjepa_planner.registry import available, load_class, refuse_unknown_planners

WATCHDOG_PERIOD_S = 0.05


class PlannerNode(ManagedNode):
    """The node `vjepa_planner`: the loaded planners, their supervisor and the joiner of their inputs."""

    Parameters = PlannerParameters

    def __init__(self) -> None:
        self.option_prefixes = tuple(available())
        super().__init__("vjepa_planner")
        self._pool = PlannerPool()
        self._timer: Any = None

    def preload(self) -> None:
        """Import the modules of the requested planners."""
        for name in (*self.get_parameter("planners").value, self.get_parameter("planner").value):
            with contextlib.suppress(VjepaError):
                load_class(name)

    def setup(self) -> None:
        """Load and warm up every requested planner, and create the endpoints."""
        parameters = self.parameters
        self._limits = EffortLimits.of(parameters.joint_names, parameters.effort_limit)
        self._load_planners()
        self._supervisor = PlannerSupervisor(self._pool.loaded, parameters, self._limits)
        self._announced = parameters.planner
        # It stores messages from now on: the first latents after an activation have frames from before it.
        self._inputs = ObservationJoiner(parameters)
        self._counts, self._failure = Counts(), Failure()
        self._command = self.publisher(topics.JOINT_COMMAND)
        self._active_planner = self.publisher(topics.ACTIVE_PLANNER)
        self._plan = self.publisher(topics.PLAN)
        self._trace = TracePublisher(self)
        self.subscribe(topics.LATENT_INFO, self._on_latent_info)
        self.subscribe(topics.JOINT_STATES, self._on_joint_state)
        self.subscribe(topics.GOAL, self._on_goal)
        if any(TARGET in planner.needs for planner in self._pool.loaded.values()):
            self.subscribe(topics.TARGET, self._on_target)
        self.subscribe(topics.LATENT, self._on_latent)

    def _load_planners(self) -> None:
        """Load the requested planners; only the chosen one must load."""
        parameters = self.parameters
        refuse_unknown_planners(vars(parameters))
        self._pool = PlannerPool()
        self._planner_context = PlannerContext.of(self._limits, parameters.control_period_s, parameters.device)
        for name in dict.fromkeys((*parameters.planners, parameters.planner)):
            with contextlib.suppress(VjepaError):  # `load` below reports a failed import.
                self.declare_options(name, load_class(name).Config)
            try:
                self._pool.load(name, self.options(name), self._planner_context)
            except VjepaError as error:
                if name == parameters.planner:
                    raise
                self.get_logger().warning(f"planner '{name}' is not ready: {error}")
        for name in parameters.fallbacks:
            if name not in self._pool.loaded:
                reason = self._pool.unready.get(name, "it is not loaded; name it in 'planners' too")
                self.get_logger().warning(f"fallback '{name}' is left out: {reason}")
        torch = sys.modules.get("torch")  # None if no planner imported it.
        if torch and parameters.threads:  # More threads slow small networks down, because they wait for the encoder's.
            torch.set_num_threads(parameters.threads)

    def start(self) -> None:
        """Clear all counts and wait for the first latent."""
        self._counts = Counts()
        self._plan_time = Durations()
        self._rate = RateMeter()
        self._inputs.begin()
        self._timeline = LatentTimeline()
        self._refused_goal = ""
        self._answered: JointState | None = None
        self._novelty: float | None = None
        self._latent_arrived_s = math.inf
        self._failure = Failure()
        self._supervisor.begin()
        self._announce(self._supervisor.chosen)
        self._timer = self.create_timer(WATCHDOG_PERIOD_S, self._watch_latents, clock=STEADY)

    def stop(self) -> None:
        """Publish zero torque with stamp 0, so that it never steps a simulation in lockstep."""
        if self._timer is not None:
            self.destroy_timer(self._timer)
            self._timer = None
        self._send(np.zeros(len(self._limits.joint_names)), 0)

    def teardown(self) -> None:
        """Drop the planners to free their device memory."""
        self._pool.close()

    # Swapping.

    def check_live_parameter(self, name: str, value: Any) -> None:
        """Refuse a planner that is not ready, or is for another encoder."""
        self._pool.check(value, self._inputs.encoder)

    def apply_live_parameter(self, name: str, value: Any) -> None:
        """Let planner `value` drive from the next latent on, with its new options if it has some."""
        before = self._supervisor.chosen
        has_new_options = self._pool.renew(value)
        if has_new_options:
            self._supervisor.renew(value)
        self._supervisor.choose(value)
        if not self.active:
            return
        if value != before:
            self.get_logger().info(f"planner '{value}' drives, '{self._announced}' drove before")
            self._announce(value)
        elif has_new_options:
            self.get_logger().info(f"planner '{value}' drives with its new options")
        self._counts["swaps"] += value != before or has_new_options

    def check_live_options(self, prefix: str, options: dict[str, Any]) -> None:
        """Refuse options that are unknown, of another type, out of their range, or not a bundle."""
        self._pool.check_options(prefix, options)

    def apply_live_options(self, prefix: str, options: dict[str, Any]) -> None:
        """Begin to load a new instance of a planner with other options. `planner` must be set to swap it in."""
        self._pool.reload(prefix, options, self._planner_context)

    def _announce(self, name: str) -> None:
        """Publish the driver at once: a fallback may be shorter than the second between two diagnostics."""
        self._announced = name
        self._active_planner.publish(String(data=name))
        if self.active:
            self.publish_diagnostics()

    # Inputs.

    def _on_latent(self, message: Image) -> None:
        if not self.active:
            return
        stamp_ns = to_nanoseconds(message.header.stamp)
        self._latent_arrived_s = time.monotonic()
        if self._answered is not None and stamp_ns == to_nanoseconds(self._answered.header.stamp):
            self._counts["repeated_latents"] += 1
            self._command.publish(self._answered)
            return
        try:
            self._inputs.add_latent(stamp_ns, latent_of(message))
        except VjepaError as error:
            self._begin_tick(stamp_ns)
            self._refuse(stamp_ns, str(error))
            return
        self._plan_if_complete()

    def _on_joint_state(self, message: JointState) -> None:
        try:
            needs_velocity = not self.parameters.derive_velocity
            added = self._inputs.joints.add(to_nanoseconds(message.header.stamp), message, needs_velocity)
        except JointStateRefusedError as error:
            self._counts["refused_joint_states"] += 1
            self._failure.begin(str(error))
            return
        if added == Added.OTHER_JOINTS:
            self._counts["other_joint_states"] += 1
            if JOINT_STATE in self._supervisor.needs and not self._inputs.joints.seen.any():
                names = ", ".join(message.name) or "(none)"
                self._failure.begin(f"joint states of {names}; expected {', '.join(self._limits.joint_names)}")
            return
        self._plan_if_complete()

    def _on_target(self, message: PointStamped) -> None:
        point = message.point
        self._inputs.targets.add(to_nanoseconds(message.header.stamp), np.array([point.x, point.y, point.z]))
        self._plan_if_complete()

    def _on_goal(self, message: Image) -> None:
        """Set the goal from the next latent on. A refused goal changes nothing."""
        if not self.active:
            return
        stamp_ns = to_nanoseconds(message.header.stamp)
        try:
            self._inputs.set_goal(stamp_ns, message)
            self._refused_goal = ""
        except VjepaError as error:
            self._counts["refused_goals"] += 1
            self._refused_goal = f"{stamp_ns}: {error}"
            self.get_logger().warning(f"goal refused: {error}")
        self.publish_diagnostics()

    def _on_latent_info(self, message: String) -> None:
        try:
            self._inputs.set_encoder(message.data)
        except VjepaError as error:
            self._failure.begin(str(error))
            return
        self._plan_if_complete()

    # The tick: a latent with all its inputs becomes a command.

    def _plan_if_complete(self) -> None:
        if not self.active:
            return
        observation = self._inputs.take_observation(self._supervisor.needs, self._supervisor.reads_latents)
        if observation is not None:
            self._begin_tick(observation.stamp_ns)
            self._plan_and_send(observation)

    def _begin_tick(self, stamp_ns: int) -> None:
        if self._timeline.advance(stamp_ns):
            self._supervisor.begin_episode(self.parameters.seed + self._timeline.episode)

    def _plan_and_send(self, observation: Observation) -> None:
        joined_s = self._trace.now()
        deadline_s = None if self.parameters.lockstep else self.parameters.control_period_s
        encoder = self._inputs.encoder or EncoderInfo()
        fingerprint, model = encoder.get("fingerprint"), str(encoder.get("model", ""))
        decision = self._supervisor.plan(observation, deadline_s, fingerprint, model)
        planned_s = self._trace.now()
        for raised in decision.tracebacks:
            self.get_logger().error(raised, throttle_duration_sec=1.0)
        if decision.refused:
            needs_joints = JOINT_STATE in self._supervisor.needs
            why = self._inputs.why_without_joints(observation) if needs_joints else ""
            self._refuse(observation.stamp_ns, decision.refused + why)
            return
        self._plan_time.add(decision.planning_time_s)
        self._failure.end()
        self._novelty = decision.plan.novelty
        self._counts["novel_latents"] += self._novelty is not None and self._novelty > 1.0
        sent_s = self._send(decision.effort, observation.stamp_ns)
        times = {"arrived": self._latent_arrived_s, "joined": joined_s, "planned": planned_s, "sent": sent_s}
        self._trace.publish(observation.stamp_ns, times)
        self._publish_plan(observation.stamp_ns, decision)
        if decision.planner != self._announced:
            if decision.fallback:
                change = f"{decision.fallback}: '{decision.planner}' drives"
                self.get_logger().warning(change, throttle_duration_sec=1.0)
            self._announce(decision.planner)

    def _refuse(self, stamp_ns: int, reason: str) -> None:
        """Answer a latent without a plan with zero torque, so that every stamp has an answer."""
        self._counts["refused_latents"] += 1
        self._failure.begin(reason)
        self.get_logger().error(f"latent refused: {reason}", throttle_duration_sec=1.0)
        zero = np.zeros(len(self._limits.joint_names))
        self._send(zero, stamp_ns)
        self._publish_plan(stamp_ns, Decision(self._supervisor.chosen, Plan(zero), zero, refused=reason))

    def _send(self, effort: np.ndarray, stamp_ns: int) -> float:
        """Publish efforts (n,) in N·m, and return the steady time in seconds at which they were sent."""
        command = JointState(name=list(self._limits.joint_names), effort=effort.tolist())
        set_stamp(command.header.stamp, stamp_ns)
        sent_s = time.monotonic()
        self._command.publish(command)
        if stamp_ns:
            self._answered = command
            self._counts["commands"] += 1
            self._rate.tick(sent_s)
        return sent_s

    def _publish_plan(self, stamp_ns: int, decision: Decision) -> None:
        record = decision.record(stamp_ns)
        if self._inputs.goal is not None and GOAL in self._pool.loaded[decision.planner].needs:
            record["goal"] = self._inputs.goal_ns
        self._plan.publish(String(data=json.dumps(record)))

    def _watch_latents(self) -> None:
        """Publish zero torque once after too long a time without a latent, in real time."""
        silence = time.monotonic() - self._latent_arrived_s
        if not self.parameters.lockstep and silence > self.parameters.latent_timeout_s:
            self._counts["latent_timeouts"] += 1
            self._latent_arrived_s = math.inf
            self._failure.begin(f"no latent for {self.parameters.latent_timeout_s} s: torque is zero until one comes")
            self._send(np.zeros(len(self._limits.joint_names)), 0)

    @property
    def _chosen_planner(self) -> Planner:
        return self._pool.loaded[self._supervisor.chosen]

    def diagnose(self) -> tuple[bytes, str, dict[str, Any]]:
        """Return level, message and values for diagnostics: the driver, planning times and counts of refusals."""
        supervisor, goal = self._supervisor, self._inputs.goal
        values: dict[str, Any] = {"planner": supervisor.chosen, "driving": supervisor.driver} | self._pool.status()
        if not self.active:
            return OK, "configured", values
        p50, p99 = self._plan_time.percentiles(50, 99)
        values |= {"rate_hz": self._rate.rate(time.monotonic()), "plan_p50_ms": p50, "plan_p99_ms": p99}
        values["frame_period_ms"] = self._timeline.period_ms
        names = ("commands", "swaps", "repeated_latents", "refused_latents", "refused_joint_states")
        values |= {name: self._counts[name] for name in (*names, "other_joint_states", "latent_timeouts")}
        if self._novelty is not None:
            values |= {"novelty": self._novelty, "novel_latents": self._counts["novel_latents"]}
        values |= {name: supervisor.counts[name] for name in ("fallbacks", "fallback_commands", "missed_deadlines")}
        values["goal"] = "none" if goal is None else self._inputs.goal_ns
        values["seeks_goal"] = GOAL in self._chosen_planner.needs
        values |= {"refused_goals": self._counts["refused_goals"], "refused_goal": self._refused_goal}
        if supervisor.last_fallback:
            values["last_fallback"] = supervisor.last_fallback
        return *self._level_and_message(), values

    def _level_and_message(self) -> tuple[bytes, str]:
        """Return the level and the message of diagnostics."""
        trained_s = self._chosen_planner.trained_periods_s
        if failure := self._failure.report():
            return ERROR, failure
        if self._timeline.stamp_ns is None:
            return WARN, "no latent yet"
        if self._supervisor.message:
            return WARN, self._supervisor.message
        if self._timeline.is_unlike(trained_s):
            chosen, period_ms = self._supervisor.chosen, self._timeline.period_ms
            return WARN, (
                f"latents of frames {period_ms:.1f} ms apart; planner '{chosen}' was trained on frames "
                f"{' or '.join(f'{period_s * 1e3:g}' for period_s in trained_s)} ms apart"
            )
        if self._refused_goal:
            return WARN, f"goal refused: {self._refused_goal}"
        if failures := self._pool.failures():
            return WARN, "; ".join(f"{failure}; it drives as it was before" for failure in failures)
        return OK, "planning"


def main() -> None:
    """Run `vjepa_planner` until a signal stops it."""
    run(PlannerNode)
