"""A driver's best effort arrives, what the user overrides holds, and who cannot be heard is named."""

import time
from dataclasses import dataclass, field

import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.experimental import EventsExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from vjepa_bringup.domains import hold_domain
from vjepa_interfaces import topics
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.ros_subscriptions import MatchedSubscription

BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
TIMEOUT_S = 20.0
RELIABILITY = "qos_overrides./joint_states.subscription.reliability"


@dataclass
class Graph:
    """Nodes of one process, and what spins them."""

    domain: int
    context: Context
    executor: SingleThreadedExecutor
    nodes: list[Node] = field(default_factory=list)

    def node(self, name: str, **overrides) -> Node:
        given = [Parameter(key, value=value) for key, value in overrides.items()]
        node = Node(name, context=self.context, parameter_overrides=given)
        self.executor.add_node(node)
        self.nodes.append(node)
        return node

    def leave(self) -> None:
        """Leave the graph at once: other tests use the same domain, and a node that is left to be collected stays."""
        self.executor.shutdown()
        for node in self.nodes:
            node.destroy_node()
        self.context.try_shutdown()

    def spin_until(self, condition, step=lambda: None) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline
            step()
            self.executor.spin_once(0.05)


@pytest.fixture
def graph(monkeypatch):
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    with hold_domain(None, {}) as domain:
        context = Context()
        rclpy.init(context=context, domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
        found = Graph(domain, context, SingleThreadedExecutor(context=context))
        yield found
        found.leave()


def test_states_of_a_driver_that_offers_best_effort_arrive(graph):
    heard = []
    matched = MatchedSubscription(graph.node("own"), topics.JOINT_STATES, heard.append)
    driver = graph.node("driver").create_publisher(JointState, "joint_states", BEST_EFFORT)
    misfits = []

    def step():
        misfits[:] = matched.match()
        driver.publish(JointState(name=["a"]))

    graph.spin_until(lambda: heard, step)
    assert misfits == []


def test_reliable_publishers_are_subscribed_to_reliably(graph):
    heard = []
    matched = MatchedSubscription(graph.node("own"), topics.JOINT_STATES, heard.append)
    driver = graph.node("driver").create_publisher(JointState, "joint_states", 5)
    graph.spin_until(lambda: heard, lambda: driver.publish(JointState()))
    assert matched.match() == []
    assert matched.subscription.qos_profile.reliability == ReliabilityPolicy.RELIABLE


def test_an_override_holds_and_who_does_not_fit_it_is_named_with_topic_and_policy(graph):
    own = graph.node("own", **{RELIABILITY: "reliable", "qos_overrides./joint_states.subscription.depth": 77})
    matched = MatchedSubscription(own, topics.JOINT_STATES, lambda _: None)
    graph.node("driver").create_publisher(JointState, "joint_states", BEST_EFFORT)
    graph.spin_until(lambda: own.count_publishers("joint_states"))
    expected = "/driver publishes /joint_states with reliability BEST_EFFORT, not RELIABLE: nothing of it arrives"
    assert matched.match() == [expected]
    assert matched.subscription.qos_profile.depth == 77
    assert own.get_parameter(RELIABILITY).value == "reliable"
    assert own.describe_parameter(RELIABILITY).read_only


def test_a_latched_topic_that_is_not_and_another_type_are_named(graph):
    own = graph.node("own")
    matched = MatchedSubscription(own, topics.LATENT_INFO, lambda _: None)
    volatile = QoSProfile(depth=1, durability=DurabilityPolicy.VOLATILE)
    rogue = graph.node("rogue")
    rogue.create_publisher(String, topics.LATENT_INFO.name, volatile)
    graph.spin_until(lambda: own.count_publishers(topics.LATENT_INFO.name) == 1)
    (misfit,) = matched.match()
    assert "/rogue publishes /vjepa_perception/latent_info with durability VOLATILE, not TRANSIENT_LOCAL" in misfit
    stranger = Context()  # A participant of its own: in one, a topic has one type.
    rclpy.init(context=stranger, domain_id=graph.domain, signal_handler_options=SignalHandlerOptions.NO)
    other = Node("stranger", context=stranger)
    other.create_publisher(JointState, topics.LATENT_INFO.name, 1)
    graph.spin_until(lambda: own.count_publishers(topics.LATENT_INFO.name) == 2)
    found = " ".join(matched.match())
    assert " publishes /vjepa_perception/latent_info as sensor_msgs/msg/JointState; expected std_msgs" in found
    other.destroy_node()
    stranger.try_shutdown()


def test_a_value_that_no_policy_has_is_refused_with_its_name(graph):
    own = graph.node("own", **{RELIABILITY: "sometimes"})
    with pytest.raises(VjepaError, match=r"subscription.reliability.*sometimes.*expected a value of that policy"):
        MatchedSubscription(own, topics.JOINT_STATES, lambda _: None)


@pytest.mark.parametrize("executor", [SingleThreadedExecutor, EventsExecutor])
def test_a_callback_takes_the_messages_that_wait_behind_its_own(graph, executor):
    graph.executor = executor(context=graph.context)
    batches = []

    def hear(message: JointState) -> None:
        batches.append([message.name[0]])
        deadline = time.monotonic() + TIMEOUT_S
        while len(batches) == 1 and len(batches[0]) < 3 and time.monotonic() < deadline:
            if (waiting := matched.take()) is not None:
                batches[0].append(waiting.name[0])

    matched = MatchedSubscription(graph.node("own"), topics.JOINT_STATES, hear)
    driver = graph.node("driver").create_publisher(JointState, "joint_states", 5)
    graph.spin_until(lambda: driver.get_subscription_count() == 1)
    for name in ("a", "b", "c"):
        driver.publish(JointState(name=[name]))
    graph.spin_until(lambda: batches)
    assert matched.take() is None
    driver.publish(JointState(name=["d"]))
    graph.spin_until(lambda: len(batches) == 2)
    assert batches == [["a", "b", "c"], ["d"]]


@pytest.mark.parametrize("executor", [SingleThreadedExecutor, EventsExecutor])
def test_nothing_is_delivered_behind_the_destruction_of_a_subscription(graph, executor):
    """A node that is cleaned up in one callback has no parameters in the next."""
    graph.executor = executor(context=graph.context)
    heard = []

    def hear(message: JointState) -> None:
        heard.append(message)
        subscription.destroy()

    node = graph.node("planner")
    subscription = MatchedSubscription(node, topics.JOINT_STATES, hear)
    driver = node.create_publisher(JointState, "joint_states", QoSProfile(depth=10))
    graph.spin_until(lambda: driver.get_subscription_count() == 1)
    for _ in range(5):
        driver.publish(JointState())
    time.sleep(0.2)  # So that all wait.
    graph.spin_until(lambda: heard)
    for _ in range(10):
        graph.executor.spin_once(0.05)
    assert len(heard) == 1
