"""The ROS node of the simulated arm. It publishes camera, joints, clock and ground truth, and takes torque commands.

In real time, a steady timer steps the simulation, independently of the planner. In lockstep, the command that answers
the latest frame steps it. See docs/interface.md.
"""

import time
from collections.abc import Sequence
from typing import Any

from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import SetBool, Trigger

from sim_bridge.ros_score_publisher import PROGRESS_S
from sim_bridge.ros_step_publisher import StepPublisher
from sim_bridge.sim_parameters import SimParameters
from sim_bridge.step_loop import LockstepLoop, RealTimeLoop, StepLoop
from vjepa_interfaces import topics
from vjepa_interfaces.announcements import announcement_period_s
from vjepa_interfaces.effort import CommandRefusedError
from vjepa_interfaces.managed_node import OK, STEADY, WARN, ManagedNode, run
from vjepa_interfaces.ros_trace import TracePublisher
from vjepa_interfaces.stamps import to_nanoseconds

ENDPOINT_POLL_S = 0.02
MATCH_PATIENCE_S = 3.0
DISCOVERY_S = 0.5
"""The time of discovery beyond a period of announcements, seconds: the first announcement may be lost."""
SETTLED_S = 0.2
"""The time without a new subscription after which discovery has ended, seconds."""


class SimNode(ManagedNode):
    """The node `sim_bridge`: a `SimEnv` in a loop, its publishers and the endpoints of its commands."""

    Parameters = SimParameters

    def __init__(self) -> None:
        super().__init__("sim_bridge")
        self._discovered_s = time.monotonic() + announcement_period_s() + DISCOVERY_S
        self._env: Any = None  # A SimEnv; the choice of an OpenGL backend must come before its import.
        self._publisher: StepPublisher | None = None
        self._offered: tuple[Any, ...] = ()
        self._loop: StepLoop | None = None
        self._waiting: Any = None
        self._timer: Any = None
        self._progress: Any = None

    def preload(self) -> None:
        """Choose an OpenGL backend, and import the physics."""
        from sim_bridge.gl import choose_gl_backend

        choose_gl_backend()
        import dm_control.suite  # noqa: F401

        import sim_bridge.env  # noqa: F401

    def setup(self) -> None:
        """Create the environment, its renderer and all endpoints."""
        from sim_bridge.gl import choose_gl_backend

        self._gl_backend = choose_gl_backend()
        from sim_bridge.env import SimEnv

        self._env = SimEnv(self.parameters)
        self._env.render()
        self._publisher = StepPublisher(self, self._env)
        self._trace = TracePublisher(self)
        if self.parameters.command_input == "joint_command":
            self._commands = self.subscribe(topics.JOINT_COMMAND, self._on_joint_command)
        else:
            self._commands = self.subscribe(topics.EFFORT_ARRAY, self._on_effort_array)
        self._offered = (
            self.create_service(Trigger, "~/reset", self._on_reset),
            self.create_service(SetBool, "~/set_paused", self._on_set_paused),
        )

    def start(self) -> None:
        """Begin the first episode when every endpoint has matched."""
        assert self._publisher is not None
        loop = LockstepLoop if self.parameters.lockstep else RealTimeLoop
        self._loop = loop(
            self._env,
            self.parameters,
            self._publisher.publish,
            self.publish_diagnostics,
            on_answer=self._trace.publish if self._trace.is_on else None,
        )
        self._closable_s = self._changed_s = time.monotonic()
        self._subscribed = self._publisher.subscriptions
        self._waiting = self.create_timer(ENDPOINT_POLL_S, self._begin_when_matched, clock=STEADY)
        self._progress = self.create_timer(PROGRESS_S, self._publisher.scores.publish_progress, clock=STEADY)

    def stop(self) -> None:
        """Stop the simulation and leave `/clock`."""
        for timer in (self._waiting, self._timer, self._progress):
            if timer is not None:
                self.destroy_timer(timer)
        self._waiting = self._timer = self._progress = None
        if self._publisher is not None:
            self._publisher.clock.leave()

    def teardown(self) -> None:
        """Free the renderer and the endpoints."""
        if self._env is not None:
            self._env.close()
        for service in self._offered:
            self.destroy_service(service)
        self._env = self._publisher = self._loop = None
        self._offered = ()

    def _begin_when_matched(self) -> None:
        """Begin when no subscriber would miss the first frame: DDS drops messages before endpoints have matched.

        The node cannot wait for unknown subscribers, so it waits for discovery first: others have announced themselves,
        and no new subscription appears for `SETTLED_S`. The graph counts subscriptions of a killed process until its
        lease ends, and they never match. So when a camera subscriber and a command publisher exist, the node waits
        `MATCH_PATIENCE_S` for the others.
        """
        assert self._publisher is not None
        assert self._loop is not None
        now = time.monotonic()
        if (subscriptions := self._publisher.subscriptions) != self._subscribed:
            self._subscribed, self._changed_s = subscriptions, now
        is_closable = self._publisher.has_camera_subscriber and self.count_publishers(self._commands.topic_name) >= 1
        if not is_closable or now < max(self._discovered_s, self._changed_s + SETTLED_S):
            self._closable_s = now
            return
        if self._publisher.has_unmatched and now - self._closable_s < MATCH_PATIENCE_S:
            return
        self.destroy_timer(self._waiting)
        self._waiting = None
        if self.parameters.publish_clock:
            self._publisher.clock.take()
        self._timer = self.create_timer(self._loop.tick_period_s, self._loop.tick, clock=STEADY)
        self._loop.begin()

    # Commands.

    @property
    def _running(self) -> StepLoop | None:
        """The loop if the node is active and its first episode has begun, else None."""
        has_begun = self.active and self._loop is not None and self._loop.step is not None
        return self._loop if has_begun else None

    def _on_joint_command(self, message: JointState) -> None:
        self._take_command(message.name, message.effort, to_nanoseconds(message.header.stamp))

    def _on_effort_array(self, message: Float64MultiArray) -> None:
        """Apply efforts without a stamp as an answer to the latest frame."""
        step = self._loop.step if self._loop is not None else None
        self._take_command(None, message.data, step.stamp_ns if step is not None else 0)

    def _take_command(self, names: Sequence[str] | None, efforts: Sequence[float], stamp_ns: int) -> None:
        if (loop := self._running) is None:
            return
        try:
            loop.command(names, efforts, stamp_ns)
        except CommandRefusedError as error:
            self.get_logger().warning(str(error), throttle_duration_sec=1.0)

    # Services.

    def _on_reset(self, request: Any, response: Trigger.Response) -> Trigger.Response:
        """Begin the next episode at once."""
        loop = self._running
        response.success = loop is not None
        if loop is None:
            response.message = "sim_bridge is not running: activate it and wait for its first frame"
            return response
        loop.restart()
        assert loop.step is not None
        response.message = f"episode {loop.step.episode} begins"
        return response

    def _on_set_paused(self, request: Any, response: SetBool.Response) -> SetBool.Response:
        """Pause or continue the simulation."""
        response.success = self.active
        if not self.active:
            response.message = "sim_bridge is not active"
            return response
        assert self._loop is not None
        self._loop.set_paused(request.data)
        response.message = "paused" if request.data else "running"
        return response

    # Diagnostics.

    def diagnose(self) -> tuple[bytes, str, dict[str, Any]]:
        """Return level, message and values for diagnostics, such as the rates, latencies and counts of the loop."""
        values: dict[str, Any] = {"gl_backend": self._gl_backend}
        if self._loop is None or self._publisher is None:
            return OK, "configured", values
        self._publisher.clock.keep_one()
        troubles = [self.rivals_on(self._commands.topic_name), self._clock_trouble(self._publisher.clock.rival)]
        if self._waiting is None:
            troubles.append(self._loop.trouble())
        values |= {"lockstep": self.parameters.lockstep} | self._loop.values()
        if any(troubles):
            return WARN, "; ".join(filter(None, troubles)), values
        return OK, self._activity(self._loop), values

    def _activity(self, loop: StepLoop) -> str:
        if self._waiting is not None:
            return "waiting for a camera subscriber and a command publisher"
        if loop.is_finished:
            return "finished"
        return "paused" if loop.is_paused else "running"

    @staticmethod
    def _clock_trouble(rival: str) -> str:
        if not rival:
            return ""
        return (
            f"{rival} publishes {topics.CLOCK.name}, and this node leaves it to that one; give this stack a "
            "ROS_DOMAIN_ID of its own, or set publish_clock to false"
        )


def main() -> None:
    """Run `sim_bridge` until a signal stops it."""
    run(SimNode)
