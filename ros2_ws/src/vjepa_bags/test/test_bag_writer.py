import errno
import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys

import numpy as np
import pytest
import yaml
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.reader import make_reader
from mcap.records import Channel, Message, MessageIndex
from mcap.stream_reader import StreamReader
from mcap.writer import Writer as McapLibraryWriter
from rosbags.highlevel import AnyReader
from rosbags.interfaces import QosDurability, QosHistory, QosReliability, QosTime
from rosbags.rosbag2 import Reader, ReaderError, StoragePlugin
from rosbags.rosbag2 import Writer as RosbagsWriter
from rosbags.typesys import Stores, get_typestore

from vjepa_bags import bag_writer
from vjepa_bags.bag_audit import PublicationCounter, RepeatFilter, leading_stamp
from vjepa_bags.bag_writer import BagWriter, RecordingError, begins_with_stamp
from vjepa_interfaces.environment import distribution_of_ros
from vjepa_interfaces.topics import RECORDED

STORE = get_typestore(Stores.ROS2_JAZZY)
TIME = STORE.types["builtin_interfaces/msg/Time"]
HEADER = STORE.types["std_msgs/msg/Header"]
STRING = "std_msgs/msg/String"
POINT = "geometry_msgs/msg/PointStamped"
JOINT_STATE = "sensor_msgs/msg/JointState"
PROVENANCE = {"seed": "7", "planner": "cem: 'quoted' \"twice\"\n# ünï", "encoder": "ab" * 32}


class SteadyClock:
    """A steady clock that moves when told."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def string(text):
    return bytes(STORE.serialize_cdr(STORE.types[STRING](data=text), STRING))


def header(stamp_ns):
    return HEADER(stamp=TIME(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9), frame_id="world")


def point(stamp_ns, x=0.0):
    position = STORE.types["geometry_msgs/msg/Point"](x=x, y=0.0, z=0.0)
    return bytes(STORE.serialize_cdr(STORE.types[POINT](header=header(stamp_ns), point=position), POINT))


def joint_state(stamp_ns, effort):
    empty = np.array([], np.float64)
    message = STORE.types[JOINT_STATE](header(stamp_ns), ["shoulder", "wrist"], empty, empty, np.array(effort))
    return bytes(STORE.serialize_cdr(message, JOINT_STATE))


def scanned(path):
    """Return (topic, log time, data) of all messages in whole chunks, scanning from the front."""
    channels, messages = {}, []
    with open(path, "rb") as file:
        try:
            for record in StreamReader(file, validate_crcs=True).records:
                if isinstance(record, Channel):
                    channels[record.id] = record.topic
                elif isinstance(record, Message):
                    messages.append((channels[record.channel_id], record.log_time, record.data))
        except (McapError, ValueError, struct.error):
            pass  # the end of what is whole: the library has no one error for a torn or failed record
    return messages


def read(folder):
    with Reader(folder) as reader:
        return [(connection.topic, time, bytes(data)) for connection, time, data in reader.messages()]


def information(folder):
    return yaml.safe_load((folder / "metadata.yaml").read_text())["rosbag2_bagfile_information"]


@pytest.fixture
def clock():
    return SteadyClock()


@pytest.fixture
def bag(tmp_path, clock):
    return BagWriter(tmp_path / "runs" / "episode", PROVENANCE, clock=clock)


# ------------------------------------------------------------------------------------------------------- round trip


def test_rosbags_reads_back_every_byte_topic_type_time_and_quality_of_service(bag):
    bag.add_topic("/joint_command", JOINT_STATE, 10, latched=False)
    bag.add_topic("/vjepa_planner/active_planner", STRING, 1, latched=True)
    written = []
    for i in range(40):
        command = joint_state(10**9 + i * 20_000_000, [0.01 * i, -0.02])
        assert bag.write("/joint_command", command, 5000 + i, 4000 + i, i + 1)
        written.append(("/joint_command", 5000 + i, command))
        if i % 15 == 14:
            bag.flush()
    assert bag.write("/vjepa_planner/active_planner", string("cem"), 5100, 4100, 1)
    written.append(("/vjepa_planner/active_planner", 5100, string("cem")))
    bag.close()

    assert read(bag.path) == written
    with AnyReader([bag.path]) as reader:
        connections = {c.topic: c for c in reader.connections}
        assert {topic: c.msgtype for topic, c in connections.items()} == {
            "/joint_command": JOINT_STATE,
            "/vjepa_planner/active_planner": STRING,
        }
        assert connections["/joint_command"].digest == STORE.hash_rihs01(JOINT_STATE)
        (qos,) = connections["/joint_command"].ext.offered_qos_profiles
        (latched,) = connections["/vjepa_planner/active_planner"].ext.offered_qos_profiles
        assert (qos.history, qos.depth, qos.reliability) == (QosHistory.KEEP_LAST, 10, QosReliability.RELIABLE)
        assert qos.durability == QosDurability.VOLATILE
        assert qos.deadline == QosTime(9223372036, 854775807)
        assert latched.durability == QosDurability.TRANSIENT_LOCAL
        assert (reader.start_time, reader.end_time, reader.message_count) == (5000, 5101, 41)
        _, _, data = next(reader.messages([connections["/joint_command"]], start=5039))
        assert list(reader.deserialize(data, JOINT_STATE).effort) == [0.01 * 39, -0.02]


def test_mcap_file_follows_the_rosbag2_storage_conventions(bag):
    bag.add_topic("/clock", "rosgraph_msgs/msg/Clock", 10, latched=False)
    bag.add_topic("/joint_states", JOINT_STATE, 10, latched=False)
    bag.add_topic("/joint_command", JOINT_STATE, 10, latched=False)
    bag.write("/joint_command", joint_state(10**9, [0.1, 0.2]), 20, 10, 2**32 + 5)
    bag.write("/joint_command", joint_state(2 * 10**9, [0.1, 0.2]), 21, 0, None)
    bag.close()

    assert sorted(p.name for p in bag.path.iterdir()) == ["episode_0.mcap", "metadata.yaml"]
    with open(bag.path / "episode_0.mcap", "rb") as file:
        reader = make_reader(file, validate_crcs=True)
        assert reader.get_header().profile == "ros2"
        summary = reader.get_summary()
        assert {s.name: s.encoding for s in summary.schemas.values()} == {
            "rosgraph_msgs/msg/Clock": "ros2msg",
            JOINT_STATE: "ros2msg",
        }
        channel = next(c for c in summary.channels.values() if c.topic == "/joint_command")
        assert channel.message_encoding == "cdr"
        assert summary.schemas[channel.schema_id].name == JOINT_STATE
        definition = summary.schemas[channel.schema_id].data.decode()
        assert definition.startswith("std_msgs/Header header\nstring[] name\n")
        assert "=" * 80 + "\nMSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec" in definition
        assert channel.metadata["topic_type_hash"] == STORE.hash_rihs01(JOINT_STATE)
        assert yaml.safe_load(channel.metadata["offered_qos_profiles"])[0]["durability"] == "volatile"
        assert summary.statistics.message_count == 2
        messages = [message for _, _, message in reader.iter_messages()]
        assert [(m.log_time, m.publish_time, m.sequence) for m in messages] == [(20, 10, 5), (21, 21, 0)]
        (metadata,) = reader.iter_metadata()
    # rosbag2 reads this one when it is given the .mcap file alone.
    assert metadata.name == "rosbag2"
    assert yaml.safe_load(metadata.metadata["serialized_metadata"]) == information(bag.path)


def test_metadata_has_the_fields_that_rosbag2_version_9_reads_without_default(bag):
    bag.add_topic("/camera/image_raw", "sensor_msgs/msg/CompressedImage", 50, latched=False)
    bag.add_topic("/goal", STRING, 1, latched=True)
    bag.write("/goal", string("a"), 1_700_000_000_000_000_001, 1, 1)
    bag.write("/goal", string("b"), 1_700_000_000_000_000_501, 1, 2)
    bag.close()

    text = (bag.path / "metadata.yaml").read_text()
    assert "&id" not in text
    data = information(bag.path)
    span = {
        "duration": {"nanoseconds": 500},
        "starting_time": {"nanoseconds_since_epoch": 1_700_000_000_000_000_001},
        "message_count": 2,
    }
    infinite = {"sec": 9223372036, "nsec": 854775807}
    assert data.pop("custom_data").keys() == {*PROVENANCE, "audit", "closed"}
    assert data.pop("topics_with_message_count")[1] == {
        "topic_metadata": {
            "name": "/goal",
            "type": STRING,
            "serialization_format": "cdr",
            "offered_qos_profiles": [
                {
                    "history": "keep_last",
                    "depth": 1,
                    "reliability": "reliable",
                    "durability": "transient_local",
                    "deadline": infinite,
                    "lifespan": infinite,
                    "liveliness": "automatic",
                    "liveliness_lease_duration": infinite,
                    "avoid_ros_namespace_conventions": False,
                }
            ],
            "type_description_hash": "RIHS01_df668c740482bbd48fb39d76a70dfd4bd59db1288021743503259e948f6b1a18",
        },
        "message_count": 2,
    }
    assert data == {
        "version": 9,
        "storage_identifier": "mcap",
        **span,
        "compression_format": "",
        "compression_mode": "",
        "relative_file_paths": ["episode_0.mcap"],
        "files": [{"path": "episode_0.mcap", **span}],
        "ros_distro": distribution_of_ros(),
    }


def test_the_indexes_point_at_the_messages(bag):
    bag.add_topic("/a", STRING, 10, latched=False)
    bag.add_topic("/b", STRING, 10, latched=False)
    for i in range(12):
        bag.write("/a" if i % 3 else "/b", string("x" * i), 100 + i, 1, None)
        if i % 5 == 4:
            bag.flush()
    bag.close()
    content = (bag.path / "episode_0.mcap").read_bytes()
    with open(bag.path / "episode_0.mcap", "rb") as file:
        summary = make_reader(file).get_summary()
    assert summary.statistics.chunk_count == len(summary.chunk_indexes) == 3
    found = []
    for chunk in summary.chunk_indexes:
        records = chunk.chunk_start_offset + chunk.chunk_length - chunk.compressed_size
        for channel, offset in chunk.message_index_offsets.items():
            assert content[offset] == Opcode.MESSAGE_INDEX
            index = MessageIndex.read(ReadDataStream(io.BytesIO(content[offset + 9 :])))
            assert index.channel_id == channel
            for time, position in index.records:
                opcode, _, of, _, log_time, _ = struct.unpack_from("<BQHIQQ", content, records + position)
                assert (opcode, of, log_time) == (Opcode.MESSAGE, channel, time)
                found.append(time)
    assert sorted(found) == list(range(100, 112))


def test_messages_that_arrive_out_of_order_across_flushes_are_read_in_order(bag):
    bag.add_topic("/a", STRING, 10, latched=False)
    for time in (30, 10, 50, 20, 40):
        bag.write("/a", string(str(time)), time, 1, None)
        bag.flush()
    bag.close()
    assert [time for _, time, _ in read(bag.path)] == [10, 20, 30, 40, 50]


@pytest.fixture
def split(tmp_path, clock):
    """A bag of three files, ten messages of a kind in each of the first two and four in the last: not closed."""
    bag = BagWriter(tmp_path / "long", PROVENANCE, max_file_s=60.0, clock=clock)
    bag.add_topic("/a", STRING, 10, latched=False)
    bag.add_topic("/b", JOINT_STATE, 10, latched=False)
    for i in range(24):
        clock.now += 6.0
        bag.write("/a", string(str(i)), 100 + 2 * i, 1, i + 1)
        bag.write("/b", joint_state(10**9 * (i + 1), [0.1, 0.2]), 101 + 2 * i, 1, i + 1)
        bag.flush()
    return bag


def test_a_long_bag_goes_on_in_further_files_and_is_read_as_one(split):
    audit = split.close()
    names = [f"long_{i}.mcap" for i in range(3)]
    assert sorted(p.name for p in split.path.iterdir()) == [*names, "metadata.yaml"]
    assert [time for _, time, _ in read(split.path)] == list(range(100, 148))
    assert [(topic.recorded, topic.lost, topic.unwritten) for topic in audit.topics] == [(24, 0, 0)] * 2
    data = information(split.path)
    assert (data["relative_file_paths"], [file["path"] for file in data["files"]]) == (names, names)
    assert [file["message_count"] for file in data["files"]] == [20, 20, 8]
    assert [file["starting_time"]["nanoseconds_since_epoch"] for file in data["files"]] == [100, 120, 140]
    assert (data["message_count"], data["duration"]["nanoseconds"]) == (48, 47)
    assert [topic["message_count"] for topic in data["topics_with_message_count"]] == [24, 24]
    assert json.loads(data["custom_data"]["audit"])["/b"]["recorded"] == 24


def test_each_file_of_a_long_bag_is_whole_by_itself(split):
    split.close()
    for number, count in enumerate((20, 20, 8)):
        path = split.path / f"long_{number}.mcap"
        with open(path, "rb") as file:
            reader = make_reader(file, validate_crcs=True)
            assert reader.get_summary().statistics.message_count == count
            assert len(list(reader.iter_messages())) == count
            (metadata,) = reader.iter_metadata()
        described = yaml.safe_load(metadata.metadata["serialized_metadata"])
        assert (described["relative_file_paths"], described["message_count"]) == ([path.name], count)


def test_a_long_bag_whose_recorder_was_killed_opens(split):
    """What is on the disk while it is being written is what a kill leaves."""
    assert [time for _, time, _ in read(split.path)] == list(range(100, 148))
    assert information(split.path)["custom_data"]["closed"] == "false"


def test_where_the_next_file_cannot_be_begun_the_ones_before_stay_and_the_error_is_raised(split, clock, monkeypatch):
    before = sorted(split.path.iterdir())
    split.write("/a", string("last"), 200, 1, 25)
    clock.now += 60.0
    opened = os.open

    def full(path, flags, *mode):
        if str(path).endswith("_3.mcap"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return opened(path, flags, *mode)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", full)
        with pytest.raises(RecordingError, match="No space left on device; recording has stopped"):
            split.flush()
    assert not split.write("/a", string("lost"), 201, 1, 26)
    audit = split.close()
    assert (audit.topics[0].recorded, audit.topics[0].unwritten) == (25, 1)
    assert sorted(split.path.iterdir()) == before
    assert [time for _, time, _ in read(split.path)] == [*range(100, 148), 200]


def test_every_recorded_topic_of_the_stack_can_be_added(bag):
    for topic in RECORDED:
        bag.add_topic("/" + topic.name.lstrip("/"), topic.type, topic.depth, topic.latched)
    bag.close()
    assert len(information(bag.path)["topics_with_message_count"]) == len(RECORDED)


# ------------------------------------------------------------------------------------------------ provenance, refusal


def test_provenance_and_audit_are_in_the_custom_data_of_the_bag(bag):
    bag.add_topic("/a", STRING, 10, latched=False)
    for sequence in (3, 4, 7):
        bag.write("/a", string("x"), sequence, 1, sequence)
    bag.close()
    with AnyReader([bag.path]) as reader:
        custom = reader.readers[0].storage.metadata.custom
    assert {key: custom[key] for key in PROVENANCE} == PROVENANCE
    assert custom["closed"] == "true"
    assert json.loads(custom["audit"])["/a"] == {
        "published": 5,
        "recorded": 3,
        "repeated": 0,
        "lost": 2,
        "unwritten": 0,
        "unnumbered": 0,
        "publishers": 1,
    }


def test_an_existing_path_is_refused_and_left_alone(bag):
    bag.close()
    before = (bag.path / "episode_0.mcap").read_bytes()
    with pytest.raises(RecordingError, match=r"episode' exists already; choose another name"):
        BagWriter(bag.path, {})
    assert (bag.path / "episode_0.mcap").read_bytes() == before


def test_a_bag_that_is_removed_while_it_is_written_is_not_made_anew(bag):
    bag.add_topic("/a", STRING, 10, latched=False)
    bag.write("/a", string("x"), 1, 1, 1)
    shutil.rmtree(bag.path)
    with pytest.raises(RecordingError, match="No such file or directory; recording has stopped"):
        bag.flush()
    bag.close()
    assert not bag.path.exists()


def test_a_path_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordingError, match="cannot be created: Not a directory"):
        BagWriter(tmp_path / "file" / "bag", {})


@pytest.mark.parametrize("provenance", [{"audit": "x"}, {"closed": "x"}, {"seed": 7}])
def test_provenance_that_would_be_overwritten_or_is_no_string_is_refused(tmp_path, provenance):
    with pytest.raises(RecordingError, match=next(iter(provenance))):
        BagWriter(tmp_path / "bag", provenance)
    assert not (tmp_path / "bag").exists()


@pytest.mark.parametrize(
    ("name", "type_name", "message"),
    [
        ("relative", STRING, "relative"),
        ("/known", STRING, "added before"),
        ("/new", "other_msgs/msg/Thing", "expected a message type of ROS 2 Jazzy"),
        ("/new", "std_msgs/String", "expected a message type of ROS 2 Jazzy"),
    ],
)
def test_topics_that_no_bag_can_hold_are_refused(bag, name, type_name, message):
    bag.add_topic("/known", STRING, 10, latched=False)
    with pytest.raises(RecordingError, match=message):
        bag.add_topic(name, type_name, 10, latched=False)
    bag.close()


def test_writing_to_an_unknown_topic_or_a_closed_bag_is_refused(bag):
    bag.add_topic("/a", STRING, 10, latched=False)
    with pytest.raises(RecordingError, match="topic '/b' was not added; recorded are: /a"):
        bag.write("/b", string("x"), 1, 1, 1)
    assert bag.close() == bag.close()
    with pytest.raises(RecordingError, match="is closed"):
        bag.write("/a", string("x"), 1, 1, 1)


# ----------------------------------------------------------------------------------------------------- flush and kill


def test_the_folder_is_a_readable_empty_bag_from_the_start(bag):
    assert read(bag.path) == []
    with AnyReader([bag.path]) as reader:
        assert reader.message_count == 0
    assert information(bag.path)["custom_data"]["closed"] == "false"
    assert scanned(bag.path / "episode_0.mcap") == []
    bag.close()


def test_a_message_reaches_the_disk_after_the_flush_period_even_in_silence(bag, clock):
    bag.add_topic("/a", STRING, 10, latched=False)
    bag.flush()
    bag.write("/a", string("x"), 1, 1, 1)
    clock.now += 0.49
    bag.flush_if_due()
    assert read(bag.path) == []
    clock.now += 0.02
    bag.flush_if_due()
    assert read(bag.path) == [("/a", 1, string("x"))]
    bag.close()


def test_the_oldest_waiting_message_sets_the_time_of_the_flush(bag, clock):
    bag.add_topic("/a", STRING, 10, latched=False)
    bag.flush()
    for i in range(6):
        bag.write("/a", string("x"), i, 1, i + 1)
        clock.now += 0.125
    assert [time for _, time, _ in read(bag.path)] == [0, 1, 2, 3, 4]
    bag.close()


def test_much_data_is_flushed_before_the_period_ends(bag, monkeypatch):
    monkeypatch.setattr(bag_writer, "MAX_PENDING_BYTES", 10_000)
    bag.add_topic("/a", STRING, 10, latched=False)
    for i in range(25):
        bag.write("/a", string("x" * 1000), i, 1, i + 1)
    assert 10 <= len(read(bag.path)) < 25
    bag.close()


def test_the_folder_is_whole_for_every_reader_after_every_flush(bag, tmp_path):
    bag.add_topic("/a", STRING, 10, latched=False)
    for i in range(5):
        if i == 3:
            bag.add_topic("/later", POINT, 10, latched=False)
        for j in range(i + 1):
            bag.write("/a", string("x" * j), 100 * i + j, 1, None)
        bag.flush()
        copy = tmp_path / f"copy{i}" / "episode"
        shutil.copytree(bag.path, copy)
        count = (i + 1) * (i + 2) // 2
        assert len(read(copy)) == len(scanned(copy / "episode_0.mcap")) == count
        with AnyReader([copy]) as reader:
            assert reader.message_count == len(list(reader.messages())) == count
        with open(copy / "episode_0.mcap", "rb") as file:
            assert len(list(make_reader(file, validate_crcs=True).iter_messages())) == count
    bag.close()


def test_a_commit_torn_at_any_byte_leaves_all_earlier_chunks_whole(bag, tmp_path):
    path = bag.path / "episode_0.mcap"
    bag.add_topic("/a", STRING, 10, latched=False)
    for i in range(3):
        bag.write("/a", string(f"first {i}"), i, 1, None)
    bag.flush()
    before = path.read_bytes()
    for i in range(3):
        bag.write("/a", string(f"second {i}" * 50), 10 + i, 1, None)
    bag.flush()
    after = path.read_bytes()
    bag.close()
    first = next(i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b)
    assert len(after) > len(before)
    torn = tmp_path / "torn.mcap"
    for cut in range(first, len(after)):
        torn.write_bytes(after[:cut])
        assert [time for _, time, _ in scanned(torn)] in ([0, 1, 2], [0, 1, 2, 10, 11, 12])


def test_the_writers_of_rosbags_and_of_the_mcap_library_leave_nothing_to_open_until_they_close(tmp_path):
    """The reason for a file layer of our own: what lies on disk now is what a kill would leave."""
    rosbags_writer = RosbagsWriter(tmp_path / "by_rosbags", version=9, storage_plugin=StoragePlugin.MCAP)
    rosbags_writer.open()
    connection = rosbags_writer.add_connection("/a", STRING, typestore=STORE)
    for i in range(500):
        rosbags_writer.write(connection, i, string("x" * 300))
    assert [(p.name, p.stat().st_size) for p in (tmp_path / "by_rosbags").iterdir()] == [("by_rosbags.mcap", 0)]
    rosbags_writer.close()

    path = tmp_path / "by_mcap.mcap"
    mcap_writer = McapLibraryWriter(str(path))
    mcap_writer.start("ros2")
    schema = mcap_writer.register_schema(STRING, "ros2msg", b"string data")
    channel = mcap_writer.register_channel("/a", "cdr", schema)
    for i in range(500):
        mcap_writer.add_message(channel, i, string("x" * 300), i)
    assert path.stat().st_size == 0
    mcap_writer.flush()
    assert len(scanned(path)) == 500
    with pytest.raises(ReaderError, match="File end magic is invalid"):
        Reader(path).open()
    mcap_writer.finish()


RECORDER = """
import itertools, sys, time
from pathlib import Path
from vjepa_bags.bag_writer import BagWriter
bag = BagWriter(Path(sys.argv[1]), {"seed": "1"})
bag.add_topic("/a", "std_msgs/msg/String", 10, latched=False)
for i in itertools.count(1):
    text = f"message {i} " + "x" * 2000
    data = b"\\0\\1\\0\\0" + (len(text) + 1).to_bytes(4, "little") + text.encode() + b"\\0"
    now = time.monotonic_ns()
    bag.write("/a", data, now, now, i)
    print(i, now, flush=True)
    time.sleep(0.0005)
"""

RECORDER_THAT_FALLS_SILENT = """
import sys
from pathlib import Path
from vjepa_bags.bag_writer import BagWriter
bag = BagWriter(Path(sys.argv[1]), {"seed": "1"}, clock=lambda: 0.0)
bag.add_topic("/a", "std_msgs/msg/String", 10, latched=False)
for i in range(1, 101):
    bag.write("/a", b"\\0\\1\\0\\0\\2\\0\\0\\0a\\0", i, i, i)
    if i == 90:
        bag.flush()
print("waiting", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def start_recorder(tmp_path):
    children = []

    def start(script, *arguments):
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        command = [sys.executable, "-c", script, str(tmp_path / "killed"), *arguments]
        children.append(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        )
        return children[-1], tmp_path / "killed"

    yield start
    for child in children:
        child.kill()
        child.communicate()


def test_a_recorder_killed_while_writing_loses_at_most_the_last_second(start_recorder):
    child, folder = start_recorder(RECORDER)
    progress = []
    for line in child.stdout:
        progress.append(tuple(map(int, line.split())))
        if progress[-1][1] - progress[0][1] > 1.7e9:
            break
    child.send_signal(signal.SIGKILL)
    rest, _ = child.communicate()
    progress += [tuple(map(int, line.split())) for line in rest.splitlines()]
    assert child.returncode == -signal.SIGKILL

    recovered = scanned(folder / "killed_0.mcap")
    texts = [data[8:-1].decode().split("x")[0] for _, _, data in recovered]
    assert texts == [f"message {i} " for i in range(1, len(recovered) + 1)]
    killed_at = progress[-1][1]
    assert sum(now <= killed_at - 1e9 for _, now in progress) > 100
    lost = [now for i, now in progress if i > len(recovered)]
    assert all(killed_at - now < 1e9 for now in lost)
    assert information(folder)["custom_data"]["closed"] == "false"


def test_a_recorder_killed_between_two_flushes_leaves_a_bag_that_rosbags_opens(start_recorder):
    child, folder = start_recorder(RECORDER_THAT_FALLS_SILENT)
    assert child.stdout.readline() == "waiting\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert [time for _, time, _ in read(folder)] == list(range(1, 91))
    with AnyReader([folder]) as reader:
        assert reader.message_count == 90
        custom = reader.readers[0].storage.metadata.custom
    assert custom["closed"] == "false"
    assert json.loads(custom["audit"])["/a"]["recorded"] == 90


# ------------------------------------------------------------------------------------------------------- write errors

RECORDER_OF_A_SMALL_DISK = """
import resource, sys
from pathlib import Path
from rosbags.rosbag2 import Reader
from vjepa_bags.bag_writer import BagWriter, RecordingError
bag = BagWriter(Path(sys.argv[1]), {})
bag.add_topic("/a", "std_msgs/msg/String", 10, latched=False)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
errors, taken = [], 0
for i in range(1, 301):
    try:
        taken += bag.write("/a", b"\\0\\1\\0\\0\\xe8\\3\\0\\0" + b"a" * 999 + b"\\0", i, i, i)
        if i % 10 == 0:
            bag.flush()
    except RecordingError as error:
        errors.append(str(error))
        with Reader(bag.path) as reader:
            readable_at_once = len(list(reader.messages()))
audit = bag.close()
topic = audit.topics[0]
print(len(errors), readable_at_once, topic.recorded, topic.unwritten, audit.error, errors[0], sep="|")
"""


def test_a_full_disk_is_reported_once_and_what_was_written_stays_readable(start_recorder):
    child, folder = start_recorder(RECORDER_OF_A_SMALL_DISK)
    output, _ = child.communicate()
    errors, readable_at_once, recorded, unwritten, error, text = output.strip().split("|")
    assert errors == "1"
    assert error == "File too large"
    assert "could not be written: File too large; recording has stopped" in text
    assert int(recorded) + int(unwritten) == 300
    assert int(recorded) == int(readable_at_once) >= 80
    assert [time for _, time, _ in read(folder)] == list(range(1, int(recorded) + 1))
    assert information(folder)["message_count"] == int(recorded)
    assert not list(folder.glob(".*"))


# -------------------------------------------------------------------------------------------------------------- audit


def counted(*sequences):
    counter = PublicationCounter()
    for sequence in sequences:
        counter.observe(sequence)
    return counter.lost, counter.publishers


def test_gaps_in_the_sequence_are_losses():
    assert counted(1, 2, 3) == (0, 1)
    assert counted(1, 2, 5, 6, 9) == (4, 1)


def test_messages_before_the_first_one_seen_are_no_losses():
    assert counted(400, 401, 403) == (1, 1)


def test_a_restarted_publisher_begins_a_count_of_its_own():
    assert counted(98, 99, 100, 1, 2, 4) == (1, 2)
    assert counted(*range(1, 51), *range(1, 200)) == (0, 2)
    assert counted(50, 1, 50, 51) == (48, 2)


def test_publishers_side_by_side_are_told_apart():
    both = [n for pair in zip(range(1000, 1100), range(5, 105), strict=True) for n in pair]
    assert counted(*both) == (0, 2)
    assert counted(*(n for n in both if n not in (1040, 60))) == (2, 2)
    in_step = [n for n in range(1, 60) for _ in range(6)]
    assert counted(*in_step) == (0, 6)
    in_step.remove(30)
    assert counted(*in_step) == (1, 6)


def test_a_second_publisher_that_joins_with_high_numbers_is_no_loss():
    assert counted(1, 2, 3, 9000, 4, 9001, 5, 6, 9003) == (1, 2)


def test_many_publishers_do_not_exhaust_the_counter():
    assert counted(*(start + i for i in range(50) for start in range(30_000, 0, -1000)))[1] >= 30


def test_messages_without_a_sequence_number_are_counted_apart(bag):
    bag.add_topic("/a", STRING, 10, latched=False)
    for sequence in (None, 2**64 - 1, 3):
        bag.write("/a", string("x"), 1, 1, sequence)
    (topic,) = bag.close().topics
    assert (topic.recorded, topic.unnumbered, topic.lost) == (3, 2, 0)


def test_the_audit_adds_up_and_reads_as_a_table(bag):
    bag.add_topic("/target", POINT, 50, latched=False)
    for sequence, stamp in ((1, 10**9), (2, 10**9), (5, 2 * 10**9)):
        bag.write("/target", point(stamp), sequence, 1, sequence)
    audit = bag.close()
    (topic,) = audit.topics
    assert (topic.published, topic.recorded, topic.repeated, topic.lost) == (5, 2, 1, 2)
    assert audit.lost == 2
    assert str(audit).splitlines()[1].split() == ["5", "2", "1", "2", "0", "/target"]


# ------------------------------------------------------------------------------------------------------------ repeats


@pytest.mark.parametrize(
    ("type_name", "stamped"),
    [
        ("sensor_msgs/msg/Image", True),
        (JOINT_STATE, True),
        ("rosgraph_msgs/msg/Clock", True),
        ("diagnostic_msgs/msg/DiagnosticArray", True),
        (STRING, False),
        ("std_msgs/msg/Float64MultiArray", False),
        ("std_msgs/msg/Empty", False),
        ("tf2_msgs/msg/TFMessage", False),
        ("geometry_msgs/msg/Point", False),
    ],
)
def test_types_that_begin_with_a_stamp_are_known_by_their_definition(type_name, stamped):
    assert begins_with_stamp(STORE, type_name) is stamped


def test_the_leading_stamp_is_read_in_either_byte_order():
    message = STORE.types[POINT](header=header(3_000_000_007), point=STORE.types["geometry_msgs/msg/Point"](0, 0, 0))
    assert leading_stamp(bytes(STORE.serialize_cdr(message, POINT, little_endian=True))) == 3_000_000_007
    assert leading_stamp(bytes(STORE.serialize_cdr(message, POINT, little_endian=False))) == 3_000_000_007
    assert leading_stamp(b"\0\1\0\0\1\0\0") is None


def kept(bag, topic, messages):
    return [bag.write(topic, data, i + 1, 1, i + 1) for i, data in enumerate(messages)]


def test_a_frame_sent_again_is_kept_once(bag):
    bag.add_topic("/camera", POINT, 50, latched=False)
    frames = [point(n * 10**9) for n in (1, 2, 2, 2, 3)]
    assert kept(bag, "/camera", frames) == [True, True, False, False, True]
    (topic,) = bag.close().topics
    assert (topic.recorded, topic.repeated) == (3, 2)
    assert [data for _, _, data in read(bag.path)] == [frames[0], frames[1], frames[4]]


@pytest.mark.parametrize("steps", [2, 30])
def test_a_restarted_simulation_goes_through_the_same_stamps_and_is_kept(bag, steps):
    bag.add_topic("/camera", POINT, 50, latched=False)
    run = [point(10**9 + n * 20_000_000) for n in range(steps)]
    assert all(kept(bag, "/camera", run + run))
    bag.close()


def test_messages_of_one_stamp_that_differ_are_all_kept(bag):
    bag.add_topic("/joint_command", JOINT_STATE, 10, latched=False)
    a, b = joint_state(5 * 10**9, [0.01, 0.02]), joint_state(5 * 10**9, [0.03, 0.04])
    assert kept(bag, "/joint_command", [a, b, a, b]) == [True, True, False, False]
    bag.close()


def test_commands_without_a_stamp_are_kept_always(bag):
    bag.add_topic("/joint_command", JOINT_STATE, 10, latched=False)
    zero, command = joint_state(0, [0.0, 0.0]), joint_state(5 * 10**9, [0.1, 0.2])
    assert kept(bag, "/joint_command", [command, zero, zero, command]) == [True, True, True, False]
    bag.close()


def test_messages_without_a_header_are_never_repeats(bag):
    bag.add_topic("/plan", STRING, 10, latched=False)
    assert all(kept(bag, "/plan", [string("same")] * 3))
    bag.close()


def test_garbage_in_the_alignment_padding_does_not_hide_a_repeat(bag):
    bag.add_topic("/joint_command", JOINT_STATE, 10, latched=False)
    clean = joint_state(5 * 10**9, [0.1, 0.2])
    frame_id_end = clean.index(b"world\0") + 6
    assert clean[frame_id_end : frame_id_end + 2] == b"\0\0"
    dirty = clean[:frame_id_end] + b"qq" + clean[frame_id_end + 2 :]
    assert kept(bag, "/joint_command", [clean, dirty]) == [True, False]
    bag.close()


def test_bytes_that_are_no_message_of_the_type_are_recorded_as_they_came(bag):
    bag.add_topic("/joint_command", JOINT_STATE, 10, latched=False)
    stump = joint_state(5 * 10**9, [0.1, 0.2])[:20]
    other = stump[:-1] + b"?"
    assert kept(bag, "/joint_command", [stump, other, b"", stump]) == [True, True, True, False]
    bag.close()
    assert [data for _, _, data in read(bag.path)] == [stump, other, b""]


def test_contents_remembered_at_one_stamp_are_bounded():
    repeats = RepeatFilter(canonical=lambda data: data)
    messages = [point(10**9, x=float(i)) for i in range(100)]
    assert not any(repeats.is_repeat(m) for m in messages)
    assert repeats.is_repeat(messages[-1])
    assert not repeats.is_repeat(messages[0])
