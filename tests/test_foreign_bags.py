"""Bags of other recorders: every message is read, or the output names and counts it, and --strict fails."""

import re
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import zstandard
from mcap.opcode import Opcode
from mcap.writer import MCAP0_MAGIC as MAGIC
from mcap.writer import CompressionType, IndexType

from tests.foreign_bags import (
    CAMERA,
    COMMAND,
    JOINTS,
    MS,
    QOS,
    SECOND,
    STORE,
    T0,
    arm,
    build,
    cdr,
    commands,
    frames,
    header,
    in_order,
    joint_state,
    refused,
    run,
    write_mcap,
    write_metadata,
    write_sqlite,
)
from vjepa_bags.bag_reader import Bag, topic_names
from vjepa_interfaces.errors import VjepaError
from vjepa_training.data.build import BuildConfig, build_dataset
from vjepa_training.data.dataset import DatasetError

ROWS = 90


def split(folder: Path, listed=(0, 1, 2), written=(0, 1, 2), write=write_mcap, suffix="mcap") -> Path:
    """Write a run of three seconds in three files, some of them listed in metadata.yaml and some there."""
    folder.mkdir()
    entries = run()
    for number in written:
        first, last = T0 + (number - (number == 0)) * SECOND, T0 + (number + 1 + (number == 2)) * SECOND
        write(folder / f"b_{number}.{suffix}", [entry for entry in entries if first <= entry[1] < last])
    write_metadata(folder, [f"b_{number}.{suffix}" for number in listed], entries)
    return folder


@pytest.mark.parametrize(("write", "suffix"), [(write_mcap, "mcap"), (write_sqlite, "db3")])
def test_a_whole_bag_of_another_recorder_has_no_faults(write, suffix, tmp_path):
    dataset, faults = build(split(tmp_path / "b", write=write, suffix=suffix), strict=True)
    assert (len(dataset), faults) == (ROWS, Counter())
    assert np.isfinite(np.asarray(dataset["command"])[:-1]).all()
    assert np.isfinite(np.asarray(dataset["action"])[:-1]).all()


# ----------------------------------------------------------------------------------------------------------- the files


@pytest.mark.parametrize("unlisted", [0, 1, 2])
def test_a_split_file_that_metadata_does_not_list_is_read_and_named(unlisted, tmp_path):
    bag = split(tmp_path / "b", listed=[number for number in range(3) if number != unlisted])
    dataset, faults = build(bag)
    assert len(dataset) == ROWS
    assert faults == {f"file 'b_{unlisted}.mcap' is not listed in metadata.yaml; it was read": 1}
    assert refused(bag)


def test_metadata_that_counts_the_listed_files_alone_is_named_as_counting_too_few(tmp_path):
    bag = split(tmp_path / "b", listed=(0, 1))
    write_metadata(bag, ["b_0.mcap", "b_1.mcap"], [entry for entry in run() if entry[1] < T0 + 2 * SECOND])
    dataset, faults = build(bag)
    assert len(dataset) == ROWS
    assert faults[f"more messages on {CAMERA} than metadata.yaml states (90, 60 stated)"] == 30


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_split_file_that_is_listed_and_missing_is_named_with_what_it_cost(missing, tmp_path):
    bag = split(tmp_path / "b", written=[number for number in range(3) if number != missing])
    dataset, faults = build(bag)
    assert len(dataset) == 60
    assert faults[f"no file 'b_{missing}.mcap', which metadata.yaml lists"] == 1
    assert faults[f"fewer messages on {CAMERA} than metadata.yaml states (60, 90 stated)"] == 30
    assert refused(bag)


def test_files_that_belong_to_no_split_are_named_and_not_read(tmp_path):
    bag = split(tmp_path / "b")
    write_mcap(bag / "notes.mcap", run())
    write_sqlite(bag / "b_0.db3", run())
    (bag / "b_1.mcap.zstd").write_bytes(zstandard.compress((bag / "b_1.mcap").read_bytes()))
    dataset, faults = build(bag)
    assert len(dataset) == ROWS
    assert faults == {
        "file 'notes.mcap' was not read: metadata.yaml does not list it, and it is no further split": 1,
        "file 'b_0.db3' was not read: 'b_0.mcap' has the same name": 1,
        "file 'b_1.mcap.zstd' was not read: 'b_1.mcap' has the same name": 1,
    }


def test_a_compressed_file_takes_the_place_of_the_plain_one_that_is_listed(tmp_path):
    bag = split(tmp_path / "b")
    (bag / "b_1.mcap.zstd").write_bytes(zstandard.compress((bag / "b_1.mcap").read_bytes()))
    (bag / "b_1.mcap").unlink()
    dataset, faults = build(bag)
    assert len(dataset) == ROWS
    assert faults == {"no file 'b_1.mcap', which metadata.yaml lists: 'b_1.mcap.zstd' was read in its place": 1}


def test_files_are_read_by_their_times_in_whichever_order_they_are_listed(tmp_path):
    bag = split(tmp_path / "b")
    write_metadata(bag, ["b_2.mcap", "b_0.mcap", "b_1.mcap"], run())
    (bag / "b_0.mcap").rename(bag / "moving")
    (bag / "b_2.mcap").rename(bag / "b_0.mcap")
    (bag / "moving").rename(bag / "b_2.mcap")
    dataset, faults = build(bag, strict=True)
    assert (len(dataset), len(dataset.episodes), faults) == (ROWS, 1, Counter())


def test_files_of_one_topic_each_are_read_side_by_side(tmp_path):
    bag = tmp_path / "b"
    bag.mkdir()
    for number, entries in enumerate((frames(), arm(), commands())):
        write_mcap(bag / f"b_{number}.mcap", entries)
    write_metadata(bag, [f"b_{number}.mcap" for number in range(3)], run())
    dataset, faults = build(bag, strict=True)
    assert (len(dataset), faults) == (ROWS, Counter())


def test_damaged_metadata_is_named_and_the_files_are_read(tmp_path):
    bag = split(tmp_path / "b")
    (bag / "metadata.yaml").write_text("rosbag2_bagfile_information: [")
    dataset, faults = build(bag)
    assert len(dataset) == ROWS
    assert faults == {"metadata.yaml cannot be read: the files are read without it": 1}


# ----------------------------------------------------------------------------------------- what metadata may differ in


@pytest.mark.parametrize("topic", [CAMERA, JOINTS, COMMAND])
def test_qualities_that_differ_from_those_of_the_file_cost_no_message(topic, tmp_path):
    bag = split(tmp_path / "b")
    edited = {topic: QOS.replace("reliability: 1", "reliability: 2")}
    write_metadata(bag, ["b_0.mcap", "b_1.mcap", "b_2.mcap"], run(), edited)
    dataset, faults = build(bag, strict=True)
    assert (len(dataset), faults) == (ROWS, Counter())
    assert np.isfinite(np.asarray(dataset["command"])[:-1]).all()


def test_a_topic_that_metadata_states_and_no_file_has_is_named(tmp_path):
    bag = split(tmp_path / "b")
    extra = [("/lost", at, message) for _, at, message in arm(7)]
    write_metadata(bag, ["b_0.mcap", "b_1.mcap", "b_2.mcap"], run() + extra)
    assert build(bag)[1] == {"fewer messages on /lost than metadata.yaml states (0, 7 stated)": 7}
    assert refused(bag)


def test_another_type_in_metadata_is_named_and_the_file_counts(tmp_path):
    bag = split(tmp_path / "b")
    text = (bag / "metadata.yaml").read_text()
    (bag / "metadata.yaml").write_text(text.replace("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"))
    dataset, faults = build(bag)
    assert len(dataset) == ROWS
    assert sum(faults.values()) == 3, "one for each file"
    assert all("states type sensor_msgs/msg/CompressedImage of topic /camera/image_raw" in fault for fault in faults)


@pytest.mark.parametrize("stated", ["MESSAGE", ""])
@pytest.mark.parametrize("compressed", [True, False])
def test_messages_tell_themselves_whether_they_are_compressed(stated, compressed, tmp_path):
    bag = tmp_path / "b"
    bag.mkdir()
    encode = (lambda message: zstandard.compress(cdr(message))) if compressed else cdr
    write_mcap(bag / "b_0.mcap", run(), encode=encode)
    mode = {"compression_mode": stated, "compression_format": "zstd" if stated else ""}
    write_metadata(bag, ["b_0.mcap"], run(), **mode)
    dataset, faults = build(bag, strict=True)
    assert (len(dataset), faults) == (ROWS, Counter())


# ------------------------------------------------------------------------------------------------- inside an MCAP file


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("order", ["two swapped", "backwards", "shuffled"])
def test_the_order_of_messages_in_a_file_does_not_matter(order, chunked, tmp_path):
    entries = run()
    if order == "two swapped":
        entries[120], entries[121] = entries[121], entries[120]
    elif order == "backwards":
        entries.reverse()
    else:
        entries = [entries[i] for i in np.random.default_rng(1).permutation(len(entries))]
    file = write_mcap(tmp_path / "b.mcap", entries, use_chunking=chunked, chunk_size=20_000)
    dataset, faults = build(file, strict=True)
    assert (len(dataset), len(dataset.episodes), faults) == (ROWS, 1, Counter())


@pytest.mark.parametrize("profile", ["", "ros1", "ros2", "something"])
@pytest.mark.parametrize("chunked", [True, False])
def test_the_profile_does_not_matter(profile, chunked, tmp_path):
    file = write_mcap(tmp_path / "b.mcap", run(), profile=profile, use_chunking=chunked)
    dataset, faults = build(file, strict=True)
    assert (len(dataset), faults) == (ROWS, Counter())


@pytest.mark.parametrize("left_out", ["statistics", "indexes", "summary", "repeated channels", "everything"])
def test_what_a_file_leaves_out_of_its_end_costs_no_message(left_out, tmp_path):
    options = {
        "statistics": {"use_statistics": False},
        "indexes": {"index_types": IndexType.NONE},
        "summary": {"use_statistics": False, "repeat_channels": False, "repeat_schemas": False},
        "repeated channels": {"repeat_channels": False},
        "everything": {
            "use_statistics": False,
            "repeat_channels": False,
            "repeat_schemas": False,
            "index_types": IndexType.NONE,
            "use_summary_offsets": False,
        },
    }[left_out]
    dataset, faults = build(write_mcap(tmp_path / "b.mcap", run(), chunk_size=20_000, **options), strict=True)
    assert (len(dataset), faults) == (ROWS, Counter())


def test_a_chunk_of_an_unknown_compression_is_named_with_the_messages_that_it_has(tmp_path):
    file = write_mcap(tmp_path / "b.mcap", run(), chunk_size=20_000, compression=CompressionType.ZSTD)
    data = file.read_bytes()
    place = data.index(b"zstd", len(data) // 3)
    file.write_bytes(data[:place] + b"brot" + data[place + 4 :])
    dataset, faults = build(file)
    (chunk,) = (fault for fault in faults if fault.startswith("damaged chunk left out"))
    assert "compression 'brot'; expected zstd, lz4 or none" in chunk
    lost = faults[f"message on {CAMERA} lost in a damaged chunk"]
    assert 0 < lost < 90
    assert len(dataset) == 90 - lost
    assert refused(file)


def test_messages_of_another_encoding_are_named(tmp_path):
    file = write_mcap(tmp_path / "b.mcap", in_order(frames() + arm()))
    data = file.read_bytes()
    other = write_mcap(tmp_path / "json.mcap", commands(), encoding="json")
    bag = tmp_path / "bag"
    bag.mkdir()
    (bag / "b_0.mcap").write_bytes(data)
    (bag / "b_1.mcap").write_bytes(other.read_bytes())
    write_metadata(bag, ["b_0.mcap", "b_1.mcap"], run())
    dataset, faults = build(bag)
    assert len(dataset) == ROWS
    assert faults[f"message on {COMMAND} encoded as 'json'; expected cdr"] == 90
    assert refused(bag)


def test_messages_of_a_channel_that_no_record_describes_are_named(tmp_path):
    file = write_mcap(tmp_path / "b.mcap", run(), use_chunking=False, repeat_channels=False)
    data = bytearray(file.read_bytes())
    position, changed = 8, 0
    while position + 9 <= len(data):
        opcode, length = struct.unpack_from("<BQ", data, position)
        if opcode == 5 and data[position + 9 : position + 11] == struct.pack("<H", 1) and changed < 10:
            data[position + 9 : position + 11] = struct.pack("<H", 77)
            changed += 1
        position += 9 + length
    file.write_bytes(data)
    _, faults = build(file)
    assert faults["message of channel 77, which the file does not describe"] == 10
    assert refused(file)


@pytest.mark.parametrize("what", ["statistics", "index"])
def test_counts_of_a_file_that_are_not_those_of_its_messages_are_named(what, tmp_path):
    file = write_mcap(tmp_path / "b.mcap", run(), compression=CompressionType.NONE)
    data = bytearray(file.read_bytes())
    position = 8
    while position + 9 <= len(data):
        opcode, length = struct.unpack_from("<BQ", data, position)
        if opcode == 0x0B and what == "statistics":
            data[position + 9 + length - 8 : position + 9 + length] = struct.pack("<Q", 400)
        if opcode == 0x07 and what == "index":
            struct.pack_into("<H", data, position + 9, 99)
        position += 9 + length
    file.write_bytes(data)
    dataset, faults = build(file)
    assert len(dataset) == ROWS
    assert faults
    assert all(f"than the {what} of b.mcap states" in fault for fault in faults)
    assert refused(file)


# --------------------------------------------------------------------------------------------------- inside a database


def test_rows_without_a_topic_a_time_or_bytes_are_named(tmp_path):
    import sqlite3

    file = write_sqlite(tmp_path / "b.db3", run())
    with sqlite3.connect(file) as database:
        (number,) = database.execute("SELECT id FROM topics WHERE name = ?", (COMMAND,)).fetchone()
        ids = [row[0] for row in database.execute("SELECT id FROM messages WHERE topic_id = ?", (number,))]
        database.executemany("UPDATE messages SET topic_id = 99 WHERE id = ?", [(i,) for i in ids[:5]])
        database.executemany("UPDATE messages SET timestamp = 'x' WHERE id = ?", [(i,) for i in ids[5:9]])
        database.executemany("UPDATE messages SET data = 'x' WHERE id = ?", [(i,) for i in ids[9:12]])
    database.close()
    dataset, faults = build(file)
    assert len(dataset) == ROWS
    assert faults == {
        "message of topic number 99, which the file does not describe": 5,
        "message without a topic or a time in its row": 4,
        f"message on {COMMAND} lost: its row has no bytes": 3,
    }
    assert refused(file)


def test_rows_in_any_order_are_read_by_their_times(tmp_path):
    dataset, faults = build(write_sqlite(tmp_path / "b.db3", run()[::-1]), strict=True)
    assert (len(dataset), len(dataset.episodes), faults) == (ROWS, 1, Counter())


def test_frames_and_joint_states_keep_their_times(tmp_path):
    """The writers of this module write frames 33 ms apart, and the newest state before each is joined."""
    dataset, _ = build(write_mcap(tmp_path / "b.mcap", run()))
    stamps = np.array([i * SECOND // 30 for i in range(90)])
    np.testing.assert_array_equal(dataset["stamp_ns"][:], stamps)
    np.testing.assert_allclose(
        np.asarray(dataset["observation.joint_position"])[:, 0], 0.01 * ((stamps + 50 * MS) // (10 * MS))
    )


# ------------------------------------------------------------------------------------------- why a frame has no joints


def zero_stamped(entries):
    for _, _, message in entries:
        message.header.stamp.sec = message.header.stamp.nanosec = 0
    return entries


def joined(tmp_path, entries, strict=False, **settings):
    return build(write_mcap(tmp_path / "b.mcap", in_order(entries)), strict, **settings)


def nothing_joined(tmp_path, entries, **settings) -> str:
    with pytest.raises(VjepaError) as raised:
        joined(tmp_path, entries, **settings)
    return str(raised.value)


def test_joint_states_without_stamps_are_counted_as_such(tmp_path):
    message = nothing_joined(tmp_path, frames() + zero_stamped(arm()))
    assert "none of its 90 frames has a joint state" in message
    assert "joint state without a stamp; expected the time of the reading in header.stamp (310)" in message
    assert "clock" not in message


def test_some_joint_states_without_stamps_cost_no_row_and_are_counted(tmp_path):
    states = arm()
    zero_stamped(states[::5])
    dataset, faults = joined(tmp_path, frames() + states)
    assert len(dataset) == ROWS
    assert faults["joint state without a stamp; expected the time of the reading in header.stamp"] == 62


@pytest.mark.parametrize("topic", [CAMERA, COMMAND])
def test_zero_stamps_on_other_topics_are_counted(topic, tmp_path):
    entries = run()
    stopped = [entry for entry in entries if entry[0] == topic][:7]
    zero_stamped(stopped)
    _, faults = joined(tmp_path, entries)
    what = "frame" if topic == CAMERA else f"message on {COMMAND[1:]}"
    assert faults[f"{what} without a stamp"] == 7


def test_zeros_of_a_planner_that_was_switched_off_are_no_fault(tmp_path):
    off = (COMMAND, T0 + 3 * SECOND, joint_state(0, position=[], effort=[0, 0]))
    assert joined(tmp_path, [*run(), off], strict=True)[1] == Counter()


def test_joint_states_of_other_joints_alone_are_named_beside_the_expected(tmp_path):
    states = arm(names=("finger", "thumb"))
    message = nothing_joined(tmp_path, frames() + states, joint_names=("j1", "j2"))
    assert "joint state of other joints (finger, thumb; expected j1, j2) (310)" in message


def test_a_joint_that_no_message_has_is_named(tmp_path):
    message = nothing_joined(tmp_path, frames() + arm(names=("j1", "j3")), joint_names=("j1", "j2"))
    assert "joint state without a position of j2 (310)" in message


@pytest.mark.parametrize(("hours", "side"), [(-1, "behind"), (1, "ahead of")])
def test_clocks_that_are_apart_are_named_with_the_distance(hours, side, tmp_path):
    states = []
    for topic, at, message in arm():
        message.header.stamp.sec += 3600 * hours
        states.append((topic, at, message))
    message = nothing_joined(tmp_path, frames() + states)
    assert f" s {side} the frames (frame 1700000000.000, joint states 1" in message
    assert "clocks apart: joint states are stamped 3600.0" in message
    assert "(90)" in message


def test_joint_states_that_arrive_late_are_named_with_how_late(tmp_path):
    states = [(topic, at + 1500 * MS, message) for topic, at, message in arm()]
    dataset, faults = joined(tmp_path, frames() + states)
    (late,) = (fault for fault in faults if "arrived more than 1 s after its frame" in fault)
    assert re.search(r"\(up to 1\.\d s\)", late)
    assert 40 <= faults[late] == faults["frame without joint_states"] == ROWS - len(dataset)


def test_a_pause_of_the_joint_states_is_named_with_an_example(tmp_path):
    states = [entry for entry in arm() if not T0 + SECOND < entry[1] < T0 + 1500 * MS]
    dataset, faults = joined(tmp_path, frames() + states)
    (pause,) = (fault for fault in faults if fault.startswith("no joint state in the 0.1 s before a frame"))
    assert "the newest is 0.1" in pause
    assert faults[pause] == faults["frame without joint_states"] == ROWS - len(dataset) > 10


def test_frames_before_the_first_and_after_the_last_joint_state_are_named(tmp_path):
    states = [entry for entry in arm() if T0 + 500 * MS < entry[1] < T0 + 2 * SECOND]
    _, faults = joined(tmp_path, frames() + states)
    assert faults["frame before the first joint state"] == 15
    assert faults["frame after the last joint state"] >= 26


def test_a_topic_that_is_missing_since_its_messages_are_unreadable_is_named_with_the_cause(tmp_path):
    file = write_mcap(tmp_path / "b.mcap", arm(), encoding="json")
    with pytest.raises(VjepaError, match=r"message on /joint_states encoded as 'json'; expected cdr \(310\)"):
        build(file)


def test_a_bag_whose_compression_is_unreadable_is_named_with_the_cause(tmp_path):
    file = write_mcap(tmp_path / "b.mcap", run(), compression=CompressionType.ZSTD)
    file.write_bytes(file.read_bytes().replace(b"zstd", b"brot"))
    with pytest.raises(VjepaError, match=r"compression 'brot'; expected zstd, lz4 or none"):
        build(file)


# ----------------------------------------------------------------------------------------------- whose joints they are


def test_a_gripper_on_the_arm_s_topic_costs_no_row_and_is_no_fault(tmp_path):
    for behind_ms in (0, 7, 2000):
        gripper = arm(names=("finger",), behind_ms=behind_ms)
        folder = tmp_path / str(behind_ms)
        folder.mkdir()
        dataset, faults = joined(folder, run() + gripper, strict=True)
        assert (len(dataset), len(dataset.episodes), faults) == (ROWS, 1, Counter())
        assert dataset.info.joint_names == ("j1", "j2")
        assert dataset.info.sources[0]["notes"] == {"joint state of other joints, left aside (finger)": 310}


def test_a_gripper_of_more_joints_than_the_arm_is_told_apart_by_the_commands_or_by_name(tmp_path):
    hand = arm(names=("f1", "f2", "f3"), behind_ms=3)
    dataset, _ = joined(tmp_path, run() + hand, strict=True)
    assert (len(dataset), dataset.info.joint_names) == (ROWS, ("j1", "j2"))
    dataset, _ = joined(tmp_path, frames() + arm() + hand, joint_names=("j2", "j1"))
    assert (len(dataset), dataset.info.joint_names) == (ROWS, ("j2", "j1"))
    dataset, _ = joined(tmp_path, frames() + arm() + hand)
    assert dataset.info.joint_names == ("f1", "f2", "f3")


def test_two_arms_on_one_topic_are_not_guessed_between(tmp_path):
    entries = frames() + arm() + arm(names=("k1", "k2"), behind_ms=3)
    message = nothing_joined(tmp_path, entries)
    assert "joint states of j1, j2 and of k1, k2; name the joints of the arm with --joints, or give --task" in message
    dataset, _ = joined(tmp_path, entries, joint_names=("k1", "k2"))
    assert len(dataset) == ROWS


def test_joints_split_over_messages_are_merged(tmp_path):
    entries = frames() + arm(names=("j1",)) + arm(names=("j2",), behind_ms=4) + commands()
    dataset, faults = joined(tmp_path, entries, strict=True)
    assert (len(dataset), faults, dataset.info.joint_names) == (ROWS, Counter(), ("j1", "j2"))
    for name in ("observation.joint_position", "observation.joint_velocity"):
        assert np.isfinite(np.asarray(dataset[name])).all()


def test_joint_states_a_little_out_of_order_cost_no_row(tmp_path):
    states = arm()
    for k in range(0, 300, 7):
        (topic, first, one), (_, second, other) = states[k : k + 2]
        states[k : k + 2] = [(topic, first, other), (topic, second, one)]
    assert len(joined(tmp_path, frames() + states + commands(), strict=True)[0]) == ROWS


# ---------------------------------------------------------------------------------------------- what drivers leave out


def test_rows_without_velocities_or_efforts_are_counted_by_column(tmp_path):
    dataset, faults = joined(tmp_path, frames() + arm(velocity=None, effort=None) + commands())
    assert len(dataset) == ROWS
    assert faults == {
        "row without velocity of each joint: NaN in observation.joint_velocity": 90,
        "row without effort of each joint: NaN in action": 90,
    }
    assert refused(tmp_path / "b.mcap")


def test_velocities_are_derived_from_positions_and_stamps(tmp_path):
    entries = frames() + arm(velocity=None) + commands()
    dataset, faults = joined(tmp_path, entries, strict=True, derive_velocity=True)
    assert (len(dataset), faults) == (ROWS, Counter())
    np.testing.assert_allclose(np.asarray(dataset["observation.joint_velocity"]), 1.0)


@pytest.mark.parametrize("kind", ["Float64", "Vector3Stamped"])
def test_a_reward_topic_that_is_asked_for_is_the_newest_at_or_before_the_frame_a_step_leads_to(kind, tmp_path):
    def reward(stamp_ns: int, value: float):
        if kind == "Float64":
            return STORE.types["std_msgs/msg/Float64"](value)
        vector = STORE.types["geometry_msgs/msg/Vector3"](value, 0.0, 0.0)
        return STORE.types["geometry_msgs/msg/Vector3Stamped"](header(stamp_ns), vector)

    stamps = [T0 + 100 * k * MS for k in range(20)]
    rewards = [
        ("/score", stamp + (0 if kind == "Float64" else 2 * MS), reward(stamp, k)) for k, stamp in enumerate(stamps)
    ]
    bag = write_mcap(tmp_path / "bag.mcap", in_order(frames(60) + arm(210) + rewards))
    dataset, faults = build(bag, names=topic_names(reward="/score"))
    assert faults == {}
    at = [T0 + i * SECOND // 30 for i in range(60)]
    expected = [max(k for k, stamp in enumerate(stamps) if stamp <= next_ns) for next_ns in at[1:]]
    assert np.asarray(dataset["next.reward"])[:-1].tolist() == expected
    unasked, _ = build(bag)
    assert np.isnan(np.asarray(unasked["next.reward"])).all()
    _, faults = build(write_mcap(tmp_path / "none.mcap", run()), names=topic_names(reward="/score"))
    assert faults == {"no topic /score": 1}


def test_an_episode_without_a_row_is_begun_and_not_kept(tmp_path):
    late = [entry for entry in arm() if entry[1] > T0 + 1700 * MS]
    shown = [entry for entry in frames() if not T0 + 900 * MS < entry[1] < T0 + 1600 * MS]
    dataset, _ = build(write_mcap(tmp_path / "bag.mcap", in_order(shown + late)))
    (source,) = dataset.info.sources
    assert (source["episodes"], source["kept"], len(dataset.episodes)) == (2, 1, 1)


def test_values_that_are_not_finite_are_named_and_become_nan(tmp_path):
    bad = [(COMMAND, at, joint_state(at - 9 * MS, position=[], effort=[np.inf, 0.1])) for _, at, _ in commands()[:10]]
    efforts = arm(effort=[np.inf, 0.1], velocity=[-np.inf, 0.0])
    rewards = [("/score", T0 + 100 * k * MS, STORE.types["std_msgs/msg/Float64"](np.inf)) for k in range(20)]
    bag = write_mcap(tmp_path / "bag.mcap", in_order(frames(60) + efforts + bad + rewards))
    dataset, faults = build(bag, names=topic_names(reward="/score"))
    assert faults["joint_command that is not finite: NaN in command"] == 10
    assert faults["frame with a reward that is not finite: NaN in next.reward"] == 60
    assert faults["row without effort of each joint: NaN in action"] == 60
    for name in ("command", "action", "next.reward", "observation.joint_velocity"):
        assert not np.isinf(np.asarray(dataset[name])).any(), name


@pytest.mark.parametrize(("name", "value"), [("control_period_s", 1e-10), ("joint_state_max_age_s", 1e11)])
def test_times_that_no_arm_has_are_refused_with_what_is_possible(name, value):
    with pytest.raises(VjepaError, match=rf"{name} is .*; expected .* at most 60"):
        BuildConfig(names=topic_names(), **{name: value})


def test_a_folder_with_files_of_the_users_is_left_as_it_is(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    (tmp_path / "file").write_text("")
    bag = Bag(write_mcap(tmp_path / "bag.mcap", run()), topic_names())
    config = BuildConfig(names=topic_names(), frames=True, effort_limit=1.0)
    with pytest.raises(DatasetError, match="contains files that are no dataset; choose a new folder"):
        build_dataset(tmp_path / "mine", [bag], config, None, {})
    with pytest.raises(DatasetError, match=r"folder .* cannot be made"):
        build_dataset(tmp_path / "file", [bag], config, None, {})
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_commands_of_which_none_is_a_frame_s_are_named(tmp_path):
    off = [(COMMAND, at, joint_state(at - 8 * MS, position=[], effort=[0.5, -0.5])) for _, at, _ in commands()]
    dataset, faults = build(write_mcap(tmp_path / "bag.mcap", in_order(frames() + arm() + off)))
    assert faults == {"no joint_command has the stamp of a frame: NaN in command": 1}
    assert np.isnan(np.asarray(dataset["command"])).all()


def test_joint_states_that_name_no_joint_are_a_fault(tmp_path):
    nameless = [(JOINTS, at + MS, joint_state(at, names=(), position=[1.0])) for _, at, _ in arm()[::2]]
    _, faults = build(write_mcap(tmp_path / "bag.mcap", in_order(run() + nameless)))
    assert faults == {"joint state that names no joint": 155}


@pytest.mark.parametrize("behind", [b"junk" * 1000, None])
def test_what_lies_behind_the_end_of_a_file_is_named(behind, tmp_path):
    bag = write_mcap(tmp_path / "bag.mcap", run())
    tail = behind or write_mcap(tmp_path / "other.mcap", run()).read_bytes()
    bag.write_bytes(bag.read_bytes() + tail)
    dataset, faults = build(bag)
    assert len(dataset) == ROWS
    assert faults == {f"{len(tail)} bytes behind the end of file 'bag.mcap' were not read": 1}


def test_a_channel_number_of_two_topics_is_refused(tmp_path):
    first = write_mcap(tmp_path / "a.mcap", arm()[:5], use_chunking=False).read_bytes()
    other = [("/left" + JOINTS, at, message) for _, at, message in arm()[:5]]
    second = write_mcap(tmp_path / "b.mcap", other, use_chunking=False).read_bytes()
    begin = first.index(bytes([Opcode.DATA_END]) + struct.pack("<Q", 4))
    header = len(MAGIC) + 9 + struct.unpack_from("<Q", second, len(MAGIC) + 1)[0]
    bag = tmp_path / "bag.mcap"
    bag.write_bytes(first[:begin] + second[header:])
    with pytest.raises(VjepaError, match=r"uses channel 1 for '/joint_states' and for '/left/joint_states'"):
        Bag(bag, topic_names())


def test_files_whose_names_are_nearly_a_bag_s_are_named(tmp_path):
    bag = split(tmp_path / "b")
    strange = ["b_3.mcap.lz4", "b_4.MCAP", "b_5.mcap.active", "b_6.db3.gz"]
    for name in strange:
        (bag / name).write_bytes((bag / "b_1.mcap").read_bytes())
    (bag / "notes.txt").write_text("")
    _, faults = build(bag)
    assert faults == {
        f"file '{name}' was not read: expected a name that ends with .mcap, .db3 or .zstd": 1 for name in strange
    }


def test_a_total_of_metadata_that_is_not_that_of_its_topics_is_compared_too(tmp_path):
    bag = split(tmp_path / "b")
    write_metadata(bag, [f"b_{number}.mcap" for number in range(3)], run(), message_count=9999)
    _, faults = build(bag)
    assert faults == {f"{len(run())} messages in the files, 9999 in all stated by metadata.yaml": 1}
