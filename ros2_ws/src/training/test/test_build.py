"""Bags become the rows that were recorded, whoever recorded them; what is wrong is named, counted and left out."""

import shutil
import sqlite3
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from vjepa_bags.bag_frames import SETTLE_NS
from vjepa_bags.bag_reader import Bag, BagError, topic_names
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.messages import FIRST, LAST, MID
from vjepa_training.data import build as build_module
from vjepa_training.data.build import BuildConfig, build_dataset, describe
from vjepa_training.data.dataset import IMAGE, LATENT, DatasetError

STORE = get_typestore(Stores.ROS2_JAZZY)
MS, SECOND = 1_000_000, 1_000_000_000
PERIOD = 20 * MS
EPOCH = 1_700_000_000 * SECOND
IMAGE_TYPE, JOINT_STATE = "sensor_msgs/msg/Image", "sensor_msgs/msg/JointState"
VECTOR, POINT = "geometry_msgs/msg/Vector3Stamped", "geometry_msgs/msg/PointStamped"
CAMERA, JOINTS, COMMAND = "/camera/image_raw", "/joint_states", "/joint_command"
TIMESTEP, TARGET, FINGERTIP = "/sim_bridge/timestep", "/sim_bridge/target", "/sim_bridge/fingertip"
PLUGINS = (StoragePlugin.MCAP, StoragePlugin.SQLITE3)


class LastFrames:
    """An encoder for tests: the brightness of each of a clip's three frames, so that a latent shows its clip."""

    clip_frames = 3
    shape = (1, 3)

    def __init__(self):
        self.encoded = 0

    def info(self):
        return {"fingerprint": "last-frames", "model": "last-frames"}

    def preprocess(self, rgb):
        return float(rgb[0, 0, 0])

    def encode(self, clips):
        self.encoded += len(clips)
        return np.array(clips, np.float32)[:, None]


def make(type_name: str, **fields):
    return STORE.types[type_name](**fields)


def header(stamp_ns: int):
    time = make("builtin_interfaces/msg/Time", sec=stamp_ns // SECOND, nanosec=stamp_ns % SECOND)
    return make("std_msgs/msg/Header", stamp=time, frame_id="")


def image(stamp_ns: int, value: int, side: int = 4, encoding: str = "rgb8"):
    data = np.full(side * side * 3, value, np.uint8)
    return make(
        IMAGE_TYPE,
        header=header(stamp_ns),
        height=side,
        width=side,
        encoding=encoding,
        is_bigendian=0,
        step=side * 3,
        data=data,
    )


def joint_state(stamp_ns: int, position=(), velocity=(), effort=(), names=("shoulder", "wrist")):
    values = {"position": position, "velocity": velocity, "effort": effort}
    arrays = {name: np.array(value, np.float64) for name, value in values.items()}
    return make(JOINT_STATE, header=header(stamp_ns), name=list(names), **arrays)


def vector(stamp_ns: int, x: float, y: float, z: float):
    return make(VECTOR, header=header(stamp_ns), vector=make("geometry_msgs/msg/Vector3", x=x, y=y, z=z))


def point(stamp_ns: int, x: float, y: float, z: float):
    return make(POINT, header=header(stamp_ns), point=make("geometry_msgs/msg/Point", x=x, y=y, z=z))


class Recording:
    """Messages as they arrived: (ns, topic, type, message), to be changed and then written as a bag."""

    def __init__(self):
        self.messages: list[tuple] = []
        self.now_ns = EPOCH

    def add(self, topic: str, type_name: str, message, after_ns: int = MS // 10) -> None:
        self.now_ns += after_ns
        self.messages.append((self.now_ns, topic, type_name, message))

    def episode(self, first_ns: int, steps: int, first_value: int = 0, answer_ns: int = 2 * MS) -> "Recording":
        """What the simulation and a planner send in one episode; every value says which step it is of."""
        for i in range(steps):
            stamp = first_ns + i * PERIOD
            kind = FIRST if i == 0 else LAST if i == steps - 1 else MID
            effort = [0.0, 0.0] if i == 0 else [0.001 * i, -0.001 * i]
            state = joint_state(stamp, [0.1 * i, -0.1 * i], [1.0 * i, 2.0 * i], effort)
            self.add(JOINTS, JOINT_STATE, state)
            self.add(TARGET, POINT, point(stamp, 0.5, 0.25, 0.01))
            self.add(CAMERA, IMAGE_TYPE, image(stamp, (first_value + i) % 256))
            self.add(FINGERTIP, POINT, point(stamp, 0.01 * i, 0.0, 0.01))
            self.add(TIMESTEP, VECTOR, vector(stamp, 0.0 if i == 0 else 1.0 * i, 1.0, kind))
            command = joint_state(stamp, effort=[0.002 * i, 0.03])
            self.add(COMMAND, JOINT_STATE, command, answer_ns)
            self.now_ns += PERIOD
        self.now_ns += 100 * MS
        return self

    def drop(self, unwanted: Callable[[str, int], bool]) -> "Recording":
        """Leave out the messages of which `unwanted` says so, from topic and stamp."""
        self.messages = [entry for entry in self.messages if not unwanted(entry[1], stamp_of(entry[3]))]
        return self

    def rename(self, names: dict[str, str]) -> "Recording":
        self.messages = [(at, names.get(topic, topic), *rest) for at, topic, *rest in self.messages]
        return self

    def write(self, path: Path, plugin=StoragePlugin.MCAP) -> Path:
        with Writer(path, version=9, storage_plugin=plugin) as writer:
            connections = {}
            for arrived_ns, topic, type_name, message in self.messages:
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, type_name, typestore=STORE)
                writer.write(connections[topic], arrived_ns, STORE.serialize_cdr(message, type_name))
        return path


def stamp_of(message) -> int:
    return message.header.stamp.sec * SECOND + message.header.stamp.nanosec


def build(folder: Path, *paths: Path, names=None, encoder=None, **settings):
    config = BuildConfig(**{"names": names or topic_names(), "effort_limit": 0.05, **settings})
    bags = [Bag(path, config.names) for path in paths]
    return build_dataset(folder, bags, config, encoder or LastFrames(), {"command": "test"})


def lengths(dataset) -> list[int]:
    return np.diff(dataset.episodes, axis=1).ravel().tolist()


def column(dataset, name: str) -> np.ndarray:
    return np.asarray(dataset[name])


def two_episodes() -> Recording:
    return Recording().episode(SECOND, 10).episode(2 * SECOND, 6, first_value=100)


# ---------------------------------------------------------------------------------------------------- what a row says


@pytest.mark.parametrize("plugin", PLUGINS)
@pytest.mark.parametrize("single_file", [False, True])
def test_every_frame_is_a_row_with_what_was_measured_commanded_and_came_of_it(tmp_path, plugin, single_file):
    bag = two_episodes().write(tmp_path / "bag", plugin)
    path = next(file for file in bag.iterdir() if file.suffix in (".mcap", ".db3")) if single_file else bag
    dataset, (report,), watch = build(tmp_path / "ds", path, frames=True)
    assert (report.frames, report.rows, report.episodes, report.faults) == (16, 16, 2, Counter())
    assert lengths(dataset) == [10, 6]
    assert dataset.info.joint_names == ("shoulder", "wrist")
    assert dataset.info.control_period_ns == PERIOD
    i = np.concatenate([np.arange(10), np.arange(6)]).astype(float)
    following = np.append(i[1:], 0)
    last = np.isin(np.arange(16), [9, 15])
    following[last] = np.nan

    def holds(name, expected):
        np.testing.assert_array_equal(column(dataset, name), expected, name)

    holds("frame_index", i)
    holds("stamp_ns", i * PERIOD)
    holds("observation.joint_position", np.stack([0.1 * i, -0.1 * i], axis=1))
    holds("observation.joint_velocity", np.stack([i, 2 * i], axis=1))
    holds("target", np.tile([0.5, 0.25, 0.01], (16, 1)))
    holds("fingertip", np.stack([0.01 * i, 0 * i, 0 * i + 0.01], axis=1))
    holds("target_size", np.full(16, np.nan))
    holds("action", np.stack([0.001 * following / 0.05, -0.001 * following / 0.05], axis=1))
    holds("effort", np.stack([0.001 * following, -0.001 * following], axis=1))
    holds("command", np.stack([np.where(last, np.nan, 0.002 * i), np.where(last, np.nan, 0.03)], axis=1))
    holds("next.reward", following)
    holds("next.discount", np.where(last, np.nan, 1.0))
    holds("next.done", np.isin(np.arange(16), [8, 14]))
    holds("has_next", ~last)
    values = np.concatenate([np.arange(10), 100 + np.arange(6)])
    holds(IMAGE, np.broadcast_to(values[:, None, None, None], (16, 4, 4, 3)))
    holds(LATENT, [[[max(v - 2, v0), max(v - 1, v0), v]] for v, v0 in zip(values, values - i, strict=True)])
    (source,) = dataset.info.sources
    assert source["bag"] == str(path)
    assert (source["frames"], source["rows"], source["faults"], source["command"]) == (16, 16, {}, "test")
    assert set(watch.seconds) == {"reading", "decoding", "encoding", "writing"}


def test_several_bags_are_one_dataset_with_an_entry_each_in_its_sources(tmp_path):
    one = Recording().episode(SECOND, 5).write(tmp_path / "one")
    other = Recording().episode(SECOND, 7, 50).write(tmp_path / "other", StoragePlugin.SQLITE3)
    dataset, reports, _ = build(tmp_path / "ds", one, other)
    assert lengths(dataset) == [5, 7]
    assert [report.rows for report in reports] == [5, 7]
    assert [source["bag"] for source in dataset.info.sources] == [str(one), str(other)]


def test_a_step_type_cuts_an_episode_even_where_the_stamps_go_on(tmp_path):
    recording = Recording().episode(SECOND, 5).episode(SECOND + 5 * PERIOD, 5, 50)
    dataset, (report,), _ = build(tmp_path / "ds", recording.write(tmp_path / "bag"))
    assert lengths(dataset) == [5, 5]
    assert not report.faults
    assert column(dataset, LATENT)[5].tolist() == [[50, 50, 50]]


def test_a_simulation_that_was_started_again_begins_an_episode_of_its_own_values(tmp_path):
    recording = Recording().episode(SECOND, 8)
    recording.now_ns += 3 * SECOND
    recording.episode(SECOND, 4, 50)
    dataset, (report,), _ = build(tmp_path / "ds", recording.write(tmp_path / "bag"))
    assert lengths(dataset) == [8, 4]
    assert not report.faults
    np.testing.assert_array_equal(column(dataset, "fingertip")[:, 0], 0.01 * np.array([*range(8), *range(4)]))


def test_a_command_that_took_longer_than_the_reader_waits_is_joined_in_lockstep(tmp_path):
    recording = Recording().episode(SECOND, 5, answer_ns=4 * SETTLE_NS)
    dataset, (report,), _ = build(tmp_path / "ds", recording.write(tmp_path / "bag"))
    assert not report.faults
    assert np.isfinite(column(dataset, "command")[:-1]).all()


def test_joints_named_in_another_order_are_put_into_that_of_the_dataset(tmp_path):
    recording = Recording().episode(SECOND, 3)
    for _, topic, _, message in recording.messages:
        if topic == COMMAND or (topic == JOINTS and stamp_of(message) > SECOND):
            message.name = message.name[::-1]
    dataset, _, _ = build(tmp_path / "ds", recording.write(tmp_path / "bag"))
    np.testing.assert_array_equal(column(dataset, "observation.joint_position")[2], [-0.2, 0.2])
    np.testing.assert_array_equal(column(dataset, "command")[1], [0.03, 0.002])


def test_what_the_recorder_says_of_the_task_says_what_the_arm_is(tmp_path, our_recorder):
    bag = our_recorder(Recording().episode(SECOND, 3), {"task": "reacher-easy", "seed": "3"})
    dataset, _, _ = build(tmp_path / "ds", bag, effort_limit=None)
    assert (dataset.info.task, dataset.info.effort_limit) == ("reacher-easy", (0.05, 0.05))
    assert dataset.info.sources[0]["recorded_with"]["seed"] == "3"


def test_what_the_recorder_says_of_the_rate_says_how_far_steps_are_apart(tmp_path, our_recorder):
    slow = Recording().episode(SECOND, 9).drop(lambda topic, stamp: (stamp - SECOND) // PERIOD % 2 == 1)
    bag = our_recorder(slow, {"task": "reacher-easy", "control_period_s": "0.04"})
    dataset, (report,), _ = build(tmp_path / "ds", bag, effort_limit=None)
    assert (dataset.info.control_period_s, report.faults) == (0.04, {})
    assert np.diff(column(dataset, "stamp_ns")).tolist() == [2 * PERIOD] * 4
    assert column(dataset, "has_next").tolist() == [True] * 4 + [False]
    assert column(dataset, LATENT)[-1].tolist() == [[4, 6, 8]], "a clip of every frame"


# ------------------------------------------------------------------------------------------------------ what is wrong


def test_a_gap_leaves_no_transition_across_it_and_the_clip_goes_on_as_a_live_node_s(tmp_path):
    missing = {SECOND + i * PERIOD for i in (4, 5)}
    bag = two_episodes().drop(lambda _, stamp: stamp in missing).write(tmp_path / "bag")
    dataset, (report,), _ = build(tmp_path / "ds", bag)
    assert report.faults == {"frame missing (gap)": 2}
    assert lengths(dataset) == [8, 6]
    assert column(dataset, "has_next")[:8].tolist() == [True, True, True, False, True, True, True, False]
    assert np.isnan(column(dataset, "action")[3]).all()
    assert np.isnan(column(dataset, "command")[3]).all()
    assert column(dataset, LATENT)[4].tolist() == [[2, 3, 6]]


def test_a_gap_above_half_a_second_begins_an_episode_and_is_counted(tmp_path):
    missing = {SECOND + i * PERIOD for i in range(4, 34)}
    bag = Recording().episode(SECOND, 40).drop(lambda _, stamp: stamp in missing).write(tmp_path / "bag")
    dataset, (report,), _ = build(tmp_path / "ds", bag)
    assert report.faults == {"episode cut by a gap above 0.5 s": 1}
    assert lengths(dataset) == [4, 6]
    assert column(dataset, LATENT)[4].tolist() == [[34, 34, 34]]


def test_a_repeated_stamp_is_one_row(tmp_path):
    recording = two_episodes()
    recording.messages = [entry for entry in recording.messages for _ in range(2)]
    dataset, (report,), _ = build(tmp_path / "ds", recording.write(tmp_path / "bag"))
    assert report.faults == {"repeated stamp of a frame": 16}
    assert lengths(dataset) == [10, 6]
    assert column(dataset, LATENT)[5].tolist() == [[3, 4, 5]]


def test_an_undecodable_image_costs_its_step_and_no_clip_sees_it(tmp_path):
    recording = two_episodes()
    for index, (at, topic, kind, message) in enumerate(recording.messages):
        if topic == CAMERA and stamp_of(message) == SECOND + 4 * PERIOD:
            recording.messages[index] = (at, topic, kind, image(stamp_of(message), 4, encoding="32FC1"))
    dataset, (report,), _ = build(tmp_path / "ds", recording.write(tmp_path / "bag"), frames=True)
    assert report.faults == {"undecodable image": 1}
    assert lengths(dataset) == [9, 6]
    assert column(dataset, "has_next")[2:5].tolist() == [True, False, True]
    assert column(dataset, LATENT)[4].tolist() == [[2, 3, 5]]
    assert column(dataset, IMAGE)[4, 0, 0, 0] == 5


def test_a_picture_whose_label_leaves_its_colours_open_is_named(tmp_path):
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not importable here")
    recording = two_episodes()
    _, data = cv2.imencode(".png", np.full((4, 4, 3), 4, np.uint8))
    for index, (at, topic, _, message) in enumerate(recording.messages):
        if topic == CAMERA:
            label = "rgb8; png compressed " + ("" if stamp_of(message) == SECOND + 4 * PERIOD else "bgr8")
            compressed = make("sensor_msgs/msg/CompressedImage", header=message.header, format=label, data=data)
            recording.messages[index] = (at, topic, "sensor_msgs/msg/CompressedImage", compressed)
    dataset, (report,), _ = build(tmp_path / "ds", recording.write(tmp_path / "bag"))
    ((fault, count),) = report.faults.items()
    assert "label 'rgb8; png compressed '" in fault
    assert count == 1
    assert lengths(dataset) == [9, 6]


@pytest.mark.parametrize("topic", [JOINTS, TIMESTEP, TARGET, FINGERTIP])
def test_a_frame_without_its_message_on_a_topic_costs_its_step_alone(tmp_path, topic):
    lost = SECOND + 4 * PERIOD
    bag = two_episodes().drop(lambda name, stamp: (name, stamp) == (topic, lost)).write(tmp_path / "bag")
    dataset, (report,), _ = build(tmp_path / "ds", bag)
    assert report.faults == {f"frame without {topic[1:]}": 1}
    assert lengths(dataset) == [9, 6]
    assert column(dataset, "has_next")[2:5].tolist() == [True, False, True]
    assert column(dataset, LATENT)[4].tolist() == [[3, 4, 5]], "the frame was there, and a live node saw it"


def test_a_frame_without_its_command_keeps_its_row(tmp_path):
    lost = SECOND + 4 * PERIOD
    bag = two_episodes().drop(lambda name, stamp: (name, stamp) == (COMMAND, lost)).write(tmp_path / "bag")
    dataset, (report,), _ = build(tmp_path / "ds", bag)
    assert lengths(dataset) == [10, 6]
    assert not report.faults
    assert np.isnan(column(dataset, "command")[4]).all()
    assert np.isfinite(column(dataset, "action")[4]).all()


@pytest.mark.parametrize(
    ("topic", "name"),
    [(FINGERTIP, "fingertip"), (TARGET, "target"), (TIMESTEP, "next.reward"), (COMMAND, "command")],
)
def test_a_topic_that_is_not_in_the_bag_is_named_and_its_column_nan(tmp_path, topic, name):
    bag = two_episodes().drop(lambda other, _: other == topic).write(tmp_path / "bag")
    dataset, (report,), _ = build(tmp_path / "ds", bag)
    assert report.faults == {f"no topic {topic}": 1}
    assert lengths(dataset) == [10, 6]
    assert np.isnan(column(dataset, name)).all()


@pytest.mark.parametrize("topic", [CAMERA, JOINTS])
def test_a_bag_without_frames_or_joint_states_gives_nothing_and_the_other_bags_do(tmp_path, topic):
    bare = two_episodes().drop(lambda name, _: name == topic).write(tmp_path / "bare")
    with pytest.raises(VjepaError, match="give their names with --namespace or --topics"):
        build(tmp_path / "none", bare)
    dataset, reports, _ = build(tmp_path / "ds", bare, two_episodes().write(tmp_path / "whole"))
    assert [report.rows for report in reports] == [0, 16]
    assert reports[0].faults[f"no topic {topic}"] == 1
    assert lengths(dataset) == [10, 6]


def test_messages_that_are_not_what_their_type_says_are_counted(tmp_path):
    recording = two_episodes()
    for index, (at, topic, kind, message) in enumerate(recording.messages):
        if topic == TIMESTEP and stamp_of(message) == SECOND + 4 * PERIOD:
            recording.messages[index] = (at, topic, kind, vector(stamp_of(message), 0.0, 1.0, 7.0))
    bag = recording.write(tmp_path / "bag", StoragePlugin.SQLITE3)
    with sqlite3.connect(bag / "bag.db3") as database:
        (topic_id,) = database.execute("SELECT id FROM topics WHERE name = ?", (JOINTS,)).fetchone()
        database.execute("UPDATE messages SET data = x'0001ff' WHERE topic_id = ? AND id < 10", (topic_id,))
    database.close()
    dataset, (report,), _ = build(tmp_path / "ds", bag)
    assert report.faults["unreadable message on sim_bridge/timestep"] == 1
    assert report.faults["frame without sim_bridge/timestep"] == 1
    assert report.faults["unreadable message on joint_states"] == report.faults["frame without joint_states"] == 2
    assert lengths(dataset) == [7, 6]


def test_strict_lists_what_is_wrong_and_encodes_nothing(tmp_path):
    missing = {SECOND + 4 * PERIOD}
    bag = two_episodes().drop(lambda name, stamp: stamp in missing or name == FINGERTIP).write(tmp_path / "bag")
    encoder = LastFrames()
    with pytest.raises(DatasetError, match=r"2 faults(.|\n)*no topic /sim_bridge/fingertip \(1\)(.|\n)*gap\) \(1\)"):
        build(tmp_path / "ds", bag, encoder=encoder, strict=True)
    assert encoder.encoded == 0
    whole = two_episodes().write(tmp_path / "whole")
    dataset, _, _ = build(tmp_path / "strict", whole, encoder=encoder, strict=True)
    assert lengths(dataset) == [10, 6]
    assert encoder.encoded == 16


# --------------------------------------------------------------------------------------------------- killed recorders


@pytest.fixture
def our_recorder(tmp_path):
    """Return a function that writes a recording as `episode_recorder` does."""
    bag_writer = pytest.importorskip("vjepa_bags.bag_writer")

    def write(recording: Recording, provenance: dict[str, str], close: bool = True, every: int = 6) -> Path:
        writer = bag_writer.BagWriter(tmp_path / "ours", provenance)
        added = set()
        for number, (at, topic, kind, message) in enumerate(recording.messages):
            if topic not in added:
                writer.add_topic(topic, kind, 10, latched=False)
                added.add(topic)
            writer.write(topic, bytes(STORE.serialize_cdr(message, kind)), at, at, number)
            if number % every == every - 1:
                writer.flush()
        if close:
            writer.close()
        return writer.path

    return write


def test_our_killed_recorder_s_bag_gives_every_step_it_has(tmp_path, our_recorder):
    bag = our_recorder(two_episodes(), {}, close=False)
    dataset, (report,), _ = build(tmp_path / "ds", bag)
    assert report.faults == {"recorder killed before it closed the bag": 1}
    assert lengths(dataset) == [10, 6]


@pytest.mark.parametrize("share", [0.3, 0.4, 0.5])
def test_an_mcap_file_that_ends_early_gives_every_step_before_its_end(tmp_path, our_recorder, share):
    bag = our_recorder(two_episodes(), {})
    file = bag / "ours_0.mcap"
    size = file.stat().st_size
    with open(file, "r+b") as opened:
        opened.truncate(int(size * share))
    dataset, (report,), _ = build(tmp_path / "ds", bag)
    assert report.faults["truncated file, read as far as it is whole"] == 1
    assert 2 <= report.rows < 16
    assert column(dataset, LATENT)[1].tolist() == [[0, 0, 1]]
    assert column(dataset, "has_next")[: min(report.rows, 10) - 1].all()


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_bag_without_metadata_is_read_from_its_files(tmp_path, plugin):
    bag = two_episodes().write(tmp_path / "bag", plugin)
    (bag / "metadata.yaml").unlink()
    dataset, (report,), _ = build(tmp_path / "ds", bag)
    assert report.faults == {"no metadata.yaml: its recorder was killed": 1}
    assert lengths(dataset) == [10, 6]


def test_a_database_whose_recorder_was_killed_is_read_with_its_write_ahead_log(tmp_path):
    whole = two_episodes().write(tmp_path / "whole", StoragePlugin.SQLITE3)
    database = sqlite3.connect(whole / "whole.db3")
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA wal_autocheckpoint=0")
    rows = database.execute("SELECT * FROM messages").fetchall()
    with database:
        database.execute("DELETE FROM messages WHERE id > 30")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with database:
        database.executemany("INSERT INTO messages VALUES (?, ?, ?, ?)", rows[30:])
    killed = shutil.copytree(whole, tmp_path / "killed", ignore=shutil.ignore_patterns("*-shm"))
    database.close()
    (killed / "metadata.yaml").unlink()
    assert (killed / "whole.db3-wal").stat().st_size
    before = {file.name: file.read_bytes() for file in killed.iterdir()}
    dataset, (report,), _ = build(tmp_path / "ds", killed)
    assert {file.name: file.read_bytes() for file in killed.iterdir()} == before, "reading writes nothing"
    assert report.faults["truncated file, read as far as it is whole"] == 1
    assert lengths(dataset) == [10, 6]


def test_a_database_that_ends_early_gives_the_steps_before_its_end(tmp_path):
    bag = Recording().episode(SECOND, 200).write(tmp_path / "bag", StoragePlugin.SQLITE3)
    with open(bag / "bag.db3", "r+b") as file:
        file.truncate((bag / "bag.db3").stat().st_size // 2 // 4096 * 4096)
    dataset, (report,), _ = build(tmp_path / "ds", bag)
    assert report.faults["truncated file, read as far as it is whole"] == 1
    assert 20 < report.rows < 200
    assert column(dataset, "has_next")[: report.rows - 1].all()


def test_a_damaged_chunk_costs_its_own_messages_and_names_them(tmp_path, our_recorder):
    bag = our_recorder(two_episodes(), {})
    file = bag / "ours_0.mcap"
    data = bytearray(file.read_bytes())
    place = data.index(bytes([102] * 48))  # The third picture of the second episode.
    data[place] ^= 0xFF
    file.write_bytes(data)
    dataset, (report,), _ = build(tmp_path / "ds", bag)
    (damage,) = (fault for fault in report.faults if fault.startswith("damaged chunk left out"))
    assert "checksum mismatch" in damage
    for topic in (CAMERA, JOINTS, COMMAND, TIMESTEP, TARGET, FINGERTIP):
        assert report.faults[f"message on {topic} lost in a damaged chunk"] == 1
    assert lengths(dataset) == [10, 5]


def test_what_is_no_bag_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mcap").write_text("no bag")
    (tmp_path / "notes.txt").write_text("no bag")
    with pytest.raises(BagError, match="no bag at"):
        Bag(tmp_path / "missing", topic_names())
    for name in ("empty", "notes.txt"):
        with pytest.raises(BagError, match="is not a rosbag2 bag"):
            Bag(tmp_path / name, topic_names())
    with pytest.raises(VjepaError, match="no bag has messages"):
        build(tmp_path / "ds", tmp_path / "text.mcap")


# ---------------------------------------------------------------------------------------- other recorders, other arms


def real_arm(seconds: float = 1.0, joint_hz: int = 100, camera_hz: int = 30, start_ns: int = EPOCH) -> Recording:
    """A camera and joint states that know nothing of each other, with wall-clock stamps."""
    recording = Recording()
    events = [(start_ns + round(i * SECOND / joint_hz) + 3 * MS, "joints", i) for i in range(int(seconds * joint_hz))]
    events += [(start_ns + round(i * SECOND / camera_hz), "camera", i) for i in range(1, int(seconds * camera_hz))]
    for stamp, what, i in sorted(events):
        if what == "joints":
            state = joint_state(stamp, [i, -i], [0.5, 0.5], [0.01 * i, 0.0], ["hinge", "hand"])
            recording.messages.append((stamp + 2 * MS, "/arm/joint_states", JOINT_STATE, state))
        else:
            recording.messages.append((stamp + 8 * MS, "/eye/image", IMAGE_TYPE, image(stamp, i)))
    recording.messages.sort(key=lambda entry: entry[0])
    return recording


@pytest.fixture
def real_names(tmp_path):
    (tmp_path / "topics.yaml").write_text("camera/image_raw: /eye/image\njoint_states: /arm/joint_states\n")
    return topic_names(mapping=tmp_path / "topics.yaml")


@pytest.mark.parametrize("plugin", PLUGINS)
def test_joint_states_of_an_independent_sensor_are_joined_from_the_past_alone(tmp_path, real_names, plugin):
    bag = real_arm().write(tmp_path / "bag", plugin)
    dataset, (report,), _ = build(tmp_path / "ds", bag, names=real_names)
    assert (report.faults, report.notes) == ({}, {"no topic /joint_command": 1})
    assert dataset.info.joint_names == ("hinge", "hand")
    assert abs(dataset.info.control_period_ns - SECOND / 30) < 2
    stamps = np.array([round(i * SECOND / 30) for i in range(1, 30)])
    np.testing.assert_array_equal(column(dataset, "stamp_ns"), stamps - stamps[0])
    newest = (stamps - 3 * MS) // (10 * MS)
    np.testing.assert_array_equal(column(dataset, "observation.joint_position")[:, 0], newest)
    np.testing.assert_array_equal(column(dataset, "effort")[:-1, 0], 0.01 * newest[1:])
    assert np.nanmax(column(dataset, "action")) == 1.0, "a torque beyond the limit is an action of 1"
    assert column(dataset, "has_next").tolist() == [True] * 28 + [False]
    for name in ("target", "fingertip", "next.reward", "next.discount", "command"):
        assert np.isnan(column(dataset, name)).all()
    assert not column(dataset, "next.done").any()


def test_a_joint_state_that_is_too_old_costs_the_step(tmp_path, real_names):
    silent = (EPOCH + 400 * MS, EPOCH + 700 * MS)
    recording = real_arm().drop(lambda topic, stamp: topic == "/arm/joint_states" and silent[0] < stamp < silent[1])
    bag = recording.write(tmp_path / "bag")
    _, (report,), _ = build(tmp_path / "a", bag, names=real_names, joint_state_max_age_s=0.1)
    _, (patient,), _ = build(tmp_path / "b", bag, names=real_names, joint_state_max_age_s=0.35)
    assert report.faults["frame without joint_states"] == 7
    assert report.rows == 29 - 7
    assert patient.rows == 29


def test_a_pause_of_the_camera_cuts_an_episode_of_a_real_arm(tmp_path, real_names):
    pause = (EPOCH + 400 * MS, EPOCH + 1200 * MS)
    recording = real_arm(2.0).drop(lambda topic, stamp: topic == "/eye/image" and pause[0] < stamp < pause[1])
    dataset, (report,), _ = build(tmp_path / "ds", recording.write(tmp_path / "bag"), names=real_names)
    assert (report.faults, report.notes) == ({}, {"no topic /joint_command": 1})
    assert lengths(dataset) == [12, 24]


def test_joints_without_efforts_or_velocities_leave_these_nan(tmp_path, real_names):
    recording = real_arm()
    for *_, message in recording.messages:
        if hasattr(message, "effort"):
            message.velocity = message.effort = np.array([])
    dataset, (report,), _ = build(tmp_path / "ds", recording.write(tmp_path / "bag"), names=real_names)
    assert report.rows == 29
    assert np.isnan(column(dataset, "action")).all()
    assert np.isnan(column(dataset, "observation.joint_velocity")).all()


def test_a_real_arm_needs_to_be_told_its_effort_limit(tmp_path, real_names):
    bag = real_arm().write(tmp_path / "bag")
    with pytest.raises(VjepaError, match="give --task, or --effort-limit"):
        build(tmp_path / "ds", bag, names=real_names, effort_limit=None)


def test_each_joint_of_a_real_arm_may_have_a_limit_of_its_own(tmp_path, real_names):
    bag = real_arm().write(tmp_path / "bag")
    dataset, _, _ = build(tmp_path / "ds", bag, names=real_names, effort_limit=(2.0, 0.5))
    assert dataset.info.effort_limit == (2.0, 0.5)
    efforts = column(dataset, "effort")
    np.testing.assert_array_equal(column(dataset, "action"), np.clip(efforts / (2.0, 0.5), -1, 1))
    with pytest.raises(VjepaError, match=r"effort_limit has 3 values; expected one number, or one for each of "):
        build(tmp_path / "other", bag, names=real_names, effort_limit=(2.0, 1.0, 0.5))


def test_bags_of_a_namespace_and_of_other_names_are_read_by_telling_so(tmp_path):
    names = {t: f"/left{t}" for t in (CAMERA, JOINTS, COMMAND, TIMESTEP, TARGET, FINGERTIP)}
    bag = two_episodes().rename(names | {CAMERA: "/left/eye"}).write(tmp_path / "bag")
    (tmp_path / "topics.yaml").write_text("/camera/image_raw: eye")
    chosen = topic_names("left", tmp_path / "topics.yaml")
    dataset, (report,), _ = build(tmp_path / "ds", bag, names=chosen)
    assert not report.faults
    assert lengths(dataset) == [10, 6]


def test_compressed_images_are_read_under_their_usual_name(tmp_path):
    cv2 = pytest.importorskip("cv2")
    recording = two_episodes()
    for index, (at, topic, _, message) in enumerate(recording.messages):
        if topic == CAMERA:
            _, data = cv2.imencode(".png", message.data.reshape(4, 4, 3))
            kind = "sensor_msgs/msg/CompressedImage"
            compressed = make(kind, header=message.header, format="rgb8; png compressed bgr8", data=data.ravel())
            recording.messages[index] = (at, f"{CAMERA}/compressed", kind, compressed)
    dataset, (report,), _ = build(tmp_path / "ds", recording.write(tmp_path / "bag"))
    assert not report.faults
    assert column(dataset, LATENT)[5].tolist() == [[3, 4, 5]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("camera: /eye", "unknown topic 'camera'; valid are: .*camera/image_raw"),
        ("- a", "expected lines like"),
        ("camera/image_raw: 5", "expected lines like"),
        ("camera/image_raw: [", "is not readable YAML"),
    ],
)
def test_a_mapping_that_is_none_is_refused(tmp_path, text, message):
    (tmp_path / "topics.yaml").write_text(text)
    with pytest.raises(BagError, match=message):
        topic_names(mapping=tmp_path / "topics.yaml")


def test_a_topic_of_another_type_is_refused(tmp_path):
    bag = two_episodes().rename({TARGET: JOINTS, JOINTS: TARGET}).write(tmp_path / "bag")
    with pytest.raises(BagError, match=r"topic '/joint_states' is a geometry_msgs/msg/PointStamped; expected sensor"):
        Bag(bag, topic_names())


def test_bags_of_two_tasks_are_not_mixed(tmp_path, our_recorder):
    one = our_recorder(Recording().episode(SECOND, 3), {"task": "reacher-easy"})
    one = one.rename(tmp_path / "one")
    other = our_recorder(Recording().episode(SECOND, 3), {"task": "reacher-hard"})
    with pytest.raises(VjepaError, match="tasks reacher-easy, reacher-hard"):
        build(tmp_path / "ds", one, other)


def test_bags_of_two_rates_or_of_one_that_makes_no_sense_are_not_built(tmp_path, our_recorder):
    def bag(name: str, period: str) -> Path:
        return our_recorder(Recording().episode(SECOND, 3), {"control_period_s": period}).rename(tmp_path / name)

    with pytest.raises(VjepaError, match=r"control periods 0.02, 0.04 s; build a dataset of each"):
        build(tmp_path / "ds", bag("fast", "0.02"), bag("slow", "0.04"))
    for period in ("often", "nan", "-1"):
        with pytest.raises(VjepaError, match=f"has control_period_s '{period}'; expected seconds"):
            build(tmp_path / "ds", bag(period, period))


def test_numbers_that_make_no_sense_are_refused():
    for name in ("effort_limit", "control_period_s", "joint_state_max_age_s"):
        with pytest.raises(VjepaError, match=f"{name} is -1"):
            BuildConfig(names={}, **{name: -1.0})
    with pytest.raises(VjepaError, match="neither latents nor frames"):
        describe([], BuildConfig(names={}), None)


# --------------------------------------------------------------------------------------------------- large and killed


def test_a_killed_build_goes_on_without_encoding_whole_episodes_again(tmp_path):
    recording = Recording().episode(SECOND, 10).episode(3 * SECOND, 40, 20).episode(6 * SECOND, 5, 200)
    bag = recording.write(tmp_path / "bag")
    whole, (expected,), _ = build(tmp_path / "whole", bag, frames=True)

    class Killed(LastFrames):
        def encode(self, clips):
            if self.encoded > 30:
                raise KeyboardInterrupt
            return super().encode(clips)

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "ds", bag, encoder=Killed(), frames=True)
    encoder = LastFrames()
    dataset, (report,), _ = build(tmp_path / "ds", bag, encoder=encoder, frames=True)
    assert encoder.encoded == 45
    assert report == expected
    for name in whole.info.columns():
        np.testing.assert_array_equal(column(dataset, name), column(whole, name), name)


def test_frames_alone_can_be_kept_without_any_encoder(tmp_path):
    config = BuildConfig(names=topic_names(), frames=True, effort_limit=0.05)
    bag = Bag(two_episodes().write(tmp_path / "bag"), config.names)
    dataset, _, _ = build_dataset(tmp_path / "ds", [bag], config, None, {})
    assert LATENT not in dataset.info.columns()
    assert column(dataset, IMAGE)[12, 0, 0, 0] == 102


def test_memory_holds_a_second_of_frames_however_long_the_bag(tmp_path):
    side, steps = 200, 400
    recording = Recording().episode(SECOND, steps)
    for index, (at, topic, kind, message) in enumerate(recording.messages):
        if topic == CAMERA:
            recording.messages[index] = (at, topic, kind, image(stamp_of(message), 1, side))
    bag = recording.write(tmp_path / "bag", StoragePlugin.SQLITE3)
    frame_bytes = side * side * 3
    tracemalloc.start()
    _, (report,), _ = build(tmp_path / "ds", bag)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert report.rows == steps
    assert peak < 0.4 * frame_bytes * steps


def test_a_joint_state_that_names_a_joint_twice_is_left_out_and_named(tmp_path):
    recording = two_episodes()
    for at, topic, _, message in recording.messages:
        if topic == JOINTS and stamp_of(message) == SECOND + 4 * PERIOD:
            twice = joint_state(stamp_of(message), [0.0] * 3, [0.0] * 3, [0.0] * 3, ("shoulder", "wrist", "shoulder"))
            index = next(i for i, entry in enumerate(recording.messages) if entry[3] is message)
            recording.messages[index] = (at, topic, JOINT_STATE, twice)
    dataset, (report,), _ = build(tmp_path / "ds", recording.write(tmp_path / "bag"))
    named = "joint state names shoulder, wrist, shoulder; expected each joint once"
    assert report.faults == {named: 1, "frame without joint_states": 1}
    assert lengths(dataset) == [9, 6]


def test_a_build_without_a_row_leaves_nothing_behind(tmp_path):
    recording = two_episodes()
    recording.messages = [m for m in recording.messages if m[1] != TARGET]
    recording.add(TARGET, POINT, point(99 * SECOND, 0.5, 0.25, 0.01))
    dataset, (report,), _ = build(tmp_path / "ds", recording.write(tmp_path / "none"))
    assert dataset is None
    assert report.rows == 0
    assert not (tmp_path / "ds").exists()


def test_a_build_that_fails_before_its_first_episode_leaves_nothing_behind(tmp_path, monkeypatch):
    encoder = LastFrames()
    monkeypatch.setattr(encoder, "encode", lambda clips: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build(tmp_path / "ds", two_episodes().write(tmp_path / "bag"), encoder=encoder)
    assert not (tmp_path / "ds").exists()


@pytest.mark.parametrize("latents", [False, True])
def test_an_episode_that_is_written_in_pieces_is_the_same(tmp_path, monkeypatch, latents):
    missing = SECOND + 7 * PERIOD
    bag = two_episodes().drop(lambda topic, stamp: topic == JOINTS and stamp == missing).write(tmp_path / "bag")
    encoder = LastFrames() if latents else None

    def built(name: str):
        config = BuildConfig(names=topic_names(), effort_limit=0.05, frames=True)
        return build_dataset(tmp_path / name, [Bag(bag, config.names)], config, encoder, {"command": "test"})[0]

    whole = built("whole")
    monkeypatch.setattr(build_module, "PIECE_BYTES", 1)
    monkeypatch.setattr("vjepa_training.data.encode.ENCODE_BATCH", 3)
    pieces = built("pieces")
    assert lengths(pieces) == lengths(whole) == [9, 6]
    for name in whole.info.columns():
        np.testing.assert_array_equal(column(pieces, name), column(whole, name), name)


MEMORY = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_build import LastFrames, build
import vjepa_training.data.dataset
vjepa_training.data.dataset.BYTES_A_FILE = 2**24
def peak_mib(bag):
    folder = Path(sys.argv[2], "of-" + bag)
    dataset, (report,), _ = build(folder, Path(sys.argv[2], bag), frames=True)
    return len(dataset), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(*peak_mib("short"), *peak_mib("long"))
"""


@pytest.mark.slow
def test_the_memory_of_a_build_with_frames_does_not_grow_with_the_length_of_an_episode(tmp_path):
    """A frame has 0.5 MiB, so the long episode has 70 MiB more; written as a whole it took four times that."""
    side, frames = 418, {"short": 60, "long": 200}
    for name, count in frames.items():
        recording = Recording()
        for i in range(count):
            stamp = SECOND + i * PERIOD
            recording.add(JOINTS, JOINT_STATE, joint_state(stamp, [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]))
            recording.add(CAMERA, IMAGE_TYPE, image(stamp, i, side))
            recording.now_ns += PERIOD
        recording.write(tmp_path / name)
    command = [sys.executable, "-P", "-c", MEMORY, str(Path(__file__).parent), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    short, short_mib, long, long_mib = map(float, result.stdout.split())
    assert (short, long) == (60, 200)
    assert long_mib - short_mib < 35, (short_mib, long_mib)
