"""Joint states of an arm that is faster than the encoder, and of before the planner was active."""

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import PointStamped
from sensor_msgs.msg import Image, JointState

from vjepa_bringup.domains import hold_domain
from vjepa_interfaces.messages import fill_latent
from vjepa_interfaces.stamps import set_stamp
from vjepa_planner.planner_node import PlannerNode

MS = 1_000_000
T0 = 1_000_000 * MS
ENCODER_MS = 80


@pytest.fixture
def planner():
    """A configured planner that needs joint states alone; its commands are kept."""
    with hold_domain(None, {"planner": "(fast arm)"}) as domain:
        arguments = ["--ros-args", "-p", "planner:=expert", "-p", "planners:=[expert]"]
        rclpy.init(domain_id=domain, args=arguments)
        node = PlannerNode()
        assert node.trigger_configure().name == "SUCCESS", node.last_error
        yield node
        node.destroy_node()
        rclpy.try_shutdown()


def joint_state(milliseconds: float) -> JointState:
    message = JointState(name=["shoulder", "wrist"], position=[0.1, 0.2], velocity=[0.0, 0.0])
    set_stamp(message.header.stamp, T0 + int(milliseconds * MS))
    return message


def target(milliseconds: float) -> PointStamped:
    message = PointStamped()
    set_stamp(message.header.stamp, T0 + int(milliseconds * MS))
    message.point.x, message.point.y = 0.1, 0.1
    return message


def latent(milliseconds: float) -> Image:
    message = Image()
    set_stamp(message.header.stamp, T0 + int(milliseconds * MS))
    fill_latent(message, np.zeros((1, 4), np.float32))
    return message


def test_at_a_kilohertz_no_latent_of_a_slow_encoder_is_refused(planner):
    planner.trigger_activate()
    for ms in range(1000):
        planner._on_joint_state(joint_state(ms))
        planner._on_target(target(ms))
        if ms >= ENCODER_MS and ms % ENCODER_MS == 0:
            planner._on_latent(latent(ms - ENCODER_MS))
    assert planner._counts["commands"] == 12
    assert planner._counts["refused_latents"] == 0


def test_the_first_latent_after_an_activation_has_the_joint_states_of_before_it(planner):
    for ms in range(200):
        planner._on_joint_state(joint_state(ms))
        planner._on_target(target(ms))
    planner.trigger_activate()
    planner._on_latent(latent(150))
    assert planner._counts["commands"] == 1
    assert planner._counts["refused_latents"] == 0


def test_a_latent_without_a_joint_state_in_time_is_refused_with_rates_ages_and_limits(planner):
    planner.trigger_activate()
    for ms in range(0, 101, 10):
        planner._on_joint_state(joint_state(ms))
    planner._on_latent(latent(400))
    assert planner._counts["refused_latents"] == 1
    _, message, _ = planner.diagnose()
    assert "joint states of shoulder, wrist at 100 Hz, the newest before the frame is 300 ms older" in message
    assert "the limit is 100 ms: joint_state_max_age_s" in message
