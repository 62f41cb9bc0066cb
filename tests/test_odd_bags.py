"""Bags that are odd in one place: that place is named with its count, and it costs no more than itself."""

import re
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from mcap.opcode import Opcode
from mcap.writer import CompressionType, IndexType

from tests.bag_recipes import records
from tests.foreign_bags import (
    CAMERA,
    COMMAND,
    JOINTS,
    MS,
    SECOND,
    STORE,
    T0,
    arm,
    build,
    commands,
    frames,
    header,
    image,
    in_order,
    joint_state,
    refused,
    run,
    write_mcap,
    write_metadata,
    write_sqlite,
)
from vjepa_bags.bag_reader import Bag, BagError, topic_names
from vjepa_interfaces.errors import VjepaError

ROWS = 90


def folder_of(path: Path, entries=None, **metadata) -> Path:
    """Write a bag of one file with metadata.yaml."""
    path.mkdir()
    entries = run() if entries is None else entries
    write_mcap(path / "b_0.mcap", entries)
    write_metadata(path, ["b_0.mcap"], entries, **metadata)
    return path


# ------------------------------------------------------------------------------------------------------ metadata.yaml


def test_the_count_of_each_file_in_metadata_is_compared(tmp_path):
    stated = [{"path": "b_0.mcap", "message_count": len(run()) + 7}]
    bag = folder_of(tmp_path / "b", files=stated)
    dataset, faults = build(bag)
    assert len(dataset) == ROWS
    assert faults == {f"{len(run())} messages in file 'b_0.mcap', {len(run()) + 7} stated by metadata.yaml": 7}
    assert refused(bag)


def test_a_name_that_stands_twice_in_metadata_is_named_and_the_files_are_read(tmp_path):
    bag = folder_of(tmp_path / "b")
    text = (bag / "metadata.yaml").read_text()
    (bag / "metadata.yaml").write_text(text + "  topics_with_message_count: []\n")
    dataset, faults = build(bag)
    assert len(dataset) == ROWS
    (fault,) = faults
    assert fault.startswith("metadata.yaml cannot be read ('topics_with_message_count' stands twice, in lines ")


@pytest.mark.parametrize("closed", [False, "false"])
def test_a_bag_that_was_not_closed_is_named_however_its_metadata_writes_it(closed, tmp_path):
    _, faults = build(folder_of(tmp_path / "b", custom_data={"closed": closed}))
    assert faults == {"recorder killed before it closed the bag": 1}


@pytest.mark.parametrize("what", ["total", "channel"])
def test_the_statistics_of_a_file_are_compared_in_all_and_by_channel(what, tmp_path):
    bag = write_mcap(tmp_path / "b.mcap", run())
    data = bytearray(bag.read_bytes())
    ((place, length),) = records(data, Opcode.STATISTICS)
    count = place if what == "total" else place + length - 8
    struct.pack_into("<Q", data, count, struct.unpack_from("<Q", data, count)[0] + 9)
    bag.write_bytes(data)
    dataset, faults = build(bag)
    assert len(dataset) == ROWS
    (fault,) = faults
    topic = "all topics" if what == "total" else COMMAND
    assert fault.startswith(f"fewer messages on {topic} than the statistics of b.mcap states (")
    assert faults[fault] == 9
    assert refused(bag)


# -------------------------------------------------------------------------------------------------- topics of a file


@pytest.mark.parametrize("files", ["one MCAP file", "two MCAP files", "one database"])
def test_two_types_on_one_topic_are_both_named_and_the_expected_one_is_read(files, tmp_path):
    points = [(JOINTS, at, STORE.types["std_msgs/msg/Float64"](1.0)) for _, at, _ in arm()[::10]]
    if files == "one database":
        bag = write_sqlite(tmp_path / "b.db3", run() + points)
    elif files == "one MCAP file":
        bag = write_mcap(tmp_path / "b.mcap", run() + points)
    else:
        bag = tmp_path / "b"
        bag.mkdir()
        write_mcap(bag / "b_0.mcap", run())
        write_mcap(bag / "b_1.mcap", points)
        write_metadata(bag, ["b_0.mcap", "b_1.mcap"], run())
    dataset, faults = build(bag)
    assert len(dataset) == ROWS
    what = f"message on {JOINTS} of type std_msgs/msg/Float64; those of sensor_msgs/msg/JointState are read"
    assert faults.pop(what) == 31
    assert not faults or files == "two MCAP files"
    assert refused(bag)


def test_a_topic_of_two_wrong_types_is_refused_with_both(tmp_path):
    floats = [(JOINTS, T0, STORE.types[f"std_msgs/msg/{kind}"](1.0)) for kind in ("Float64", "Float32")]
    bag = write_mcap(tmp_path / "b.mcap", frames() + floats)
    kinds = "std_msgs/msg/Float64 and std_msgs/msg/Float32"
    with pytest.raises(BagError, match=f"topic '{JOINTS}' is a {kinds}; expected sensor_msgs/msg/JointState"):
        Bag(bag, topic_names())


@pytest.mark.parametrize("row", [(CAMERA, ""), ("", ""), (CAMERA, "sensor_msgs/msg/CompressedImage")])
def test_a_row_of_topics_that_has_no_message_costs_nothing(row, tmp_path):
    import sqlite3

    bag = write_sqlite(tmp_path / "b.db3", run())
    with sqlite3.connect(bag) as database:
        database.execute("INSERT INTO topics VALUES (99, ?, ?, '', '')", row)
    database.close()
    dataset, faults = build(bag, strict=True)
    assert (len(dataset), faults) == (ROWS, Counter())


@pytest.mark.parametrize("chunked", [True, False])
def test_a_channel_whose_name_is_not_utf_8_is_named_and_costs_its_own_messages(chunked, tmp_path):
    other = [("/caméra", at, joint_state(at)) for _, at, _ in arm()[::10]]
    bag = write_mcap(
        tmp_path / "b.mcap",
        in_order(run() + other),
        use_chunking=chunked,
        compression=CompressionType.NONE,
        enable_crcs=False,
    )
    bag.write_bytes(bag.read_bytes().replace("caméra".encode(), b"cam\xff\xfera"))
    dataset, faults = build(bag)
    assert len(dataset) == ROWS
    assert faults == {r"message on '/cam\xff\xfera', which is no name in UTF-8": 31}
    assert refused(bag)


@pytest.mark.parametrize("indexed", [True, False])
def test_a_chunk_that_states_a_false_time_is_named_and_read_by_the_times_of_its_messages(indexed, tmp_path):
    options = {} if indexed else {"index_types": IndexType.NONE, "use_statistics": False}
    bag = write_mcap(tmp_path / "b.mcap", run(), chunk_size=5_000, **options)
    data = bytearray(bag.read_bytes())
    places = [place for place, _ in records(data, Opcode.CHUNK)]
    for place in places[1:3]:
        struct.pack_into("<Q", data, place, T0 + 1000 * SECOND)
    bag.write_bytes(data)
    dataset, faults = build(bag)
    assert (len(dataset), len(dataset.episodes)) == (ROWS, 1)
    assert faults == {"chunk that states a later time than its messages have, read by theirs": 2}


# ------------------------------------------------------------------------------------------------- which topic is which


@pytest.mark.parametrize(
    ("mapping", "reward", "twice"),
    [
        ("joint_command: /joint_states", "", "joint_states and joint_command are both read from '/joint_states'"),
        ("sim_bridge/target: /a\nsim_bridge/fingertip: a", "", "are both read from '/a'"),
        ("joint_states: /arm", "sim_bridge/timestep", "sim_bridge/timestep and reward are both read from"),
    ],
)
def test_one_topic_for_two_of_ours_is_refused(mapping, reward, twice, tmp_path):
    (tmp_path / "topics.yaml").write_text(mapping)
    with pytest.raises(BagError, match=f"{twice}.*; expected a topic of its own for each"):
        topic_names(mapping=tmp_path / "topics.yaml", reward=reward)


# ------------------------------------------------------------------------------------------------------------- frames


def compressed(entries, damaged=()):
    """The same frames as JPEG files, some of which lack their second half."""
    cv2 = pytest.importorskip("cv2")
    found = []
    for number, (topic, at, raw) in enumerate(entries):
        picture = cv2.resize(np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8), (64, 64))
        data = cv2.imencode(".jpg", picture)[1].tobytes()
        data = data[: len(data) // 2] + b"\xff\xd9" if number in damaged else data
        message = STORE.types["sensor_msgs/msg/CompressedImage"](raw.header, "jpeg", np.frombuffer(data, np.uint8))
        found.append((topic, at, message))
    return found


def test_damaged_jpegs_are_unreadable_pictures(tmp_path):
    shown = compressed(frames(), damaged=range(10, 17))
    dataset, faults = build(write_mcap(tmp_path / "b.mcap", in_order(shown + arm())))
    assert len(dataset) == ROWS - 7
    assert faults == {"undecodable image: damaged JPEG, of which a part alone can be decoded": 7}


def test_a_first_frame_of_another_size_costs_that_frame_alone(tmp_path):
    entries = frames()
    _, _, first = entries[0]
    first.height, first.width, first.step, first.data = 2, 2, 6, np.zeros(12, np.uint8)
    dataset, faults = build(write_mcap(tmp_path / "b.mcap", in_order(entries + arm())))
    assert len(dataset) == ROWS - 1
    assert faults == {"image of another size than (4, 4, 3)": 1}


def test_frames_whose_stamps_fall_are_named(tmp_path):
    """The times of arrival rise: a recorder whose clock was set back, or a bag that was put together wrongly."""
    stamps = [T0 + i * SECOND // 30 for i in range(ROWS)]
    falling = [(CAMERA, at + 5 * MS, image(stamp)) for at, stamp in zip(stamps, stamps[::-1], strict=True)]
    dataset, faults = build(
        write_mcap(tmp_path / "b.mcap", in_order(falling + arm())), effort_limit=1.0, control_period_s=0.033
    )
    assert len(dataset.episodes) == len(dataset)
    assert faults["episode cut where a frame is stamped before the one that arrived before it"] == ROWS - 1


# ------------------------------------------------------------------------------------------------------- joint states


def with_stamp(entry, stamp_ns: int):
    """A joint state with another stamp, which may be negative."""
    topic, at, message = entry
    return (
        topic,
        at,
        STORE.types[message.__msgtype__](
            header(stamp_ns), message.name, message.position, message.velocity, message.effort
        ),
    )


OUTLIER = "joint state with a stamp far from those around it, left out"


@pytest.mark.parametrize("derives", [False, True])
@pytest.mark.parametrize("every_ms", [10, 100])
@pytest.mark.parametrize("wrong", [T0 + 3600 * SECOND, T0 + 5 * SECOND, T0 - 3600 * SECOND, -5 * SECOND])
def test_one_wrong_stamp_costs_no_row(wrong, every_ms, derives, tmp_path):
    states = arm(3100 // every_ms, every_ms=every_ms, velocity=np.ones(2) if not derives else None)
    middle = len(states) // 2
    states[middle] = with_stamp(states[middle], wrong)
    bag = write_mcap(tmp_path / "b.mcap", in_order(frames() + states))
    dataset, faults = build(bag, derive_velocity=derives, joint_state_max_age_s=0.21)
    assert len(dataset) >= ROWS - (3 if derives and every_ms == 100 else 0), "the first state gives no velocity"
    assert len(dataset.episodes) == 1
    named = {fault: count for fault, count in faults.items() if fault.startswith(OUTLIER)}
    assert sum(named.values()) == 1 or derives
    assert not any("the newest is 0.0" in fault for fault in faults)


def test_the_first_wrong_stamp_costs_no_row_either(tmp_path):
    states = arm()
    states[0] = with_stamp(states[0], T0 + 3600 * SECOND)
    assert len(build(write_mcap(tmp_path / "b.mcap", in_order(frames() + states)))[0]) == ROWS


@pytest.mark.parametrize("derives", [False, True])
def test_stamps_before_the_epoch_are_stamps(derives, tmp_path):
    def moved(entry):
        topic, at, message = entry
        stamp = message.header.stamp.sec * SECOND + message.header.stamp.nanosec - T0 - 100 * SECOND
        if topic == JOINTS:
            return with_stamp(entry, stamp)
        return topic, at, STORE.types[message.__msgtype__](header(stamp), *list(vars(message).values())[1:7])

    entries = [moved(entry) for entry in in_order(frames() + arm())]
    dataset, faults = build(write_mcap(tmp_path / "b.mcap", entries), derive_velocity=derives)
    assert (len(dataset), len(dataset.episodes), faults) == (ROWS, 1, Counter())


def test_one_command_with_a_wrong_stamp_costs_that_command_alone(tmp_path):
    entries = commands()
    entries[45] = with_stamp(entries[45], T0 + 3600 * SECOND)
    dataset, faults = build(write_mcap(tmp_path / "b.mcap", in_order(frames() + arm() + entries)))
    assert np.isnan(np.asarray(dataset["command"])).all(axis=1).sum() == 2, "that one, and the last row's"
    (fault,) = faults
    assert fault.startswith("message on joint_command with a stamp far from those around it, left out (1700003600.000 ")


def test_slow_joint_states_are_no_clocks_apart(tmp_path):
    slow = arm(4, every_ms=1000)
    shown = [entry for entry in frames() if (entry[1] - T0) % SECOND > 300 * MS]
    dataset, faults = build(write_mcap(tmp_path / "b.mcap", in_order(shown + slow)), joint_state_max_age_s=0.4)
    assert not any("clocks apart" in fault for fault in faults)
    (fault,) = (fault for fault in faults if fault.startswith("no joint state in the 0.4 s before a frame"))
    assert "; they come at 1 Hz)" in fault
    assert faults[fault] == faults["frame without joint_states"] == len(shown) - len(dataset)


def test_slow_joint_states_of_which_no_frame_gets_one_are_named_as_slow(tmp_path):
    shown = [entry for entry in frames() if 450 * MS < (entry[1] - T0) % SECOND < 900 * MS]
    with pytest.raises(VjepaError) as raised:
        build(write_mcap(tmp_path / "b.mcap", in_order(shown + arm(4, every_ms=1000))))
    assert f"they come at 1 Hz) ({len(shown)})" in str(raised.value)
    assert "clock" not in str(raised.value)


def test_a_joint_that_is_sent_rarely_is_named(tmp_path):
    rare = arm(4, names=("j2",), every_ms=1000)
    dataset, faults = build(
        write_mcap(tmp_path / "b.mcap", in_order(frames() + arm(names=("j1",)) + rare)), joint_names=("j1", "j2")
    )
    (fault,) = (fault for fault in faults if fault.startswith("no joint state"))
    assert re.match(
        r"no joint state of j2 in the 0.1 s before a frame \(.* is 0.1\d+ s older; they come at 1 Hz\)", fault
    )
    assert faults[fault] == faults["frame without joint_states"] == ROWS - len(dataset) > 50


# ------------------------------------------------------------------------------------------------------------ rewards


def rewards(stamps, late_ns: int = 2 * MS, apart_ns: int = 0):
    vector = STORE.types["geometry_msgs/msg/Vector3"](1.0, 0.0, 0.0)
    kind = STORE.types["geometry_msgs/msg/Vector3Stamped"]
    return [("/score", stamp + late_ns, kind(header(stamp + apart_ns), vector)) for stamp in stamps]


@pytest.mark.parametrize(
    ("scores", "cause", "count"),
    [
        (rewards([T0 + k * SECOND for k in range(4)]), "no reward in the 0.1 s before a frame (frame ", 78),
        (rewards([T0 + k * 50 * MS for k in range(60)], apart_ns=-3600 * SECOND),
         "clocks apart: rewards are stamped 3600.0 s behind the frames (", 90),
        (rewards([T0 + SECOND + k * 50 * MS for k in range(60)]), "frame before the first reward", 30),
    ],
)  # fmt: skip
def test_rewards_that_are_too_old_or_of_another_clock_are_named(scores, cause, count, tmp_path):
    dataset, faults = build(
        write_mcap(tmp_path / "b.mcap", in_order(run() + scores)), names=topic_names(reward="/score")
    )
    assert len(dataset) == ROWS
    (fault,) = (fault for fault in faults if fault.startswith(cause))
    assert faults[fault] == faults["frame without a reward: NaN in next.reward"] == count
