"""Two stacks side by side: of one name there is one, and two namespaces in a domain leave each other alone."""

import contextlib
import os
import time

import pytest
import rclpy
from rclpy.context import Context
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rosbags.highlevel import AnyReader
from rosgraph_msgs.msg import Clock

from tests.conftest import Stack, lightened
from tests.forked_nodes import ForkingSupervisor
from vjepa_bringup.domains import hold_domain
from vjepa_bringup.graph import StackOptions, build_graph, environment
from vjepa_bringup.one_stack import only_stack
from vjepa_interfaces.environment import environment_of
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.stamps import to_nanoseconds

VARIABLES = environment(StackOptions())


def test_a_second_stack_of_the_same_name_is_refused_with_the_first_one_s(tmp_path):
    with hold_domain(None, {}) as domain, only_stack(domain, "left", VARIABLES, "the first"):
        with (
            pytest.raises(VjepaError, match=rf"'left': the first as process {os.getpid()}; end that one, or give"),
            only_stack(domain, "/left/", VARIABLES),
        ):
            pass
        with only_stack(domain, "right", VARIABLES), only_stack(domain, "", VARIABLES):
            pass
    with only_stack(domain, "left", VARIABLES):
        pass  # The first has ended.


def test_a_stack_of_somebody_else_is_seen_on_the_graph():
    with hold_domain(None, {}) as domain, environment_of(VARIABLES):
        context = Context()
        rclpy.init(context=context, domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
        node = Node("stack_manager", namespace="left", context=context)
        with (
            pytest.raises(VjepaError, match="'left': node /left/stack_manager, which is of no stack of yours"),
            only_stack(domain, "left", VARIABLES),
        ):
            pass
        with only_stack(domain, "right", VARIABLES):
            pass
        node.destroy_node()
        context.try_shutdown()


@pytest.fixture
def beside(forking, forked_nodes, tmp_path):
    """Return a function that starts a stack in a namespace of another one's domain."""
    with contextlib.ExitStack() as exits:

        def start(other: Stack, namespace: str, **options) -> Stack:
            chosen = StackOptions(namespace=namespace, **lightened(options, tmp_path / f"{namespace}.yaml"))
            variables = {**environment(chosen), "ROS_DOMAIN_ID": str(other.domain)}
            supervisor = ForkingSupervisor(variables, namespace, "warn")
            exits.callback(supervisor.stop)
            supervisor.start(build_graph(chosen))
            stack = Stack(supervisor, other.domain, namespace)
            exits.callback(stack.monitor.close)
            return stack

        yield start


def clock_owners(stack: Stack) -> list[str]:
    return [owner.node_namespace for owner in stack.node.get_publishers_info_by_topic("/clock")]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_two_namespaces_have_one_clock_and_bags_of_their_own(start_stack, beside, tmp_path):
    options = {"planner": "random", "record": True, "lockstep": True, "episode_steps": 30}
    left = start_stack(**options, namespace="left", bag_dir=str(tmp_path / "left"))
    left.wait_for_steps(5)
    stamps: list[int] = []
    left.node.create_subscription(Clock, "/clock", lambda message: stamps.append(to_nanoseconds(message.clock)), 100)
    right = beside(left, "right", **options, bag_dir=str(tmp_path / "right"))
    right.wait_for_steps(40)
    left.wait_for(lambda: len(stamps) > 50, "the time")
    assert stamps == sorted(stamps), "time goes on"
    assert clock_owners(left) == ["/left"]
    right.wait_for(lambda: "sim_bridge" in right.monitor.diagnostics, "diagnostics")
    assert "/left/sim_bridge publishes /clock, and this node leaves it" in right.monitor.diagnostics["sim_bridge"][1]
    ends_ns = time.time_ns()
    left.supervisor.stop()
    right.wait_for(lambda: clock_owners(right) == ["/right"], "the heir of /clock")
    right.wait_for_steps(5)
    right.supervisor.stop()
    for name, clock_from_ns in (("left", 0), ("right", ends_ns)):
        (bag,) = (tmp_path / name).iterdir()
        with AnyReader([bag]) as reader:
            counts = {c.topic: c.msgcount for c in reader.connections}
            assert counts[f"/{name}/camera/image_raw"] > 10
            assert counts["/clock"] > 0
            clock = [c for c in reader.connections if c.topic == "/clock"]
            assert min(arrived_ns for _, arrived_ns, _ in reader.messages(clock)) > clock_from_ns, "of its own alone"
            diagnostics = [c for c in reader.connections if c.topic == "/diagnostics"]
            found = [reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages(diagnostics)]
        names = {status.name for message in found for status in message.status}
        assert f"/{name}/sim_bridge" in names
        assert all(each.startswith(f"/{name}/") for each in names)
