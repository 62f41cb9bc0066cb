"""The only road to a real arm, as a process of its own: commands in, guarded torques out at a fixed rate.

It lies in this package so that the computer at the arm needs this package alone, without torch and without a simulator.
What it decides is in `vjepa_interfaces.effort_guard`; how to use it, and what it cannot do, in docs/real-arm.md.
"""

import sys
from typing import Any

from rclpy.duration import Duration
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64MultiArray

from vjepa_interfaces import topics
from vjepa_interfaces.effort import CommandRefusedError
from vjepa_interfaces.effort_guard import COUNTED, EffortGuard, GuardParameters
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.managed_node import OK, STEADY, WARN, ManagedNode, run

ZERO_ACKNOWLEDGED_S = 0.2
"""How long the last zero torque of a node that stops is waited for to arrive."""


class EffortGuardNode(ManagedNode):
    """`effort_guard`: one `EffortGuard`, told what arrives and asked on a steady timer what may go out."""

    Parameters = GuardParameters
    live_parameters = frozenset({"dry_run"})

    def __init__(self):
        super().__init__("effort_guard")
        self._output: Any = None
        self._timer: Any = None
        self._inputs: tuple = ()

    def setup(self) -> None:
        """Check the parameters and make the endpoints."""
        self._guard = EffortGuard(self.parameters)
        self._output = self.publisher(Float64MultiArray, topics.EFFORT_ARRAY)
        self._commands = self.subscribe(JointState, topics.JOINT_COMMAND, self._on_command)
        self._enables = self.subscribe(Bool, topics.ENABLE, self._on_enable)
        self._inputs = (
            self._commands,
            self._enables,
            self.subscribe(JointState, topics.JOINT_STATES, self._on_joint_state),
        )

    def start(self) -> None:
        """Send zero torque at once, and then what the guard allows."""
        self._guard.begin()
        self._send(self._guard.output)
        self._timer = self.create_timer(1.0 / self.parameters.rate_hz, self._tick, clock=STEADY)

    def stop(self) -> None:
        """Send zero torque, and wait a moment for it to arrive: the process may end right after."""
        self._guard.begin()
        self._send(self._guard.output)
        if self._timer is not None:
            self.destroy_timer(self._timer)
            self._timer = None
        self._output.wait_for_all_acked(Duration(seconds=ZERO_ACKNOWLEDGED_S))

    def teardown(self) -> None:
        """Free the endpoints."""
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        if self._output is not None:
            self.destroy_lifecycle_publisher(self._output)
        self._output, self._inputs = None, ()

    def set_live_parameter(self, name: str, value) -> None:
        """Begin or end a dry run."""
        if not isinstance(value, bool):
            raise VjepaError(f"{name} is {value!r}; expected true or false")
        self._guard.set_dry_run(value)
        self.get_logger().warning(
            "dry run: zero torque goes out" if value else "the dry run has ended: torque goes out"
        )

    def _on_command(self, message: JointState) -> None:
        if not self.active:
            return
        self._look_for_rivals()  # Before every message, so that not even the first one of a second publisher is taken.
        try:
            self._guard.take_command(message.name, message.effort)
        except CommandRefusedError as error:
            self.get_logger().warning(str(error), throttle_duration_sec=1.0)

    def _on_enable(self, message: Bool) -> None:
        if self.active:
            self._look_for_rivals()
            self._guard.take_enable(message.data)

    def _on_joint_state(self, message: JointState) -> None:
        if self.active:
            self._guard.take_joint_state(message.name, message.velocity)

    def _tick(self) -> None:
        self._look_for_rivals()
        self._send(self._guard.tick())

    def _look_for_rivals(self) -> None:
        count = self.count_publishers
        self._guard.see_publishers(count(self._commands.topic_name), count(self._enables.topic_name))

    def _send(self, effort) -> None:
        self._output.publish(Float64MultiArray(data=effort.tolist()))

    def diagnose(self):
        """Say whether torque goes out and why not, and what was refused, clamped and slowed down."""
        guard = self._guard
        values: dict[str, Any] = {"dry_run": guard.dry_run, "enabled": self.active and not guard.not_enabled}
        if not self.active:
            return OK, "configured", values
        dry = "dry run: set dry_run to false to send torque" if guard.dry_run else ""
        why_not = "; ".join(filter(None, (guard.not_enabled, guard.not_commanded, dry)))
        values["why_not"] = why_not
        for key, effort in (("computed_efforts", guard.torque), ("output_efforts", guard.output)):
            values[key] = ", ".join(f"{value:.4f}" for value in effort)
        values["command_age_s"] = guard.command_age_s
        values |= {name: guard.counts[name] for name in COUNTED}
        return (WARN, why_not, values) if why_not else (OK, "driving", values)


def main() -> None:
    """Run `effort_guard` until it is told to stop."""
    sys.exit(run(EffortGuardNode))
