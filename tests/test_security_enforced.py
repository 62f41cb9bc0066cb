"""A stack under SROS 2, enforced, with the policy of `vjepa security policy`: it drives, and others are refused.

For this Fast DDS must have been built with security, as that of an installed ROS 2 is and that of the wheels is not.
"""

import contextlib
import json
from collections.abc import Iterator

import pytest
import rclpy
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import JointState, Joy
from std_msgs.msg import Float64MultiArray

from vjepa_bringup.domains import hold_domain
from vjepa_bringup.graph import StackOptions, enclave
from vjepa_bringup.monitor import Monitor
from vjepa_bringup.run_graph import running_graph
from vjepa_bringup.security_policy import policy
from vjepa_interfaces import topics
from vjepa_interfaces.environment import environment_of
from vjepa_interfaces.managed_node import qos_profile

pytest.importorskip("sros2", reason="sros2 comes with an installed ROS 2; there is no wheel of it")
from sros2.api._artifact_generation import generate_artifacts

ACTIVE_S, SEEN_S, UNSEEN_S = 120.0, 20.0, 3.0
OPTIONS = StackOptions(planner="expert-p", guard=True, namespace="left", log_level="warn")


class Refused(Exception):  # noqa: N818 (what is expected)
    """DDS does not let this enclave have the endpoint."""


class Intruder:
    """A node in an enclave, which may try what it likes."""

    def __init__(self, node: Node):
        self._node = node

    def publish(self, topic: topics.Topic, message) -> None:
        """Publish a message, once somebody hears it."""
        try:
            publisher = self._node.create_publisher(type(message), topic.name, qos_profile(topic))
        except rclpy_implementation.RCLError as error:
            raise Refused(topic.name) from error
        publisher.publish(message)

    def ask(self, service: str) -> None:
        """Make a client for setting parameters."""
        try:
            self._node.create_client(SetParameters, service)
        except rclpy_implementation.RCLError as error:
            raise Refused(service) from error


@contextlib.contextmanager
def node_of(name: str, domain: int, node_name: str) -> Iterator[Node]:
    """A node in the enclave `name` of the stack."""
    context = Context()
    arguments = ["--ros-args", "--enclave", enclave(name, OPTIONS.namespace)]
    rclpy.init(args=arguments, context=context, domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
    node = Node(node_name, context=context, namespace=OPTIONS.namespace)
    try:
        yield node
    finally:
        node.destroy_node()
        context.try_shutdown()


@pytest.fixture(scope="module")
def secured(tmp_path_factory) -> Iterator[tuple[Monitor, int]]:
    """A running stack that takes part in nothing unsigned, and its ROS domain, which its permissions are for."""
    folder = tmp_path_factory.mktemp("secured")
    (folder / "policy.xml").write_text(policy(OPTIONS))
    with hold_domain(None, {}) as domain:
        pass
    variables = {
        "ROS_DOMAIN_ID": str(domain),
        "ROS_SECURITY_KEYSTORE": str(folder / "keys"),
        "ROS_SECURITY_ENABLE": "true",
        "ROS_SECURITY_STRATEGY": "Enforce",
    }
    with environment_of(variables):
        generate_artifacts(folder / "keys", [], [folder / "policy.xml"])
        with running_graph(OPTIONS, domain, {}), Monitor(domain, OPTIONS.namespace) as monitor:
            yield monitor, domain


def said(monitor: Monitor) -> str:
    return json.dumps({name: message for name, (_, message, _) in monitor.diagnostics.items()})


def test_every_node_is_active_and_the_planner_drives(secured):
    monitor, _ = secured
    assert monitor.wait_until(monitor.is_active, ACTIVE_S), said(monitor)
    assert monitor.wait_until(lambda: monitor.value("vjepa_planner", "commands") > 10, ACTIVE_S), said(monitor)


def test_the_button_holds_the_switch_and_does_nothing_else(secured):
    monitor, domain = secured
    assert monitor.wait_until(monitor.is_active, ACTIVE_S), said(monitor)
    with node_of("button", domain, "button") as node:
        button = Intruder(node)

        def enabled() -> bool:
            return monitor.diagnostics.get("effort_guard", ("", "", {}))[2].get("enabled") == "True"

        switch = node.create_publisher(Joy, topics.ENABLE.name, qos_profile(topics.ENABLE))
        began = node.get_clock().now()

        def hold() -> None:
            """Publish a released switch for a second, and then a held one."""
            message = Joy()
            message.header.stamp = node.get_clock().now().to_msg()
            message.buttons = [int(node.get_clock().now() - began > Duration(seconds=1.0))]
            switch.publish(message)

        timer = monitor.node.create_timer(0.05, hold)
        assert monitor.wait_until(enabled, SEEN_S), said(monitor)
        monitor.node.destroy_timer(timer)
        with pytest.raises(Refused):
            button.publish(topics.JOINT_COMMAND, JointState())
        with pytest.raises(Refused):
            button.publish(topics.EFFORT_ARRAY, Float64MultiArray())
        with pytest.raises(Refused):
            button.ask("effort_guard/set_parameters")


@pytest.mark.parametrize(
    ("name", "node_name", "topic", "message"),
    [
        ("vjepa_planner", "vjepa_planner", topics.EFFORT_ARRAY, Float64MultiArray()),
        ("operator", "vjepa_cli", topics.ENABLE, Joy(buttons=[1])),
        ("operator", "vjepa_cli", topics.JOINT_COMMAND, JointState()),
    ],
)
def test_nobody_else_can_move_the_arm_or_hold_the_switch(secured, name, node_name, topic, message):
    _, domain = secured
    with node_of(name, domain, node_name) as node, pytest.raises(Refused):
        Intruder(node).publish(topic, message)


def test_who_has_no_keys_sees_nobody_and_is_heard_by_nobody(secured):
    monitor, domain = secured
    with environment_of({"ROS_SECURITY_ENABLE": "false"}), node_of("stranger", domain, "stranger") as node:
        node.create_publisher(JointState, topics.JOINT_COMMAND.name, qos_profile(topics.JOINT_COMMAND))
        monitor.spin(UNSEEN_S)
        assert node.get_node_names() == ["stranger"]
        assert monitor.node.count_publishers(topics.JOINT_COMMAND.name) == 1
