"""The simulated arm as a ROS node: camera, joints, clock and ground truth out, torque commands in.

Two clocks: in real time a steady timer steps the simulation whatever the planner does; in lockstep the command that
answers the latest frame steps it. See docs/interface.md.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import PointStamped, Vector3Stamped
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import SetBool, Trigger

from sim_bridge.sim_parameters import SimParameters
from vjepa_interfaces import topics
from vjepa_interfaces.effort import CommandRefusedError
from vjepa_interfaces.image_codec import fill_image
from vjepa_interfaces.managed_node import OK, STEADY, WARN, ManagedNode, run
from vjepa_interfaces.messages import LAST, Timestep, fill_timestep
from vjepa_interfaces.ros_subscriptions import qos_profile
from vjepa_interfaces.stamps import set_stamp, to_nanoseconds
from vjepa_interfaces.statistics import Counts, Durations, RateMeter

ENDPOINT_POLL_S = 0.02
MATCH_PATIENCE_S = 3.0
DISCOVERY_S = 3.5
"""Until then the node may not know of everybody: Fast DDS repeats what is lost of discovery after 3 s."""
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


class SimNode(ManagedNode):
    """`sim_bridge`: owns one `SimEnv`, publishes each of its steps and applies the commands it receives."""

    Parameters = SimParameters

    def __init__(self) -> None:
        super().__init__("sim_bridge")
        self._discovered_s = time.monotonic() + DISCOVERY_S
        self._env: Any = None  # A SimEnv, whose import waits for the choice of an OpenGL backend.
        self._timer: Any = None
        self._waiting: Any = None
        self._counts: Any = None
        self._commands: Any = None
        self._outputs: tuple[Any, ...] = ()
        self._offered: tuple[Any, ...] = ()
        self._clock_output: Any = None

    def setup(self) -> None:
        """Build the environment and its renderer, and all endpoints."""
        from sim_bridge.gl import choose_gl_backend

        self._gl_backend = choose_gl_backend()
        from sim_bridge.env import SimEnv

        self._env = SimEnv(self.parameters)
        self._env.render()
        self._create_endpoints()

    def _create_endpoints(self) -> None:
        self._image = self.publisher(Image, topics.IMAGE)
        self._camera_info = self.publisher(CameraInfo, topics.CAMERA_INFO)
        self._joint_states = self.publisher(JointState, topics.JOINT_STATES)
        self._timestep = self.publisher(Vector3Stamped, topics.TIMESTEP)
        self._target = self.publisher(PointStamped, topics.TARGET)
        self._fingertip = self.publisher(PointStamped, topics.FINGERTIP)
        self._outputs = (
            self._image,
            self._camera_info,
            self._joint_states,
            self._timestep,
            self._target,
            self._fingertip,
        )
        if self.parameters.command_input == "joint_command":
            self._commands = self.subscribe(JointState, topics.JOINT_COMMAND, self._on_joint_command)
        else:
            self._commands = self.subscribe(Float64MultiArray, topics.EFFORT_ARRAY, self._on_effort_array)
        self._offered = (
            self.create_service(Trigger, "~/reset", self._on_reset),
            self.create_service(SetBool, "~/set_paused", self._on_set_paused),
        )

    def start(self) -> None:
        """Begin the first episode once every endpoint has matched."""
        self._counts = Counts()
        self._latency = Durations()
        self._response = Durations()
        self._command_age = Durations()
        self._rate = RateMeter()
        self._step: Any = None
        self._clock_rival = ""
        self._paused = False
        self._pending: np.ndarray | None = None
        self._finished = False
        self._answered_ns = 0
        self._applied_ns = 0
        self._heard_s = math.inf
        self._refusal, self._refused_s = "", -math.inf
        self._frame_times: dict[int, tuple[float, float]] = {}
        self._closable_s = time.monotonic()
        self._waiting = self.create_timer(ENDPOINT_POLL_S, self._begin_when_matched, clock=STEADY)

    def stop(self) -> None:
        """Stand still."""
        for timer in (self._waiting, self._timer):
            if timer is not None:
                self.destroy_timer(timer)
        self._waiting = self._timer = None
        self._leave_clock()

    def teardown(self) -> None:
        """Free the renderer and the endpoints."""
        if self._env is not None:
            self._env.close()
            self._env = None
        for publisher in self._outputs:
            self.destroy_lifecycle_publisher(publisher)
        for service in self._offered:
            self.destroy_service(service)
        if self._commands is not None:
            self.unsubscribe(self._commands)
        self._outputs = self._offered = ()
        self._counts = self._commands = None

    # The way of a step.

    def _begin_when_matched(self) -> None:
        """Wait until nobody would miss the first frame: DDS drops what is sent before endpoints have matched.

        Whom the node does not know of yet it cannot wait for, so discovery must have had its time. The graph still
        counts the subscriptions of a process that was killed until its lease ends, and they never match: so once the
        loop can close, the rest is waited for only for a while.
        """
        now = time.monotonic()
        closable = self._image.get_subscription_count() >= 1 and self.count_publishers(self._commands.topic_name) >= 1
        if not closable or now < self._discovered_s:
            self._closable_s = now
            return
        unmatched = any(p.get_subscription_count() < self.count_subscribers(p.topic_name) for p in self._outputs)
        if unmatched and now - self._closable_s < MATCH_PATIENCE_S:
            return
        self.destroy_timer(self._waiting)
        self._waiting = None
        self._heard_s = now
        self._take_clock()
        if self.parameters.lockstep:
            self._timer = self.create_timer(self.parameters.lockstep_retry_s / 4, self._resend, clock=STEADY)
            self._begin_episode()
        else:
            period_s = self._env.control_period_s / self.parameters.playback_speed
            self._timer = self.create_timer(period_s, self._tick, clock=STEADY)

    def _take_clock(self) -> None:
        """Publish `/clock`, of which a ROS domain has one, unless another node does already."""
        self._clock_rival = self._other_clock()
        if self.parameters.publish_clock and not self._clock_rival:
            self._clock_output = self.create_publisher(Clock, topics.CLOCK.name, qos_profile(topics.CLOCK))

    def _leave_clock(self) -> None:
        if self._clock_output is not None:
            self.destroy_publisher(self._clock_output)
            self._clock_output = None

    def _other_clock(self) -> str:
        """Return the name of another node that publishes `/clock`, or nothing."""
        infos = self.get_publishers_info_by_topic(topics.CLOCK.name)
        names = {f"{info.node_namespace.rstrip('/')}/{info.node_name}" for info in infos}
        return min(names - {self.get_fully_qualified_name()}, default="")

    def _keep_one_clock(self) -> None:
        """Take `/clock` over where its owner has gone.

        Where two simulations took it at the same time, leave it to the one whose name comes first.
        """
        if self._clock_output is None:
            if self._clock_rival:
                self._take_clock()
                if not self._clock_rival:
                    self.get_logger().warning("the node that published /clock is gone; this one goes on with its own")
            return
        other = self._other_clock()
        if other and other < self.get_fully_qualified_name():
            self._clock_rival = other
            self._leave_clock()

    def _begin_episode(self) -> None:
        self._frame_times.clear()
        # No torque until the episode's first command; the silence counts from the last one of the episode before.
        self._command = (np.zeros(len(self._env.limits.joint_names)), 0, self._heard_s)
        self._show(self._env.reset)
        self._episode_ns = self._step.stamp_ns
        self._counts["episodes"] += 1

    def _show(self, advance: Callable[[], Any]) -> None:
        """Advance the environment and publish what it became; the frame-to-torque time starts here."""
        started = time.monotonic()
        self._step = advance()
        self._frame = self._env.render()
        self._counts["frames"] += 1
        self._rate.tick(started)
        self._publish()
        self._frame_times[self._step.stamp_ns] = (started, self._sent_s)
        if self._step.step_type == LAST:
            self.publish_diagnostics()

    def _publish(self) -> None:
        step = self._step
        # What a planner joins to the latent, then the image; the rest arrives while that is being encoded.
        joints = JointState(name=list(self._env.limits.joint_names))
        set_stamp(joints.header.stamp, step.stamp_ns)
        joints.position = step.joint_position.tolist()
        joints.velocity = step.joint_velocity.tolist()
        joints.effort = step.joint_effort.tolist()
        self._joint_states.publish(joints)
        self._publish_point(self._target, step.target)
        image = Image()
        image.header.frame_id = topics.CAMERA_FRAME
        set_stamp(image.header.stamp, step.stamp_ns)
        fill_image(image, self._frame)
        self._sent_s = time.monotonic()
        self._image.publish(image)
        if self._clock_output is not None:
            clock = Clock()
            set_stamp(clock.clock, step.stamp_ns)
            self._clock_output.publish(clock)
        self._publish_point(self._fingertip, step.fingertip)
        timestep = Vector3Stamped()
        set_stamp(timestep.header.stamp, step.stamp_ns)
        fill_timestep(timestep, Timestep(step.reward, step.discount, step.step_type))
        self._timestep.publish(timestep)
        self._camera_info.publish(self._camera_info_message(image))

    def _publish_point(self, publisher: Any, position: np.ndarray) -> None:
        point = PointStamped()
        point.header.frame_id = topics.WORLD_FRAME
        set_stamp(point.header.stamp, self._step.stamp_ns)
        point.point.x, point.point.y, point.point.z = map(float, position)
        publisher.publish(point)

    def _camera_info_message(self, image: Image) -> CameraInfo:
        info = CameraInfo(header=image.header, height=image.height, width=image.width)
        info.distortion_model = "plumb_bob"
        info.d = [0.0] * 5
        focal = self._env.focal_length_px
        cx, cy = image.width / 2, image.height / 2
        info.k = [focal, 0.0, cx, 0.0, focal, cy, 0.0, 0.0, 1.0]
        info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        info.p = [focal, 0.0, cx, 0.0, 0.0, focal, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
        return info

    def _tick(self) -> None:
        """One control step in real time."""
        if self._paused or self._finished:
            return
        if self._step is None:
            self._begin_episode()
        elif self._step.step_type == LAST:
            self._end_episode()
        else:
            effort, stamp_ns, arrived_s = self._command
            self._counts["steps"] += 1
            if stamp_ns > self._applied_ns:
                self._applied_ns = stamp_ns
            else:
                self._counts["stale_steps"] += 1
            if time.monotonic() - arrived_s > self.parameters.command_timeout_s:
                effort = np.zeros_like(effort)
                self._counts["timeout_steps"] += 1
            elif stamp_ns:
                self._command_age.add((self._step.stamp_ns - stamp_ns) * 1e-9)
            self._show(lambda: self._env.step(effort))

    def _end_episode(self) -> None:
        if self.parameters.episodes and self._counts["episodes"] >= self.parameters.episodes:
            self._finished = True
            self.publish_diagnostics()
        else:
            self._begin_episode()

    def _resend(self) -> None:
        """Send an unanswered frame again, same stamp: a lost message or a restarted node never ends the run."""
        silence_s = time.monotonic() - self._sent_s
        if not self._paused and not self._finished and silence_s >= self.parameters.lockstep_retry_s:
            self._counts["resent_frames"] += 1
            self._publish()

    def _answer(self, effort: np.ndarray) -> None:
        """Step in lockstep with the command that answers the latest frame."""
        if self._step.step_type == LAST:
            self._end_episode()
        else:
            self._counts["steps"] += 1
            self._show(lambda: self._env.step(effort))

    # Commands.

    def _on_joint_command(self, message: JointState) -> None:
        self._take_command(message.name, message.effort, to_nanoseconds(message.header.stamp))

    def _on_effort_array(self, message: Float64MultiArray) -> None:
        stamp_ns = self._step.stamp_ns if self.active and self._step is not None else 0
        self._take_command(None, message.data, stamp_ns)

    def _take_command(self, names: Sequence[str] | None, values: Sequence[float], stamp_ns: int) -> None:
        now = time.monotonic()
        if not self.active or self._step is None:
            return
        self._counts["commands"] += 1
        try:
            effort, clamped = self._env.limits.checked(names, values)
            if stamp_ns == 0 and effort.any():
                raise CommandRefusedError("command has torque and stamp 0; expected the stamp of the frame it answers")
        except CommandRefusedError as error:
            self._counts["refused_commands"] += 1
            self._refusal, self._refused_s = str(error), now
            self.get_logger().warning(str(error), throttle_duration_sec=1.0)
            return
        self._counts["clamped_commands"] += clamped
        if stamp_ns in self._frame_times:
            self._counts["answered_frames"] += 1
            started, sent = self._frame_times.pop(stamp_ns)
            self._latency.add(now - started)
            self._response.add(now - sent)
        if self.parameters.lockstep:
            self._take_lockstep_command(effort, stamp_ns)
        else:
            self._take_real_time_command(effort, stamp_ns, now)

    def _take_lockstep_command(self, effort: np.ndarray, stamp_ns: int) -> None:
        if stamp_ns != self._step.stamp_ns or stamp_ns <= self._answered_ns:
            self._counts["old_commands"] += 1
            return
        self._answered_ns = stamp_ns
        self._heard_s = time.monotonic()
        if self._paused:
            self._pending = effort
        else:
            self._answer(effort)

    def _take_real_time_command(self, effort: np.ndarray, stamp_ns: int, now: float) -> None:
        if stamp_ns == 0:  # A deactivated planner's zeros: they hold until a newer command, and never count as fresh.
            self._command = (effort, 0, now)
        elif max(self._command[1], self._episode_ns) <= stamp_ns <= self._step.stamp_ns:
            self._command = (effort, stamp_ns, now)
            self._heard_s = now
        else:
            self._counts["old_commands"] += 1

    # Services.

    def _on_reset(self, request: Any, response: Trigger.Response) -> Trigger.Response:
        """Begin the next episode at once."""
        response.success = self.active and self._step is not None
        if response.success:
            self._pending = None
            self._finished = False
            self._begin_episode()
            response.message = f"episode {self._step.episode} begins"
        else:
            response.message = "sim_bridge is not running: activate it and wait for its first frame"
        return response

    def _on_set_paused(self, request: Any, response: SetBool.Response) -> SetBool.Response:
        """Hold the simulation still, or let it go on."""
        response.success = self.active
        if not self.active:
            response.message = "sim_bridge is not active"
            return response
        self._paused = request.data
        response.message = "paused" if self._paused else "running"
        if not self._paused and self._pending is not None:
            effort, self._pending = self._pending, None
            self._answer(effort)
        return response

    # Diagnostics.

    def _state(self, now: float) -> tuple[bytes, str]:
        """Return what the simulation does, as level and message: a warning where commands fail to come."""
        if self._waiting is not None:
            return OK, "waiting for a camera subscriber and a command publisher"
        if self._finished:
            return OK, "finished"
        if self._paused:
            return OK, "paused"
        refusal = f"refused: {self._refusal}" if now - self._refused_s < REFUSAL_SHOWN_S else ""
        silence_s = now - self._heard_s
        silence = ""
        if self.parameters.lockstep and silence_s > self.parameters.lockstep_retry_s:
            silence = f"no answer to the latest frame for {silence_s:.1f} s: it is sent again and again"
        elif not self.parameters.lockstep and silence_s > self.parameters.command_timeout_s:
            silence = f"no command for {silence_s:.1f} s: torque is zero"
        troubles = "; ".join(filter(None, (silence, refusal)))
        return (WARN, troubles) if troubles else (OK, "running")

    def diagnose(self) -> tuple[bytes, str, dict[str, Any]]:
        """Say how the loop does: rates, latencies, and what was refused, clamped, stale or never answered."""
        if self._counts is None:
            return OK, "configured", {"gl_backend": self._gl_backend}
        now = time.monotonic()
        p50, p99 = self._latency.percentiles(50, 99)
        response_p50, response_p99 = self._response.percentiles(50, 99)
        age_p50, age_p99 = self._command_age.percentiles(50, 99)
        period_ms = 1e3 * self._env.control_period_s
        level, message = self._state(now)
        self._keep_one_clock()
        if self.parameters.publish_clock and self._clock_rival:
            rival = (
                f"{self._clock_rival} publishes {topics.CLOCK.name}, and this node leaves it to that one; give this "
                "stack a ROS_DOMAIN_ID of its own, or set publish_clock to false"
            )
            level, message = WARN, rival if level == OK else f"{rival}; {message}"
        if rivals := self.rivals_on(self._commands.topic_name):
            level, message = WARN, rivals if level == OK else f"{rivals}; {message}"
        values = {
            "lockstep": self.parameters.lockstep,
            "gl_backend": self._gl_backend,
            "achieved_rate_hz": self._rate.rate(now),
            "latency_p50_ms": p50,
            "latency_p99_ms": p99,
            "response_p50_ms": response_p50,
            "response_p99_ms": response_p99,
            "command_age_p50_periods": age_p50 / period_ms,
            "command_age_p99_periods": age_p99 / period_ms,
        }
        values |= {name: self._counts[name] for name in COUNTED}
        return level, message, values


def main() -> None:
    """Run `sim_bridge` until it is told to stop."""
    run(SimNode)
