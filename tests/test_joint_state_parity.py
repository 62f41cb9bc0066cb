"""Whatever is on the topic of joint states, the live planner sees the joints that a dataset of the bag has."""

import numpy as np
import pytest
import rclpy
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image, JointState

from tests.foreign_bags import JOINTS, MS, SECOND, T0, arm, frames, in_order, joint_state, write_mcap
from vjepa_bags.bag_reader import Bag, topic_names
from vjepa_bringup.domains import hold_domain
from vjepa_interfaces.managed_node import ERROR
from vjepa_interfaces.messages import fill_latent
from vjepa_interfaces.stamps import set_stamp, to_nanoseconds
from vjepa_planner.planner_node import PlannerNode
from vjepa_training.data.build import BuildConfig, build_dataset

NAMES = ("shoulder", "wrist")


def gripper(behind_ms: int = 0):
    """A gripper on the arm's topic, each of its messages 3 ms after one of the arm."""
    stamps = [T0 - 50 * MS + k * 10 * MS for k in range(310)]
    return [(JOINTS, s + 4 * MS, joint_state(s - behind_ms * MS, ["finger"], [0.5])) for s in stamps]


def by_joint():
    """A driver that sends each joint by itself, 3 ms apart, with positions that are no line."""
    found = []
    for k in range(310):
        stamp = T0 - 50 * MS + k * 10 * MS
        for joint, name in enumerate(NAMES):
            at = stamp + joint * 3 * MS
            found.append((JOINTS, at + MS, joint_state(at, [name], [np.sin(0.05 * k + joint)], [0.1 * k], [0.2])))
    return found


def swinging():
    """An arm whose driver sends no velocities."""
    found = []
    for k in range(310):
        stamp = T0 - 50 * MS + k * 10 * MS
        found.append((JOINTS, stamp + MS, joint_state(stamp, NAMES, np.sin([0.05 * k, 0.03 * k]), None, [0.1, 0.2])))
    return found


SITUATIONS = {
    "an arm alone": (arm(names=NAMES), False),
    "a gripper on its topic": (arm(names=NAMES) + gripper(), False),
    "a gripper whose stamps are behind": (arm(names=NAMES) + gripper(7), False),
    "each joint by itself": (by_joint(), False),
    "each joint by itself, and velocities derived": (by_joint() + gripper(), True),
    "no velocities": (swinging(), True),
}


@pytest.fixture(scope="module")
def domain():
    with hold_domain(None, {"planner": "(joint states)"}) as number:
        rclpy.init(domain_id=number)
        yield
        rclpy.try_shutdown()


@pytest.fixture
def planner(domain):
    """Return a function that gives an active planner node of an arm, without an executor."""
    nodes = []

    def make(derives: bool) -> PlannerNode:
        node = PlannerNode()
        nodes.append(node)
        values = {"joint_names": list(NAMES), "planner": "expert-p", "planners": ["expert-p"]}
        values |= {"derive_velocity": derives, "control_period_s": 5.0}
        node.set_parameters([Parameter(name, value=value) for name, value in values.items()])
        assert node.trigger_configure().name == "SUCCESS", node.last_error
        assert node.trigger_activate().name == "SUCCESS", node.last_error
        return node

    yield make
    for node in nodes:
        node.destroy_node()


def live(message) -> JointState:
    found = JointState(name=message.name)
    found.position, found.velocity, found.effort = (
        values.tolist() for values in (message.position, message.velocity, message.effort)
    )
    set_stamp(found.header.stamp, to_nanoseconds(message.header.stamp))
    return found


def latent(stamp_ns: int) -> Image:
    message = Image()
    fill_latent(message, np.zeros((1, 2), np.float32))
    set_stamp(message.header.stamp, stamp_ns)
    return message


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_live_planner_sees_the_joints_of_the_dataset_s_rows(situation, planner, tmp_path):
    states, derives = SITUATIONS[situation]
    entries = in_order(frames() + states)
    names = topic_names()
    config = BuildConfig(names, frames=True, effort_limit=1.0, joint_names=NAMES, derive_velocity=derives)
    bag = Bag(write_mcap(tmp_path / "b.mcap", entries), names)
    dataset, (report,), _ = build_dataset(tmp_path / "ds", [bag], config, None, {})
    assert len(dataset) == 90, report.faults
    node = planner(derives)
    seen = []
    node._plan_and_send = seen.append
    for topic, _, message in entries:
        if topic == JOINTS:
            node._on_joint_state(live(message))
        else:
            node._on_latent(latent(to_nanoseconds(message.header.stamp)))
            assert node.diagnose()[0] != ERROR, node.diagnose()[1]
    assert node._counts["refused_joint_states"] == 0
    assert [observation.stamp_ns for observation in seen] == [T0 + i * SECOND // 30 for i in range(90)]
    for name in ("joint_position", "joint_velocity"):
        rows = np.asarray(dataset[f"observation.{name}"])
        assert np.isfinite(rows).all()
        np.testing.assert_array_equal([getattr(observation, name) for observation in seen], rows)


def test_a_planner_that_gets_the_joint_states_of_a_gripper_alone_names_both(planner):
    node = planner(False)
    for _, _, message in gripper()[:3]:
        node._on_joint_state(live(message))
    level, message, values = node.diagnose()
    assert level == ERROR
    assert message == "joint states of finger; expected shoulder, wrist"
    assert values["other_joint_states"] == 3


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (joint_state(T0, NAMES, [0, 0]), "has no velocity of each joint; expected one, or derive_velocity"),
        (joint_state(0, NAMES, [0, 0], [0, 0]), "without a stamp"),
        (joint_state(T0, ["wrist", "wrist"], [0, 0], [0, 0]), "expected each joint once"),
    ],
)
def test_a_joint_state_that_cannot_be_used_is_refused_with_its_cause(message, text, planner):
    node = planner(False)
    node._on_joint_state(live(message))
    level, stated, values = node.diagnose()
    assert level == ERROR
    assert text in stated
    assert values["refused_joint_states"] == 1
