"""Latents in, torque commands out: the active planner as a ROS node, swappable while running.

A latent triggers a plan; joint states and, for the scripted experts, the target are joined to it by stamp. In lockstep
the join is exact, so that an evaluation is reproducible whatever the order of arrival; in real time it is causal.
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
from vjepa_interfaces.alignment import StampRing
from vjepa_interfaces.bundle import is_bundle, read_bundle
from vjepa_interfaces.effort import EffortLimits
from vjepa_interfaces.errors import VjepaError, unknown_name
from vjepa_interfaces.joint_states import Added, JointStateRefusedError, JointStates
from vjepa_interfaces.json_text import parse_json
from vjepa_interfaces.managed_node import ERROR, OK, STEADY, WARN, ManagedNode, run
from vjepa_interfaces.messages import goal_of, latent_of
from vjepa_interfaces.parameters import read_parameters
from vjepa_interfaces.ros_subscriptions import MatchedSubscription
from vjepa_interfaces.stamps import begins_episode, set_stamp, to_nanoseconds
from vjepa_interfaces.statistics import Counts, Durations, Failure, RateMeter
from vjepa_planner.contract import GOAL, JOINT_STATE, TARGET, Observation, Plan, Planner, PlannerContext
from vjepa_planner.fallback import Decision, PlannerSupervisor
from vjepa_planner.planner_parameters import PlannerParameters
from vjepa_planner.registry import available, failures_named, load_class, load_planner
from vjepa_planner.reloading import Reloader

WATCHDOG_PERIOD_S = 0.05
PERIODS, FEWEST_PERIODS = 250, 50
"""Distances between the stamps of latents that are kept, and that are needed to say how far apart frames are."""
PERIOD_TOLERANCE = 0.1


class PlannerNode(ManagedNode):
    """`vjepa_planner`: the loaded planners, the one that drives, and the inputs waiting to be joined."""

    Parameters = PlannerParameters

    def __init__(self) -> None:
        self.option_prefixes = tuple(available())
        super().__init__("vjepa_planner")
        self._planners: dict[str, Planner] = {}
        self._unready: dict[str, str] = {}
        self._reloader = Reloader()
        self._subscriptions_made: list[MatchedSubscription] = []
        self._timer: Any = None
        self._encoder_info: dict[str, Any] | None = None

    def preload(self) -> None:
        """Import the modules of the planners asked for."""
        for name in (*self.get_parameter("planners").value, self.get_parameter("planner").value):
            with contextlib.suppress(VjepaError):
                load_class(name)

    def setup(self) -> None:
        """Load and warm every planner asked for, and make the endpoints."""
        parameters = self.parameters
        self._limits = EffortLimits(parameters.joint_names, parameters.effort_limit)
        self._load_planners()
        self._supervisor = PlannerSupervisor(self._planners, parameters, self._limits)
        self._driver = parameters.planner
        self._encoder_info = None
        # Held from now on: the first latents after an activation are of frames from before it.
        self._joints = JointStates(parameters.joint_names, parameters.derive_velocity, exact=parameters.lockstep)
        self._targets = StampRing()
        self._counts, self._failure = Counts(), Failure()
        self._command = self.publisher(JointState, topics.JOINT_COMMAND)
        self._active_planner = self.publisher(String, topics.ACTIVE_PLANNER)
        self._plan = self.publisher(String, topics.PLAN)
        self._subscriptions_made = [
            self.subscribe(String, topics.LATENT_INFO, self._on_latent_info),
            self.subscribe(JointState, topics.JOINT_STATES, self._on_joint_state),
            self.subscribe(Image, topics.GOAL, self._on_goal),
        ]
        if any(TARGET in planner.needs for planner in self._planners.values()):
            self._subscriptions_made.append(self.subscribe(PointStamped, topics.TARGET, self._on_target))
        self._subscriptions_made.append(self.subscribe(Image, topics.LATENT, self._on_latent))

    def _load_planners(self) -> None:
        parameters = self.parameters
        names = dict.fromkeys((*parameters.planners, parameters.planner))
        for name in (*names, *parameters.fallbacks):
            if name not in available():
                raise unknown_name("planner", name, available())
        self._reloader = Reloader()
        self._planner_context = PlannerContext.of(self._limits, parameters.control_period_s, parameters.device)
        self._planners, self._unready = {}, {}
        for name in names:
            with contextlib.suppress(VjepaError):  # Why it cannot be imported is said where it is loaded.
                self.declare_options(name, load_class(name).Config)
            try:
                self._planners[name] = load_planner(name, self.options(name), self._planner_context)
            except VjepaError as error:
                if name == parameters.planner:
                    raise
                self._unready[name] = str(error)
                self.get_logger().warning(f"planner '{name}' is not ready: {error}")
        for name in parameters.fallbacks:
            if name not in self._planners:
                reason = self._unready.get(name, "it is not loaded; name it in 'planners' too")
                self.get_logger().warning(f"fallback '{name}' is left out: {reason}")
        torch = sys.modules.get("torch")  # Only where a planner brought it.
        if torch and parameters.threads:  # Networks this small are slower by threads that wait for the encoder's.
            torch.set_num_threads(parameters.threads)

    def start(self) -> None:
        """Wait for the first latent."""
        self._counts = Counts()
        self._plan_time = Durations()
        self._rate = RateMeter()
        self._periods = Durations(PERIODS)
        self._goal: np.ndarray | None = None
        self._goal_ns = 0
        self._refused_goal = ""
        self._waiting: tuple[int, np.ndarray] | None = None
        self._answered: JointState | None = None
        self._novelty: float | None = None
        self._latent_ns: int | None = None
        self._latent_arrived_s = math.inf
        self._episode = -1
        self._failure = Failure()
        self._supervisor.begin()
        self._announce(self._supervisor.chosen)
        self._timer = self.create_timer(WATCHDOG_PERIOD_S, self._watch_latents, clock=STEADY)

    def stop(self) -> None:
        """Send zero torque: stamp 0, so that it never steps a lockstep simulation."""
        if self._timer is not None:
            self.destroy_timer(self._timer)
            self._timer = None
        self._send(np.zeros(len(self._limits.joint_names)), 0)

    def teardown(self) -> None:
        """Forget the planners, so that their device memory is freed."""
        self._reloader.close()
        self._planners.clear()  # In place: the supervisor has them too.
        self._unready.clear()
        for subscription in self._subscriptions_made:
            self.unsubscribe(subscription)
        if self._subscriptions_made:
            for publisher in (self._command, self._active_planner, self._plan):
                self.destroy_lifecycle_publisher(publisher)
        self._subscriptions_made = []

    # Swapping.

    def check_live_parameter(self, name: str, value: Any) -> None:
        """Refuse a planner that is not ready, or that was trained on another encoder."""
        renewed = self._reloader.ready(value)
        planner = self._planners.get(value) if renewed is None else renewed
        if planner is None:
            reason = f" ('{value}' is not ready: {self._unready[value]})" if value in self._unready else ""
            raise VjepaError(f"{unknown_name('planner', str(value), self._planners)}{reason}")
        if self._encoder_info is not None:
            with failures_named(f"planner '{value}' cannot tell whether it knows this encoder"):
                planner.check_encoder(self._encoder_info["fingerprint"], str(self._encoder_info.get("model", "")))

    def apply_live_parameter(self, name: str, value: Any) -> None:
        """Choose the planner that drives from the next tick on; the present one drives until then."""
        renewed = self._reloader.ready(value)
        if renewed is not None:
            self._renew(value, renewed)
        self._supervisor.choose(value)
        if not self.active:
            self._supervisor.begin()

    def check_live_options(self, prefix: str, options: dict[str, Any]) -> None:
        """Refuse options that the planner does not have, of another type or out of their range, or not a bundle."""
        if prefix not in self._planners:
            return
        loaded = self._planners[prefix].config
        config = read_parameters(type(loaded), options, "option", f"planner '{prefix}'")
        for name, value in vars(config).items():
            before = getattr(loaded, name)
            if isinstance(value, str) and value and value != before and is_bundle(before):
                read_bundle(value)

    def apply_live_options(self, prefix: str, options: dict[str, Any]) -> None:
        """Begin to load a planner anew with other options; it drives as it is until it is set again."""
        if prefix in self._planners:
            self._reloader.begin(prefix, options, self._planner_context)

    def _renew(self, name: str, planner: Planner) -> None:
        """Put a new instance in the place of planner `name`: no latent is being planned just now, one is at a time."""
        self._planners[name] = planner
        self._reloader.taken(name)
        self._supervisor.renew(name)
        if self.active and name == self._supervisor.chosen:
            self._counts["swaps"] += 1
            self.get_logger().info(f"planner '{name}' drives with its new options")

    def _announce(self, name: str) -> None:
        """Say who drives, at once: a fallback may be shorter than the second between two diagnostics."""
        self._driver = name
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
            self._waiting = (stamp_ns, latent_of(message))
        except VjepaError as error:
            self._begin_tick(stamp_ns)
            self._refuse(stamp_ns, str(error))
            return
        self._plan_if_complete()

    def _on_joint_state(self, message: JointState) -> None:
        try:
            needs_velocity = not self.parameters.derive_velocity
            added = self._joints.add(to_nanoseconds(message.header.stamp), message, needs_velocity)
        except JointStateRefusedError as error:
            self._counts["refused_joint_states"] += 1
            self._failure.begin(str(error))
            return
        if added == Added.OTHER_JOINTS:
            self._counts["other_joint_states"] += 1
            if JOINT_STATE in self._supervisor.needs and not self._joints.seen.any():
                names = ", ".join(message.name) or "(none)"
                self._failure.begin(f"joint states of {names}; expected {', '.join(self._limits.joint_names)}")
            return
        self._plan_if_complete()

    def _on_target(self, message: PointStamped) -> None:
        point = message.point
        self._targets.add(to_nanoseconds(message.header.stamp), np.array([point.x, point.y, point.z]))
        self._plan_if_complete()

    def _on_goal(self, message: Image) -> None:
        """Seek another goal from the next latent on; one that is refused leaves the goal as it is."""
        if not self.active:
            return
        stamp_ns = to_nanoseconds(message.header.stamp)
        try:
            if self._encoder_info is None:
                raise VjepaError(f"no message on {topics.LATENT_INFO.name} yet, so the goal's encoder is not checked")
            self._goal, self._goal_ns = goal_of(message, self._encoder_info), stamp_ns
            self._refused_goal = ""
        except VjepaError as error:
            self._counts["refused_goals"] += 1
            self._refused_goal = f"{stamp_ns}: {error}"
            self.get_logger().warning(f"goal refused: {error}")
        self.publish_diagnostics()

    def _on_latent_info(self, message: String) -> None:
        try:
            info = parse_json(message.data)
            fingerprint, _ = info["fingerprint"], info["shape"]
        except (ValueError, KeyError):
            self._failure.begin(f"latent_info is not JSON with fingerprint and shape: {message.data[:80]!r}")
            return
        if self.active and self._encoder_info is not None and self._encoder_info["fingerprint"] != fingerprint:
            self._goal = None  # It is the former encoder's.
        self._encoder_info = info
        self._plan_if_complete()

    # The tick: a latent with all it needs becomes a command.

    def _plan_if_complete(self) -> None:
        if not self.active or self._waiting is None:
            return
        stamp_ns, latent = self._waiting
        joints, target = self._joined(stamp_ns)
        if self.parameters.lockstep:
            needs = self._supervisor.needs
            missing = (JOINT_STATE in needs and joints is None) or (TARGET in needs and target is None)
            if missing or (self._supervisor.reads_latents and self._encoder_info is None):
                return
        self._waiting = None
        self._begin_tick(stamp_ns)
        position, velocity = (joints.position, joints.velocity) if joints is not None else (None, None)
        observation = Observation(
            stamp_ns=stamp_ns,
            latent=latent,
            joint_position=position,
            joint_velocity=velocity,
            target=target,
            goal=self._goal,
        )
        self._plan_and_send(observation)

    def _joined(self, stamp_ns: int) -> Any:
        if self.parameters.lockstep:
            return self._joints.at(stamp_ns), self._targets.at(stamp_ns)
        max_age_ns = int(self.parameters.joint_state_max_age_s * 1e9)
        return self._joints.at_or_before(stamp_ns, max_age_ns), self._targets.at_or_before(stamp_ns, max_age_ns)

    def _why_unjoined(self, observation: Observation) -> str:
        """Return why no joint state was joined to a latent whose planner needs one, or nothing."""
        if observation.joint_position is not None or JOINT_STATE not in self._supervisor.needs:
            return ""
        max_age_ns = int(self.parameters.joint_state_max_age_s * 1e9)
        why = self._joints.why_none(observation.stamp_ns, max_age_ns)
        return f" ({why}: joint_state_max_age_s)" if why else ""

    def _begin_tick(self, stamp_ns: int) -> None:
        begins = begins_episode(self._latent_ns, stamp_ns)
        if not begins and self._latent_ns is not None:
            self._periods.add((stamp_ns - self._latent_ns) * 1e-9)
        self._episode += begins
        self._latent_ns = stamp_ns
        if self._supervisor.begin_tick(self.parameters.seed + self._episode, begins):
            self._counts["swaps"] += 1
            self.get_logger().info(f"planner '{self._supervisor.chosen}' drives, '{self._driver}' drove")
            self._announce(self._supervisor.chosen)

    def _plan_and_send(self, observation: Observation) -> None:
        deadline_s = None if self.parameters.lockstep else self.parameters.control_period_s
        encoder = self._encoder_info or {"fingerprint": None}
        decision = self._supervisor.plan(observation, deadline_s, encoder["fingerprint"], str(encoder.get("model", "")))
        for raised in decision.tracebacks:
            self.get_logger().error(raised, throttle_duration_sec=1.0)
        if decision.refused:
            self._refuse(observation.stamp_ns, decision.refused + self._why_unjoined(observation))
            return
        self._plan_time.add(decision.planning_time_s)
        self._failure.end()
        self._novelty = decision.plan.novelty
        self._counts["novel_latents"] += self._novelty is not None and self._novelty > 1.0
        self._send(decision.effort, observation.stamp_ns)
        self._publish_plan(observation.stamp_ns, decision)
        if decision.planner != self._driver:
            if decision.fallback:
                change = f"{decision.fallback}: '{decision.planner}' drives"
                self.get_logger().warning(change, throttle_duration_sec=1.0)
            self._announce(decision.planner)

    def _refuse(self, stamp_ns: int, reason: str) -> None:
        """Answer a latent that no plan came of with zero torque, so that no stamp goes unanswered."""
        self._counts["refused_latents"] += 1
        self._failure.begin(reason)
        self.get_logger().error(f"latent refused: {reason}", throttle_duration_sec=1.0)
        zero = np.zeros(len(self._limits.joint_names))
        self._send(zero, stamp_ns)
        self._publish_plan(stamp_ns, Decision(self._supervisor.chosen, Plan(zero), zero, refused=reason))

    def _send(self, effort: np.ndarray, stamp_ns: int) -> None:
        command = JointState(name=list(self._limits.joint_names), effort=effort.tolist())
        set_stamp(command.header.stamp, stamp_ns)
        self._command.publish(command)
        if stamp_ns:
            self._answered = command
            self._counts["commands"] += 1
            self._rate.tick(time.monotonic())

    def _publish_plan(self, stamp_ns: int, decision: Decision) -> None:
        thought = {
            "stamp": stamp_ns,
            "planner": decision.planner,
            "cost": decision.plan.cost,
            "iterations": decision.plan.iterations,
            "planning_time_s": decision.planning_time_s,
            "disagreement": decision.plan.disagreement,
            "novelty": decision.plan.novelty,
        }
        if (imagined := decision.plan.imagined) is not None:
            thought["imagined"] = {"distance": imagined.distance.tolist(), "steps": imagined.steps}
        reasons = {"fallback": decision.fallback, "refused": decision.refused}
        thought |= {key: reason for key, reason in reasons.items() if reason}
        if self._goal is not None and GOAL in self._planners[decision.planner].needs:
            thought["goal"] = self._goal_ns
        self._plan.publish(String(data=json.dumps(thought)))

    def _watch_latents(self) -> None:
        """Send zero torque once when latents fall silent in real time."""
        silence = time.monotonic() - self._latent_arrived_s
        if not self.parameters.lockstep and silence > self.parameters.latent_timeout_s:
            self._counts["latent_timeouts"] += 1
            self._latent_arrived_s = math.inf
            self._failure.begin(f"no latent for {self.parameters.latent_timeout_s} s: torque is zero until one comes")
            self._send(np.zeros(len(self._limits.joint_names)), 0)

    @property
    def _seeks_goal(self) -> bool:
        return GOAL in self._planners[self._supervisor.chosen].needs

    def _other_speed(self, period_ms: float) -> str:
        """Say that the latents' frames are further apart than those that the chosen planner was trained on, or nearer.

        The median is that of the camera as long as perception leaves out fewer than half of its frames.
        """
        trained_s = self._planners[self._supervisor.chosen].trained_period_s
        if trained_s is None or not abs(period_ms / (trained_s * 1e3) - 1) > PERIOD_TOLERANCE:  # NaN where unknown.
            return ""
        return (
            f"latents of frames {period_ms:.1f} ms apart; planner '{self._supervisor.chosen}' was trained on frames "
            f"{trained_s * 1e3:g} ms apart"
        )

    def diagnose(self) -> tuple[bytes, str, dict[str, Any]]:
        """Say who drives, how long plans take, and what was refused."""
        supervisor = self._supervisor
        values: dict[str, Any] = {"planner": supervisor.chosen, "driving": supervisor.driving}
        values["ready"] = ", ".join(sorted(self._planners))
        values |= {f"not ready: {name}": reason for name, reason in self._unready.items()}
        values |= {f"new options: {name}": status for name, status in self._reloader.status().items()}
        if not self.active:
            return OK, "configured", values
        p50, p99 = self._plan_time.percentiles(50, 99)
        values |= {"rate_hz": self._rate.rate(time.monotonic()), "plan_p50_ms": p50, "plan_p99_ms": p99}
        (period_ms,) = self._periods.percentiles(50) if len(self._periods) >= FEWEST_PERIODS else (math.nan,)
        values["frame_period_ms"] = period_ms
        names = ("commands", "swaps", "repeated_latents", "refused_latents", "refused_joint_states")
        values |= {name: self._counts[name] for name in (*names, "other_joint_states", "latent_timeouts")}
        if self._novelty is not None:
            values |= {"novelty": self._novelty, "novel_latents": self._counts["novel_latents"]}
        values |= {name: supervisor.counts[name] for name in ("fallbacks", "fallback_commands", "missed_deadlines")}
        values |= {"goal": "none" if self._goal is None else self._goal_ns, "seeks_goal": self._seeks_goal}
        values |= {"refused_goals": self._counts["refused_goals"], "refused_goal": self._refused_goal}
        if supervisor.last_fallback:
            values["last_fallback"] = supervisor.last_fallback
        if failure := self._failure.say():
            return ERROR, failure, values
        if self._latent_ns is None:
            return WARN, "no latent yet", values
        if supervisor.message:
            return WARN, supervisor.message, values
        if speed := self._other_speed(period_ms):
            return WARN, speed, values
        if self._refused_goal:
            return WARN, f"goal refused: {self._refused_goal}", values
        if failures := self._reloader.failures():
            return WARN, "; ".join(f"{failure}; it drives as it was before" for failure in failures), values
        return OK, "planning", values


def main() -> None:
    """Run `vjepa_planner` until it is told to stop."""
    run(PlannerNode)
