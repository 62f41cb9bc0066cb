"""The node that alone sends torque to a real arm: commands in, guarded torques out at a fixed rate.

It is in this package so that the computer at the arm needs only this package, without torch and without a simulator.
`vjepa_interfaces.effort_guard` contains the rules. docs/real-arm.md explains its use and its limits.

A separate thread waits only for the switch and for the next tick. Each tick takes the waiting messages of the other
topics: at most as many as their queues hold, however fast a publisher sends.
"""

import contextlib
import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from typing import Any

from rclpy.duration import Duration
from rclpy.exceptions import InvalidHandle
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Joy
from std_msgs.msg import Float64MultiArray

from vjepa_interfaces import topics
from vjepa_interfaces.effort import CommandRefusedError
from vjepa_interfaces.effort_guard import COUNTED, EffortGuard, Publishers, boot_clock
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.guard_inputs import MAX_MESSAGES_HZ
from vjepa_interfaces.guard_parameters import GuardParameters
from vjepa_interfaces.managed_node import ERROR, OK, WARN, ManagedNode, Polled, run
from vjepa_interfaces.ros_subscriptions import MatchedSubscription
from vjepa_interfaces.shared_memory import no_shared_memory
from vjepa_interfaces.stamps import to_nanoseconds

ZERO_ACKNOWLEDGED_S = 0.2
"""How long a stopping node waits for its last zero torque to arrive."""
ENABLE_DEPTH = 50
JOINT_STATES_DEPTH = 16
MAX_MESSAGE_BYTES = 64 * 1024
"""The largest message that is deserialized, which takes time; a message of a thousand joints is smaller."""
REAL_TIME_PRIORITY = 50
"""The priority in SCHED_FIFO, as in ros2_control's controller manager, if the user may have it."""
SWITCH_INTERVAL_S = 0.001
"""How long a Python thread may block another one; the interpreter's default is 5 ms."""


class EffortGuardNode(ManagedNode):
    """`effort_guard`: one `EffortGuard` that gets every message and returns the allowed torque at a fixed rate."""

    Parameters = GuardParameters

    def __init__(self) -> None:
        with no_shared_memory():
            super().__init__("effort_guard")
        self._loop: threading.Thread | None = None
        self._polled = Polled()
        self._inputs: tuple[MatchedSubscription, ...] = ()
        self._stopping = threading.Event()
        self._wake: Any = None
        self._too_large = ""

    def setup(self) -> None:
        """Check the parameters and create the publisher and the subscriptions.

        Raises:
            VjepaError: the parameters contradict each other, or simulated time is used before a real arm.
        """
        parameters = self.parameters
        if self.get_parameter("use_sim_time").value and not parameters.simulated_arm:
            raise VjepaError(
                "use_sim_time is true before a real arm, whose age of commands simulated time cannot tell; set "
                "use_sim_time to false, or simulated_arm to true where the arm is simulated"
            )
        self._guard = EffortGuard(parameters, boot_clock, lambda: self.get_clock().now().nanoseconds)
        self._output = self.publisher(topics.EFFORT_ARRAY)
        depth = max(1, math.ceil(2 * MAX_MESSAGES_HZ / parameters.rate_hz))
        self._commands = self._input(topics.JOINT_COMMAND, depth)
        self._enables = self._input(topics.ENABLE, ENABLE_DEPTH)
        self._joint_states = self._input(topics.JOINT_STATES, JOINT_STATES_DEPTH)
        self._inputs = (self._commands, self._enables, self._joint_states)
        self._wake = self.create_guard_condition(lambda: None, self._polled)

    def _input(self, topic: topics.Topic, depth: int) -> MatchedSubscription:
        """Subscribe to a topic whose messages `_run` takes."""
        return self.subscribe(topic, lambda _: None, depth, callback_group=self._polled)

    def start(self) -> None:
        """Send zero torque at once, and then the torque that the guard allows."""
        for subscription in self._inputs:
            self._taken(subscription)  # Discards messages from before the activation.
        self._guard.begin()
        self._send(self._guard.output)
        self._stopping.clear()
        self._loop = threading.Thread(target=self._run_or_end, name="guard", daemon=True)
        self._loop.start()

    def stop(self) -> None:
        """Send zero torque, and wait a moment for it to arrive: the process may end right after."""
        self._stopping.set()
        if self._loop is not None:
            self._wake.trigger()
            self._loop.join()
            self._loop = None
        self._guard.begin()
        self._send(self._guard.output)
        self._output.wait_for_all_acked(Duration(seconds=ZERO_ACKNOWLEDGED_S))

    def teardown(self) -> None:
        """Free the endpoints."""
        if self._wake is not None:
            self.destroy_guard_condition(self._wake)
            self._wake = None

    def apply_live_parameter(self, name: str, value: Any) -> None:
        """Begin or end a dry run."""
        self._guard.set_dry_run(value)
        self.get_logger().warning(
            "dry run: zero torque goes out"
            if value
            else "the dry run has ended: torque goes out once the switch is released and pressed"
        )

    # The loop, in its thread.

    def _run_or_end(self) -> None:
        """Run; an exception sends zero torque and ends the process, so that the stack starts it again."""
        try:
            self._run()
        except Exception:
            self.get_logger().fatal(f"the guard's loop failed; this process ends\n{traceback.format_exc()}")
            self._send([0.0] * len(self.parameters.joint_names))
            self._output.wait_for_all_acked(Duration(seconds=ZERO_ACKNOWLEDGED_S))
            os._exit(1)

    def _run(self) -> None:
        period_s = 1.0 / self.parameters.rate_hz
        due = time.monotonic() + period_s
        waited_for = True
        while not self._stopping.is_set():
            self._wait(due - time.monotonic(), waited_for)
            if self._stopping.is_set():
                return
            messages = self._taken(self._enables)
            for message in messages:
                self._take_enable(message)
            # A flooding switch is read only on ticks, so that it leaves time for the rest of the process.
            waited_for = len(messages) < ENABLE_DEPTH
            now = time.monotonic()
            if now >= due:
                self._tick()
                due = max(due + period_s, now)

    def _wait(self, seconds: float, for_switch: bool) -> None:
        """Wait for a message of the switch, for `stop`, or until a tick is due."""
        if seconds <= 0:
            return
        wait_set = rclpy_implementation.WaitSet(1, 1, 0, 0, 0, 0, self.context.handle)
        wait_set.clear_entities()
        enables = self._enables.subscription.handle
        with enables, self._wake.handle:
            if for_switch:
                wait_set.add_subscription(enables)
            wait_set.add_guard_condition(self._wake.handle)
            wait_set.wait(int(seconds * 1e9))

    def _taken(self, matched: MatchedSubscription) -> list[Any]:
        """Return the waiting messages of a subscription, at most as many as its queue holds, the newest last.

        A message that is too large is dropped, and the messages after it wait for the next call.
        """
        messages: list[Any] = []
        subscription: Any = matched.subscription
        with contextlib.suppress(InvalidHandle), subscription.handle:  # `match` may replace the subscription meanwhile.
            while len(messages) < subscription.qos_profile.depth:
                taken = subscription.handle.take_message(subscription.msg_type, True)
                if taken is None:
                    break
                if len(taken[0]) > MAX_MESSAGE_BYTES:
                    self._guard.counts["too_large_messages"] += 1
                    self._too_large = f"a message of {len(taken[0])} bytes on {subscription.topic_name} was dropped"
                    break
                messages.append(deserialize_message(taken[0], subscription.msg_type))
        return messages

    def _take_enable(self, message: Joy) -> None:
        button = self.parameters.enable_button
        held = button < len(message.buttons) and message.buttons[button] == 1
        if self._guard.take_enable(held, to_nanoseconds(message.header.stamp)):
            self._send(self._guard.output)

    def _tick(self) -> None:
        commands, states = self._taken(self._commands), self._taken(self._joint_states)
        count = self.count_publishers
        self._guard.see_publishers(
            Publishers(
                count(self._commands.topic_name),
                count(self._enables.topic_name),
                count(self._joint_states.topic_name),
                count(self._output.topic_name),
            )
        )
        for message in states:
            self._guard.take_joint_state(
                message.name, message.position, message.velocity, to_nanoseconds(message.header.stamp)
            )
        for message in commands:
            try:
                self._guard.take_command(message.name, message.effort, to_nanoseconds(message.header.stamp))
            except CommandRefusedError as error:
                self.get_logger().warning(str(error), throttle_duration_sec=1.0)
        self._send(self._guard.tick())

    def _send(self, effort: Iterable[float]) -> None:
        self._output.publish(Float64MultiArray(data=list(effort)))

    def diagnose(self) -> tuple[bytes, str, dict[str, Any]]:
        """Return whether torque is sent and why not, and the counts of refused, clamped and slowed torques."""
        guard = self._guard
        values: dict[str, Any] = {"dry_run": guard.dry_run, "enabled": self.active and not guard.not_enabled}
        if not self.active:
            return OK, "configured", values
        dry = "dry run: set dry_run to false to send torque" if guard.dry_run else ""
        wrong = (guard.stopped_by, guard.not_enabled, guard.not_commanded)
        latched = f"release the switch and press it: {guard.latched}" if guard.latched and not any(wrong) else ""
        too_large, self._too_large = self._too_large, ""
        why_not = "; ".join(filter(None, (*wrong, latched, dry, *self.misfits, too_large)))
        values |= {"state": guard.state, "why_not": why_not, "priority": priority()}
        for key, effort in (("computed_efforts", guard.torque), ("output_efforts", guard.output)):
            values[key] = ", ".join(f"{value:.4f}" for value in effort)
        values["command_age_s"] = guard.command_age_s
        values["refused_command"] = guard.refused_command
        values["refused_joint_state"] = guard.refused_joint_state
        values |= {name: guard.counts[name] for name in COUNTED}
        level = ERROR if guard.stopped_by else WARN if why_not else OK
        return level, why_not or "driving", values


def ask_for_real_time() -> None:
    """Request a real-time priority for this process, before the middleware starts threads, which inherit it."""
    with contextlib.suppress(OSError):  # Without the permission, `priority` reports it.
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(REAL_TIME_PRIORITY))


def priority() -> str:
    """Return the priority of this process, for diagnostics."""
    if os.sched_getscheduler(0) == os.SCHED_FIFO:
        return f"real-time, SCHED_FIFO {os.sched_getparam(0).sched_priority}"
    return "normal: this user may not ask for a real-time priority (limits.conf: rtprio)"


def main() -> None:
    """Run `effort_guard` until it is told to stop."""
    ask_for_real_time()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    run(EffortGuardNode, SingleThreadedExecutor)  # The events executor would take the messages of `_run`.
