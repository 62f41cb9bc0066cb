"""The guard in a stack, between a commander and the simulated arm: what reaches the arm, and when.

What each fault does to a guard alone is in tests/faults/test_guard.py.
"""

import os
import subprocess
import sys
from pathlib import Path
from time import monotonic as now

import numpy as np
import pytest
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from vjepa_bringup import run_graph
from vjepa_bringup.graph import build_graph
from vjepa_interfaces import topics
from vjepa_interfaces.managed_node import qos_profile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.guard_rig import Rig

pytestmark = [pytest.mark.faults, pytest.mark.real_time]

ROOT = Path(__file__).resolve().parents[1]
TORQUE, ZERO = [0.02, -0.01], [0.0, 0.0]
WRIST_END = 2.792526803190927
"""rad, of the reacher's URDF."""

COMMANDER = f"""
import rclpy
from sensor_msgs.msg import JointState
from rosgraph_msgs.msg import Clock
rclpy.init()
node = rclpy.create_node("commander")
publisher = node.create_publisher(JointState, "{topics.JOINT_COMMAND.name}", 10)
def answer(clock):
    command = JointState(name=["shoulder", "wrist"], effort={TORQUE})
    command.header.stamp = clock.clock
    publisher.publish(command)
node.create_subscription(Clock, "/clock", answer, 10)
rclpy.spin(node)
"""


class Arm:
    """The simulated arm behind a guard, a commander in a process of its own, and the test's hand on the switch."""

    def __init__(self, stack, hand):
        self.stack, self.hand = stack, hand
        stack.tap(topics.IMAGE)  # The simulation begins once somebody looks.
        self.joints = stack.tap(topics.JOINT_STATES)
        self.outputs: list[tuple[float, list[float]]] = []
        self.commands: list[float] = []
        self._listen(Float64MultiArray, topics.EFFORT_ARRAY, lambda m: self.outputs.append((now(), list(m.data))))
        self._listen(JointState, topics.JOINT_COMMAND, lambda _: self.commands.append(now()))
        environment = {**os.environ, "ROS_DOMAIN_ID": str(stack.domain)}
        self.commander = subprocess.Popen([sys.executable, "-P", "-c", COMMANDER], env=environment)

    def _listen(self, kind, topic, callback):
        self.stack.node.create_subscription(kind, topic.name, callback, 1000)

    def drive(self):
        """Press until the torque that is commanded goes out."""
        self.hand.press_until(
            lambda pressed: any(at > pressed and effort == TORQUE for at, effort in self.outputs[-20:]),
            "the torque that is commanded",
        )

    def wait_for_output(self, expected):
        """Wait for a torque that is sent from now on."""
        seen = len(self.outputs)
        self.stack.wait_for(lambda: expected in [effort for _, effort in self.outputs[seen:]], f"output {expected}")

    def wait_for_message(self, words):
        said = lambda: self.stack.monitor.diagnostics.get("effort_guard", (b"", "", {}))  # noqa: E731
        self.stack.wait_for(lambda: words in said()[1], f"the guard to state '{words}'")
        return said()[2]


@pytest.fixture
def arm(start_stack, hand_of, monkeypatch):
    def without_perception_and_planner(options):
        nodes = {node.name: node for node in build_graph(options)}
        nodes["stack_manager"].parameters["managed_nodes"] = ["sim_bridge", "effort_guard"]
        return [nodes[name] for name in ("sim_bridge", "effort_guard", "stack_manager")]

    monkeypatch.setattr(run_graph, "build_graph", without_perception_and_planner)
    stack = start_stack(guard=True, episode_steps=100_000)
    arm = Arm(stack, hand_of(stack))
    yield arm
    arm.commander.kill()
    arm.commander.wait()


def test_the_arm_moves_only_while_enabled_not_dry_and_commanded(arm):
    arm.stack.wait_for(lambda: arm.commands and arm.joints.messages, "the commander and the arm")
    arm.wait_for_output(ZERO)
    assert arm.wait_for_message("not enabled")["enabled"] == "False"

    arm.hand.press()
    arm.wait_for_message("dry run")
    arm.stack.wait_for(lambda: arm.wait_for_message("dry run")["computed_efforts"] == "0.0200, -0.0100", "the torque")
    shown = arm.wait_for_message("dry run")
    documented = (ROOT / "docs/interface.md").read_text().partition("### `effort_guard`")[2].partition("\n### ")[0]
    assert [key for key in shown if f"`{key}`" not in documented] == []
    assert shown["output_efforts"] == "0.0000, 0.0000"
    assert {tuple(effort) for _, effort in arm.outputs} == {tuple(ZERO)}

    assert arm.stack.set_parameter("effort_guard", "dry_run", False).successful
    arm.wait_for_message("release the switch and press it: the dry run has ended")
    assert {tuple(effort) for _, effort in arm.outputs} == {tuple(ZERO)}
    arm.drive()
    arm.stack.wait_for(lambda: list(arm.joints.messages[-1].effort) == TORQUE, "the torque at the arm")
    start = list(arm.joints.messages[-1].position)
    arm.stack.wait_for(lambda: list(arm.joints.messages[-1].position) != start, "the arm to move")

    arm.hand.hold(False)
    arm.wait_for_output(ZERO)
    arm.drive()
    arm.commander.kill()
    arm.wait_for_message("no command within 0.2 s")
    arm.stack.wait_for(lambda: list(arm.joints.messages[-1].effort) == ZERO, "zero torque at the arm")


def test_an_arm_whose_guard_is_killed_stops_by_its_own_timeout_and_the_next_guard_begins_with_a_dry_run(arm):
    arm.stack.wait_for(lambda: arm.commands and arm.joints.messages, "the commander and the arm")
    arm.wait_for_message("not enabled")
    assert arm.stack.set_parameter("effort_guard", "dry_run", False).successful
    arm.drive()
    arm.stack.kill("effort_guard")
    arm.stack.wait_for(lambda: list(arm.joints.messages[-1].effort) == ZERO, "zero torque at the arm")
    arm.stack.monitor.diagnostics.clear()
    count = len(arm.outputs)
    arm.wait_for_message("dry run")
    arm.stack.wait_for(lambda: len(arm.outputs) > count + 20, "more of the new guard's torques")
    assert not any(any(effort) for _, effort in arm.outputs[count:])


@pytest.mark.slow
def test_a_guard_that_knows_the_urdf_keeps_an_arm_within_its_travel_and_its_velocity(commands, tmp_path):
    urdf = ROOT / "ros2_ws/src/sim_bridge/urdf/reacher.urdf"
    limits = {"position_lower": [-float("inf"), -2.0], "position_upper": [float("inf"), 2.0], "urdf": str(urdf)}
    limits |= {"velocity_limits": [1.0, 1.0], "k_velocity": [0.005, 0.005], "k_position": [5.0, 5.0]}
    with Rig(tmp_path, **limits) as rig:
        arm = commands.start("node", "arm_stand_in")
        states: list[JointState] = []
        node, topic = rig.monitor.node, topics.JOINT_STATES
        node.create_subscription(JointState, topic.name, states.append, qos_profile(topic, 1000))
        rig.wait(lambda: bool(states), "the arm")

        def is_at(end: float) -> bool:
            nonlocal pressed
            # Where a busy machine has kept joint states back for a moment, the guard waits for another press.
            if now() - pressed > 2.0 and "release the switch" in rig.diagnostics()[0]:
                pressed = rig.press()
            return abs(states[-1].position[1] - end) < 0.1

        for push in (1.0, -1.0):
            rig.commander.send(rate_hz=50.0, values=(0.03 * push, 0.03 * push))
            rig.monitor.spin(0.1)
            pressed = rig.press()
            rig.wait(lambda p=push: is_at(2.0 * p), "the wrist at its end")
            rig.monitor.spin(0.5)
        rig.wait_for_message("driving")
        positions = np.array([state.position for state in states])
        velocities = np.array([state.velocity for state in states])
        assert np.abs(positions[:, 1]).max() < 2.1
        assert np.abs(velocities).max() < 1.2, "without the guard 3.0"
        assert int(rig.diagnostics()[1]["braked_ticks"]) > 50
        assert arm.poll() is None
