"""A recorded run is a rosbag2 bag that others read: every frame with its command, and where it all came from."""

import itertools
import json
import shutil

import pytest
import yaml
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore
from std_srvs.srv import SetBool

from vjepa_interfaces import topics
from vjepa_interfaces.stamps import to_nanoseconds

EPISODES, STEPS = 2, 60


def read(bag) -> dict[str, list]:
    messages: dict[str, list] = {}
    with AnyReader([bag], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
        for connection, _, data in reader.messages():
            messages.setdefault(connection.topic, []).append(reader.deserialize(data, connection.msgtype))
    return messages


def metadata(bag) -> dict:
    return yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]


@pytest.fixture
def recorded(lockstep_stack, tmp_path):
    stack = lockstep_stack(
        planner="expert", episodes=EPISODES, episode_steps=STEPS, seed=11, record=True, bag_dir=str(tmp_path / "bags")
    )
    stack.wait_finished()
    stack.supervisor.stop()
    (bag,) = (tmp_path / "bags").iterdir()
    return bag


def test_the_bag_holds_one_command_for_every_frame_joined_by_stamp(recorded):
    messages = read(recorded)
    stamps = {
        topic.name: [to_nanoseconds(message.header.stamp) for message in messages["/" + topic.name]]
        for topic in (topics.IMAGE, topics.LATENT, topics.JOINT_COMMAND, topics.JOINT_STATES, topics.TIMESTEP)
    }
    frames = stamps[topics.IMAGE.name]
    assert len(frames) == EPISODES * (STEPS + 1)
    assert frames == sorted(set(frames))
    commands = [stamp for stamp in stamps[topics.JOINT_COMMAND.name] if stamp]  # The zeros of the end have stamp 0.
    assert sorted(commands) == frames
    for name in (topics.LATENT, topics.JOINT_STATES, topics.TIMESTEP):
        assert sorted(stamps[name.name]) == frames

    torque = {to_nanoseconds(m.header.stamp): m.effort.tolist() for m in messages["/" + topics.JOINT_COMMAND.name]}
    joints = messages["/" + topics.JOINT_STATES.name]
    types = {to_nanoseconds(m.header.stamp): m.vector.z for m in messages["/" + topics.TIMESTEP.name]}
    for before, after in itertools.pairwise(joints):
        if types[to_nanoseconds(after.header.stamp)] != 0:
            applied, asked = after.effort.tolist(), torque[to_nanoseconds(before.header.stamp)]
            assert applied == asked


def test_the_bag_says_where_it_came_from_and_that_nothing_was_lost(recorded):
    about = metadata(recorded)["custom_data"]
    assert about["seed"] == "11"
    assert about["task"] == "reacher-easy"
    assert about["planners"] == "expert"
    assert about["encoder_fingerprint"] == json.loads(about["encoder_info"])["fingerprint"]
    assert about["version mujoco"]
    assert about["closed"] == "true"
    audit = json.loads(about["audit"])
    assert audit["/camera/image_raw"]["published"] == EPISODES * (STEPS + 1)
    assert {name: entry["lost"] for name, entry in audit.items() if entry["lost"]} == {}
    counts = {t["topic_metadata"]["name"]: t["message_count"] for t in metadata(recorded)["topics_with_message_count"]}
    assert {name: entry["recorded"] for name, entry in audit.items()} == counts


def subscriptions(stack, node: str) -> set[str]:
    return {name for name, _ in stack.node.get_subscriber_names_and_types_by_node(node, "/")}


def test_recording_starts_and_stops_while_running(lockstep_stack, tmp_path):
    stack = lockstep_stack(planner="expert", bag_dir=str(tmp_path), episode_steps=1000)
    stack.wait_for_steps(5)
    assert subscriptions(stack, "episode_recorder") == set(), "an idle recorder is woken by no message"
    assert stack.call(SetBool, "episode_recorder/record", SetBool.Request(data=True)).success
    expected = {stack.node.resolve_topic_name(topic.name) for topic in topics.RECORDED}
    stack.wait_for(lambda: subscriptions(stack, "episode_recorder") == expected, "the recorder's subscriptions")
    again = stack.call(SetBool, "episode_recorder/record", SetBool.Request(data=True))
    assert not again.success
    assert "already recording" in again.message
    stack.wait_for_steps(30)
    stopped = stack.call(SetBool, "episode_recorder/record", SetBool.Request(data=False))
    assert stopped.success
    assert "camera/image_raw" in stopped.message
    (bag,) = tmp_path.iterdir()
    assert len(read(bag)["/camera/image_raw"]) >= 30
    stack.wait_for_steps(5)
    assert not stack.call(SetBool, "episode_recorder/record", SetBool.Request(data=False)).success
    stack.wait_for(lambda: not subscriptions(stack, "episode_recorder"), "no subscription any more")


def test_perception_works_from_a_played_bag_with_no_simulation(recorded, start_stack, tmp_path):
    """What `ros2 bag play` does, by the test's own node: the recorded frames, in order, at their stamps."""
    from sensor_msgs.msg import Image

    from vjepa_interfaces.messages import latent_of

    copy = shutil.copytree(recorded, tmp_path / "copy")
    messages = read(copy)
    stack = start_stack(source="camera", planner="random", image_topic="/replayed/image")
    latents = stack.tap(topics.LATENT)
    frames = stack.node.create_publisher(Image, "/replayed/image", 50)
    stack.wait_for(lambda: frames.get_subscription_count() == 1, "perception to listen")
    stack.wait_for(lambda: stack.monitor.is_active(1.0), "the stack to be active")
    replayed = messages["/camera/image_raw"][:30]
    for recorded_frame in replayed:
        message = Image(height=recorded_frame.height, width=recorded_frame.width, step=recorded_frame.step)
        message.encoding = recorded_frame.encoding
        message.data = recorded_frame.data.tobytes()
        stamp = to_nanoseconds(recorded_frame.header.stamp)
        frames.publish(stack.stamped(message, stamp))
        stack.wait_for(lambda stamp=stamp: stamp in latents.stamps, "the latent of a replayed frame")
    live = {to_nanoseconds(m.header.stamp): latent_of(m) for m in messages["/vjepa_perception/latent"]}
    for stamp, message in latents.by_stamp().items():
        assert latent_of(message).tolist() == live[stamp].tolist(), "the live latent, bit for bit"
