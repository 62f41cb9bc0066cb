"""The SROS 2 policy of a stack lets the nodes of running stacks do what they do, and no more."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import rclpy
import yaml
from rclpy.context import Context
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Joy

from vjepa_bringup.graph import StackOptions, build_graph, enclave
from vjepa_bringup.monitor import Monitor
from vjepa_bringup.run_graph import running_graph
from vjepa_bringup.security_policy import Outside, policy
from vjepa_interfaces import access, topics
from vjepa_interfaces.managed_node import qos_profile

ACTIVE_S = 120.0
KINDS = {"publish": "publisher", "subscribe": "subscriber", "reply": "service", "request": "client"}
Rules = dict[str, dict[str, set[str]]]
"""By node, with its namespace: the names that it publishes, subscribes to, replies to and requests."""


NOT_HERE = {"/left/camera_driver", "/_ros2cli_*"}
"""Who has an enclave and is not run here."""


@dataclass
class Seen:
    """What the nodes of a stack may do and what they do; in which enclaves they should be and are found."""

    options: StackOptions
    allowed: Rules
    does: Rules
    enclaves: dict[str, str]
    found: dict[str, str]

    @property
    def own(self) -> set[str]:
        """The nodes of the stack itself."""
        return {self.full_name(node.name) for node in build_graph(self.options)}

    def full_name(self, name: str) -> str:
        return "/" + "/".join(filter(None, (self.options.namespace, name)))


def rules_of(text: str) -> tuple[Rules, dict[str, str]]:
    """Return the rules of a policy, and the enclave of each node."""
    rules, enclaves = {}, {}
    for entry in ElementTree.fromstring(text).iter("enclave"):
        for profile in entry.iter("profile"):
            name = f"{profile.attrib['ns'].rstrip('/')}/{profile.attrib['node']}"
            enclaves[name] = entry.attrib["path"]
            rules[name] = {verb: {each.text for each in block} for block in profile for verb in block.attrib}
    return rules, enclaves


@contextlib.contextmanager
def button(domain: int, namespace: str) -> Iterator[None]:
    """A dead-man's switch as somebody may write one: a plain node that publishes a press."""
    context = Context()
    arguments = ["--ros-args", "--enclave", enclave("button", namespace)]
    rclpy.init(args=arguments, context=context, domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
    node = Node("button", context=context, namespace=namespace)
    try:
        node.create_publisher(Joy, topics.ENABLE.name, qos_profile(topics.ENABLE)).publish(Joy(buttons=[1]))
        yield
    finally:
        node.destroy_node()
        context.try_shutdown()


@contextlib.contextmanager
def arm_stand_in(options: dict[str, str]) -> Iterator[None]:
    """`vjepa node arm_stand_in` with launch arguments, in the domain of the environment."""
    words = [f"{name}:={value}" for name, value in options.items()]
    command = [sys.executable, "-P", "-m", "vjepa_cli.cli", "node", "arm_stand_in", *words]
    with subprocess.Popen(command) as process:
        try:
            yield
        finally:
            process.terminate()


def look(options: StackOptions, outside: Outside, beside=contextlib.nullcontext) -> Seen:
    """Run the stack of `options` with a button and with what is `beside` it, and look at what its nodes do."""
    allowed, enclaves = rules_of(policy(options, outside))
    rules: Rules = {}
    found: dict[str, str] = {}
    with (
        running_graph(options, None, {}) as (_, domain),
        button(domain, options.namespace),
        beside(),
        Monitor(domain, options.namespace) as monitor,
    ):
        node = monitor.node

        def complete() -> bool:
            """Look, and return whether every node is active, there, and has all the services that it may have."""
            for name, namespace, path in node.get_node_names_and_namespaces_with_enclaves():
                full_name = f"{namespace.rstrip('/')}/{name}"
                found[full_name] = path
                rules[full_name] = {
                    verb: {each for each, _ in getattr(node, f"get_{kind}_names_and_types_by_node")(name, namespace)}
                    for verb, kind in KINDS.items()
                }
            return monitor.is_active() and all(
                allowed[name]["reply"] <= rules.get(name, {}).get("reply", set()) for name in allowed.keys() - NOT_HERE
            )

        monitor.wait_until(complete, ACTIVE_S)  # What does not come is for the tests to show, name by name.
        monitor.spin(1.0)
        complete()
    return Seen(options, allowed, rules, enclaves, found)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory) -> Seen:
    """A simulated arm behind a guard, with a recorder at work."""
    bags = str(tmp_path_factory.mktemp("bags"))
    return look(StackOptions(planner="expert-p", guard=True, record=True, bag_dir=bags), Outside())


@pytest.fixture(scope="module")
def camera(tmp_path_factory) -> Seen:
    """A camera and the stand-in of an arm, in a namespace and with remappings; the encoder takes compressed frames."""
    folder = tmp_path_factory.mktemp("camera")
    video = cv2.VideoWriter(str(folder / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 20.0, (64, 48))
    video.write(np.zeros((48, 64, 3), np.uint8))
    video.release()
    parameters = {"vjepa_perception": {"input_transport": "compressed"}, "camera": {"loop": True}}
    file = folder / "parameters.yaml"
    file.write_text(yaml.safe_dump({node: {"ros__parameters": values} for node, values in parameters.items()}))
    names = {"namespace": "left", "image_topic": "/ceiling/image", "joint_states_topic": "arm/states"}
    options = StackOptions(
        source="camera",
        camera=str(folder / "clip.avi"),
        planner="random",
        guard=True,
        params_file=str(file),
        command_topic="wish",
        **names,
    )
    return look(options, Outside(rehearsal=True), lambda: arm_stand_in(names))


@pytest.fixture(params=["simulated", "camera"])
def seen(request) -> Seen:
    return request.getfixturevalue(request.param)


def test_every_node_may_do_all_that_it_does(seen):
    for name, does in seen.does.items():
        for verb, names in does.items():
            assert names <= seen.allowed[name].get(verb, set()), f"{name} would not be let {verb}"


def test_no_node_of_the_stack_may_publish_offer_or_ask_for_what_it_does_not(seen):
    for name in seen.own:
        for verb in ("publish", "reply", "request"):
            assert seen.allowed[name].get(verb, set()) == seen.does[name][verb], f"{name}: {verb}"


def test_every_node_hears_in_one_stack_or_the_other_what_its_row_has(simulated, camera):
    unheard = set()
    for name, row in access.NODES.items():
        for topic in row.subscribes:
            heard = False
            for seen in (simulated, camera):
                renamed = next(iter(build_graph(seen.options))).remappings.get(topic.name, topic.name)
                full_name = renamed if renamed.startswith("/") else seen.full_name(renamed)
                heard |= full_name in seen.does.get(seen.full_name(name), {}).get("subscribe", set())
            if not heard:
                unheard.add((name, topic.name))
    # The simulation takes one of two commands, here the guard's; ROS's own node is not in the wheels.
    assert unheard == {("sim_bridge", "joint_command"), ("robot_state_publisher", "joint_states")}


def test_every_process_is_in_the_enclave_that_the_policy_has_for_it(seen):
    assert seen.found == {name: enclave for name, enclave in seen.enclaves.items() if name not in NOT_HERE}


def test_compressed_frames_and_the_guards_torques_arrive_under_their_own_names(camera):
    assert "/ceiling/image/compressed" in camera.does["/left/vjepa_perception"]["subscribe"]
    arm = camera.does["/left/arm_stand_in"]
    assert {"/left/arm/states", "/ceiling/image"} <= arm["publish"]
    assert arm["subscribe"] & {"/left/effort_controller/commands", "/left/wish"} == {"/left/effort_controller/commands"}
