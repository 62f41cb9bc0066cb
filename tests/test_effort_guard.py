"""The guard as a process between a commander and the simulated arm: what reaches the arm, and when."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic as now

import pytest
from lifecycle_msgs.msg import Transition
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64MultiArray

from vjepa_bringup import run_graph
from vjepa_bringup.graph import build_graph
from vjepa_interfaces import topics

pytestmark = pytest.mark.faults

ROOT = Path(__file__).resolve().parents[1]
TORQUE, ZERO = [0.02, -0.01], [0.0, 0.0]
COMMAND_TIMEOUT_S = 0.2
SLACK_S = 0.15
"""Of a busy machine: two ticks of the guard would do on an idle one."""

COMMANDER = f"""
import rclpy
from sensor_msgs.msg import JointState
rclpy.init()
node = rclpy.create_node("commander")
publisher = node.create_publisher(JointState, "{topics.JOINT_COMMAND.name}", 10)
command = JointState(name=["shoulder", "wrist"], effort={TORQUE})
node.create_timer(0.02, lambda: publisher.publish(command))
rclpy.spin(node)
"""


class Arm:
    """The simulated arm behind a guard, a commander in a process of its own, and the test's hand on the switch."""

    def __init__(self, stack):
        self.stack = stack
        self.holding = False
        stack.tap(topics.IMAGE)  # The simulation begins once somebody looks.
        self.joints = stack.tap(topics.JOINT_STATES)
        self.outputs: list[tuple[float, list[float]]] = []
        self.commands: list[float] = []
        self._listen(Float64MultiArray, topics.EFFORT_ARRAY, lambda m: self.outputs.append((now(), list(m.data))))
        self._listen(JointState, topics.JOINT_COMMAND, lambda _: self.commands.append(now()))
        self._switch = stack.publisher(topics.ENABLE)
        stack.node.create_timer(0.05, lambda: self.holding and self._switch.publish(Bool(data=True)))
        environment = {**os.environ, "ROS_DOMAIN_ID": str(stack.domain)}
        self.commander = subprocess.Popen([sys.executable, "-P", "-c", COMMANDER], env=environment)

    def _listen(self, kind, topic, callback):
        self.stack.node.create_subscription(kind, topic.name, callback, 1000)

    def let_go(self):
        self.holding = False
        self._switch.publish(Bool(data=False))

    def set_dry_run(self, dry_run):
        assert self.stack.set_parameter("effort_guard", "dry_run", dry_run).successful

    def wait_for_output(self, expected):
        """Wait for a torque that is sent from now on."""
        seen = len(self.outputs)
        self.stack.wait_for(lambda: expected in [effort for _, effort in self.outputs[seen:]], f"output {expected}")

    def wait_for_message(self, words):
        said = lambda: self.stack.monitor.diagnostics.get("effort_guard", (b"", "", {}))  # noqa: E731
        self.stack.wait_for(lambda: words in said()[1], f"the guard to say '{words}'")
        return said()[2]


@pytest.fixture
def arm(start_stack, monkeypatch):
    def without_perception_and_planner(options):
        nodes = {node.name: node for node in build_graph(options)}
        nodes["stack_manager"].parameters["managed_nodes"] = ["sim_bridge", "effort_guard"]
        return [nodes[name] for name in ("sim_bridge", "effort_guard", "stack_manager")]

    monkeypatch.setattr(run_graph, "build_graph", without_perception_and_planner)
    arm = Arm(start_stack(guard=True, episode_steps=100_000))
    yield arm
    arm.commander.kill()
    arm.commander.wait()


def test_the_arm_moves_only_while_enabled_not_dry_and_commanded_by_one(arm):
    arm.stack.wait_for(lambda: arm.commands and arm.joints.messages, "the commander and the arm")
    arm.wait_for_output(ZERO)
    assert arm.wait_for_message("not enabled")["enabled"] == "False"

    arm.holding = True
    shown = arm.wait_for_message("dry run")
    arm.stack.wait_for(lambda: arm.wait_for_message("dry run")["computed_efforts"] == "0.0200, -0.0100", "the torque")
    documented = (ROOT / "docs/interface.md").read_text().partition("### `effort_guard`")[2].partition("\n### ")[0]
    assert [key for key in shown if f"`{key}`" not in documented] == []
    assert shown["output_efforts"] == "0.0000, 0.0000"
    assert {tuple(effort) for _, effort in arm.outputs} == {tuple(ZERO)}

    arm.set_dry_run(False)
    arm.wait_for_output(TORQUE)
    arm.stack.wait_for(lambda: list(arm.joints.messages[-1].effort) == TORQUE, "the torque at the arm")
    start = list(arm.joints.messages[-1].position)
    arm.stack.wait_for(lambda: list(arm.joints.messages[-1].position) != start, "the arm to move")

    arm.let_go()
    arm.wait_for_output(ZERO)
    arm.holding = True
    arm.wait_for_output(TORQUE)

    rival = arm.stack.publisher(topics.JOINT_COMMAND)
    arm.wait_for_output(ZERO)
    arm.wait_for_message("2 publishers of commands")
    arm.stack.node.destroy_publisher(rival)
    arm.wait_for_output(TORQUE)

    arm.commander.kill()
    arm.commander.wait()
    arm.wait_for_output(ZERO)
    silent_s = arm.commands[-1]
    stopped_s = next(arrived for arrived, effort in arm.outputs if arrived > silent_s and effort == ZERO)
    assert stopped_s - silent_s < COMMAND_TIMEOUT_S + SLACK_S
    arm.stack.wait_for(lambda: list(arm.joints.messages[-1].effort) == ZERO, "zero torque at the arm")
    arm.wait_for_message("no command within 0.2 s")


def test_the_last_word_of_a_guard_that_ends_is_zero_and_a_new_one_begins_with_a_dry_run(arm):
    arm.holding = True
    arm.stack.wait_for(lambda: arm.joints.messages, "the arm")
    (child,) = [c for c in arm.stack.supervisor.children if c.node.name == "effort_guard"]
    for number in (signal.SIGINT, signal.SIGTERM):
        arm.wait_for_message("dry run")
        arm.set_dry_run(False)
        arm.wait_for_output(TORQUE)
        if number == signal.SIGTERM:  # The stack manager activates a deactivated node again.
            assert arm.stack.transition("effort_guard", Transition.TRANSITION_DEACTIVATE)
            arm.wait_for_output(ZERO)
            arm.wait_for_output(TORQUE)
        arm.stack.monitor.diagnostics.clear()
        child.process.send_signal(number)
        assert arm.stack.monitor.wait_until(lambda: child.process.poll() is not None, 10.0)
        assert child.process.returncode == 0
        arm.stack.monitor.spin(0.2)
        assert arm.outputs[-1][1] == ZERO

    arm.wait_for_message("dry run")
    arm.set_dry_run(False)
    arm.wait_for_output(TORQUE)
    child.process.kill()  # It has no last word then: the simulated arm's own watchdog has.
    child.process.wait()
    arm.stack.wait_for(lambda: list(arm.joints.messages[-1].effort) == ZERO, "zero torque at the arm")
