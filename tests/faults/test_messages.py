"""A camera that lies and messages that are lost, late, torn or foreign, at each link of the loop."""

import json
import math
import os
import random
import signal

import numpy as np
import pytest
from geometry_msgs.msg import PointStamped
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from vjepa_interfaces import topics
from vjepa_interfaces.stamps import set_stamp, to_nanoseconds

pytestmark = pytest.mark.faults

JOINTS = ["shoulder", "wrist"]
HOUR_NS = 3600 * 10**9
LINKS = {
    "frames": ("vjepa_perception", topics.IMAGE, Image),
    "latents": ("vjepa_planner", topics.LATENT, Image),
    "commands": ("sim_bridge", topics.JOINT_COMMAND, JointState),
}
"""Where a relay stands: who is behind it, and the topic it carries."""


def with_data(message, data: bytes):
    """Return an image message with other bytes."""
    changed = Image(header=message.header, height=message.height, width=message.width, step=message.step)
    changed.encoding, changed.data = message.encoding, data
    return changed


def with_stamp(message, change_ns: int):
    set_stamp(message.header.stamp, to_nanoseconds(message.header.stamp) + change_ns)
    return message


def frozen():
    """The first picture again and again, each time with a new stamp."""
    first: list[bytes] = []

    def fault(message):
        first[:] = first or [bytes(message.data)]
        return [(0.0, with_data(message, first[0]))]

    return fault


def noise(message):
    return [(0.0, with_data(message, random.randbytes(len(message.data))))]


def one_in_three():
    count = 0

    def fault(message):
        nonlocal count
        count += 1
        return [] if count % 3 else [(0.0, message)]

    return fault


def jumping_clock():
    """Stamps an hour ahead and an hour behind by turns."""
    count = 0

    def fault(message):
        nonlocal count
        count += 1
        ahead = count // 5 % 2
        return [(0.0, with_stamp(message, HOUR_NS if ahead else 0))]

    return fault


def pictures():
    """Faults of a camera that still gives pictures: the stack cannot know, and goes on."""
    return {
        "frozen": frozen(),
        "blank": lambda m: [(0.0, with_data(m, bytes(len(m.data))))],
        "flipped": lambda m: [(0.0, with_data(m, np.frombuffer(m.data, np.uint8)[::-1].tobytes()))],
        "noise": noise,
    }


def torn():
    """Faults that leave no picture: what perception says of each."""
    return {
        "torn": (lambda m: [(0.0, with_data(m, bytes(m.data)[: len(m.data) // 2]))], "bytes"),
        "empty": (lambda m: [(0.0, with_data(m, b""))], "bytes"),
        "silent": (lambda _: [], "no frame for"),
    }


def losses():
    """Faults of the transport that the loop gets through."""
    return {
        "one in three arrives": one_in_three(),
        "late": lambda m: [(0.3, m)],
        "doubled": lambda m: [(0.0, m), (0.0, m)],
    }


@pytest.mark.real_time
def test_in_real_time_pictures_drive_the_arm_and_nothing_else_does(relayed_stack, driven_arm, wait_said):
    stack, relay = relayed_stack(*LINKS["frames"], planner="random", episode_steps=100_000)
    arm = driven_arm(stack)
    for name, fault in {**pictures(), **losses()}.items():
        relay.fault = fault
        arm.wait_driven(f"pictures became {name}")
    for name, (fault, words) in torn().items():
        relay.fault = fault
        arm.wait_still(f"zero torque while pictures are {name}")
        wait_said(stack, "vjepa_perception", words)
        wait_said(stack, "vjepa_planner", "no latent")
        wait_said(stack, "sim_bridge", "torque is zero")
        relay.mend()
        arm.wait_driven(f"pictures were {name}")
    relay.fault = lambda message: [(0.0, with_stamp(message, HOUR_NS))]
    arm.wait_still("zero torque while stamps are an hour ahead")
    relay.fault = jumping_clock()
    stack.wait_for_steps(50)
    relay.mend()
    arm.wait_driven("stamps jumped")
    stack.wait_running()
    assert stack.supervisor.restarts() == {}
    arm.assert_never_held_too_long()


@pytest.mark.parametrize(
    "link", ["frames", *(pytest.param(n, marks=pytest.mark.slow) for n in ("latents", "commands"))]
)
def test_in_lockstep_every_step_has_its_answer_and_nothing_deadlocks(relayed_stack, wait_said, tmp_path, link):
    file = tmp_path / "retry.yaml"
    file.write_text("sim_bridge: {ros__parameters: {lockstep_retry_s: 0.2}}\n")
    stack, relay = relayed_stack(*LINKS[link], lockstep=True, episode_steps=1000, params_file=str(file))
    frames, commands = stack.tap(topics.IMAGE), stack.tap(topics.JOINT_COMMAND)
    stack.wait_for_steps(5)

    def goes_on(after: str) -> None:
        goal = stack.steps + 5
        stack.wait_for(lambda: stack.steps >= goal, f"steps after {after}", 5.0)

    for name, fault in {**(pictures() if link == "frames" else {}), **losses()}.items():
        relay.fault = fault
        goes_on(f"{link} became {name}")
    stops = {"silent": lambda _: [], "an hour ahead": lambda message: [(0.0, with_stamp(message, HOUR_NS))]}
    if link != "commands":
        stops |= {name: fault for name, (fault, _) in torn().items()}
    for name, fault in stops.items():
        relay.mend()
        goes_on("a fault's end")
        relay.fault = fault
        if link == "latents" and name in ("torn", "empty"):
            goes_on(f"a latent was {name}, which is answered with zero torque")
        else:
            wait_said(stack, "sim_bridge", "no answer to the latest frame")
    relay.fault = jumping_clock()
    stack.wait_for_value("sim_bridge", "resent_frames", lambda count: count > 0)
    relay.mend()
    goes_on("stamps jumped")
    stack.wait_running()
    asked = set(frames.stamps[:-1]) - {max(frames.stamps)}
    stack.wait_for(lambda: asked <= set(commands.stamps), "an answer to every frame")
    assert stack.supervisor.restarts() == {}


def nonsense(stamp_ns: int):
    """Commands that no arm must be moved by, for the frame of `stamp_ns`."""
    efforts = ([math.nan, 0.01], [math.inf, 0.01], [-math.inf, math.nan], [0.01], [0.01] * 3, [], [0.01] * 10_000)
    for effort in efforts:
        yield JointState(name=JOINTS, effort=effort), stamp_ns
    for names in (["shoulder", "elbow"], [], ["shoulder", "shoulder"], ["shoulder", "wrist", "shoulder"]):
        yield JointState(name=names, effort=[0.01, 0.01]), stamp_ns
    for stamp in (0, stamp_ns + HOUR_NS, 1):  # Torque for no frame, for one that is yet to come, and for an old one.
        yield JointState(name=JOINTS, effort=[0.05, 0.05]), stamp


@pytest.mark.real_time
def test_nonsense_on_every_topic_moves_no_arm_and_ends_no_node(driven_arm, wait_said, tmp_path):
    arm = driven_arm(record=True, bag_dir=str(tmp_path))
    stack = arm.stack
    joints = stack.tap(topics.JOINT_STATES)
    stack.wait_for(lambda: joints.stamps, "a frame to answer")
    rogue = stack.publisher(topics.JOINT_COMMAND)

    def shout() -> None:
        for message, stamp_ns in nonsense(joints.stamps[-1]):
            rogue.publish(stack.stamped(message, stamp_ns))

    timer = stack.node.create_timer(0.02, shout)
    arm.wait_driven("a rogue began to send commands")
    wait_said(stack, "sim_bridge", "2 publishers")
    wait_said(stack, "sim_bridge", "refused: command")

    pid = stack.supervisor.pids()["vjepa_planner"]
    os.kill(pid, signal.SIGSTOP)
    arm.wait_still("zero torque while nobody but the rogue sends commands")
    wait_said(stack, "sim_bridge", "torque is zero")
    os.kill(pid, signal.SIGCONT)
    arm.wait_driven("the planner went on beside the rogue")

    shout_nonsense(stack)
    stack.wait_for_value("vjepa_planner", "refused_joint_states", lambda count: count > 0)
    stack.node.destroy_timer(timer)
    stack.node.destroy_publisher(rogue)
    arm.wait_driven("the rogue was gone")
    stack.wait_running()
    assert stack.supervisor.restarts() == {}
    assert (0.05, 0.05) not in {effort for _, effort in arm.efforts}, "torque for no frame"
    arm.assert_never_held_too_long()


def shout_nonsense(stack) -> None:
    """Publish what makes no sense on every topic that somebody reads, and a clock that jumps."""
    deep = "[" * 100_000
    messages = [
        *((topics.LATENT_INFO, String(data=text)) for text in ("", "no JSON", "[]", deep, '{"fingerprint": 3}')),
        *((topics.JOINT_STATES, JointState(name=JOINTS, position=p, velocity=[])) for p in ([], [math.nan] * 2)),
        (topics.TARGET, PointStamped()),
        (topics.GOAL, Image(encoding="32FC1", height=2**31, width=2**31)),
        *((topics.IMAGE, Image(encoding=e, height=h, width=2**31)) for e, h in (("rgb8", 2**31), ("", 0))),
        *((topics.CLOCK, Clock()) for _ in range(2)),
    ]
    messages[-1][1].clock.sec = 2**31 - 1
    publishers = {topic: stack.publisher(topic) for topic, _ in messages}
    for topic, publisher in publishers.items():
        stack.wait_for(lambda p=publisher: p.get_subscription_count() > 0, f"somebody to listen to {topic.name}")
    for topic, message in messages:
        publishers[topic].publish(message)
    stack.wait_for_steps(50)
    for publisher in publishers.values():
        stack.node.destroy_publisher(publisher)


def test_a_rogue_that_names_another_encoder_stops_the_policy_only_while_it_is_there(start_stack, wait_said):
    stack = start_stack(planner="bc", episode_steps=10_000)
    stack.wait_for_steps(50)
    rogue = stack.publisher(topics.LATENT_INFO)
    stack.wait_for(lambda: rogue.get_subscription_count() > 0, "somebody to listen")
    foreign = json.dumps({**stack.monitor.encoder_info, "fingerprint": "0123456789abcdef"})
    timer = stack.node.create_timer(0.1, lambda: rogue.publish(String(data=foreign)))
    wait_said(stack, "vjepa_planner", "0123456789abcdef")
    wait_said(stack, "vjepa_perception", "2 publishers on /vjepa_perception/latent_info")
    stack.node.destroy_timer(timer)
    stack.node.destroy_publisher(rogue)
    moving = stack.tap(topics.JOINT_STATES)
    stack.wait_for(lambda: any(any(state.effort) for state in moving.messages[-10:]), "torque again", 5.0)


def test_a_refusal_that_is_over_before_the_next_diagnostics_is_said(start_stack, wait_said):
    stack = start_stack(planner="bc", episode_steps=10_000)
    stack.wait_for_steps(50)
    rogue = stack.publisher(topics.LATENT_INFO)
    stack.wait_for(lambda: rogue.get_subscription_count() > 0, "somebody to listen")
    stack.wait_for(lambda: len(stack.monitor.encoder_info) > 0, "the encoder")
    own = stack.monitor.encoder_info
    plans = stack.tap(topics.PLAN)
    other = String(data=json.dumps({**own, "fingerprint": "0123456789abcdef"}))

    def is_refused() -> bool:
        rogue.publish(other)  # Again and again: the planner may match later than the monitor.
        return any("refused" in plan.data for plan in plans.messages)

    stack.wait_for(is_refused, "a refusal")
    rogue.publish(String(data=json.dumps(own)))
    wait_said(stack, "vjepa_planner", "0123456789abcdef")
    wait_said(stack, "vjepa_planner", "planning")
