"""`vjepa bag repair` saves every message in a whole chunk, and never calls a bag whole that cannot be read."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from mcap.opcode import Opcode
from mcap.reader import make_reader
from mcap.writer import Writer
from rosbags.rosbag2 import Reader

from vjepa_bags import bag_repair
from vjepa_bags.bag_metadata import offered_qos
from vjepa_bags.bag_repair import RepairError, repair_bag
from vjepa_bags.bag_writer import BagWriter
from vjepa_cli.cli import main

pytestmark = pytest.mark.faults

CHUNKS, PER_CHUNK = 5, 20


def message(number: int) -> bytes:
    return b"\0\1\0\0\x0c\0\0\0" + f"number {number:4}".encode() + b"\0\0"


@pytest.fixture
def bag(tmp_path) -> Path:
    """A recording of a hundred messages on two topics, in five chunks, that its recorder did not close."""
    writer = BagWriter(tmp_path / "run", {"seed": "7"}, clock=lambda: 0.0)
    for topic in ("/a", "/b"):
        writer.add_topic(topic, "std_msgs/msg/String", 3, latched=topic == "/b")
    for number in range(CHUNKS * PER_CHUNK):
        writer.write("/a" if number % 2 else "/b", message(number), 1000 + number, 500 + number, number + 1)
        if number % PER_CHUNK == PER_CHUNK - 1:
            writer.flush()
    return writer.path


def file_of(bag: Path) -> Path:
    (file,) = bag.glob("*.mcap")
    return file


def read(bag: Path) -> list[tuple[str, int, bytes]]:
    with Reader(bag) as reader:
        return [(connection.topic, time_ns, bytes(data)) for connection, time_ns, data in reader.messages()]


def test_a_bag_cut_anywhere_gives_all_its_whole_chunks(bag, tmp_path):
    whole, content = read(bag), file_of(bag).read_bytes()
    saved = []
    for number, end in enumerate(range(0, len(content), 297)):
        file_of(bag).write_bytes(content[:end])
        out = tmp_path / f"out{number}"
        try:
            repair = repair_bag(bag, out)
        except RepairError:
            saved.append(0)
            assert not out.exists()
            continue
        assert read(out) == whole[: len(read(out))]
        assert repair.cut_short == 1
        saved.append(sum(repair.counts.values()))
    assert sorted(saved) == saved
    assert set(saved) == {PER_CHUNK * chunks for chunks in range(CHUNKS + 1)}


def test_a_damaged_chunk_costs_its_own_messages_alone(bag, tmp_path):
    whole, content = read(bag), bytearray(file_of(bag).read_bytes())
    content[content.index(b"number   45")] ^= 1
    file_of(bag).write_bytes(content)
    repair = repair_bag(bag, tmp_path / "out")
    assert repair.damaged_chunks == 1
    assert read(tmp_path / "out") == whole[: 2 * PER_CHUNK] + whole[3 * PER_CHUNK :]


def test_the_repaired_bag_keeps_qualities_of_service_times_and_provenance(bag, tmp_path):
    content = file_of(bag).read_bytes()
    file_of(bag).write_bytes(content[: len(content) // 2])
    repair_bag(bag, tmp_path / "out")
    about = yaml.safe_load((tmp_path / "out/metadata.yaml").read_text())["rosbag2_bagfile_information"]
    original = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]

    def described(information):
        return {e["topic_metadata"]["name"]: e["topic_metadata"] for e in information["topics_with_message_count"]}

    assert described(about) == described(original)
    assert about["custom_data"]["seed"] == "7"
    assert about["custom_data"]["repaired_from"] == str(bag)


def test_the_original_stays_as_it_was_and_a_bag_without_metadata_is_no_trouble(bag, tmp_path):
    (bag / "metadata.yaml").unlink()
    content = file_of(bag).read_bytes()[:-1]
    file_of(bag).write_bytes(content)
    repair_bag(bag, tmp_path / "out")
    assert file_of(bag).read_bytes() == content
    assert [entry.name for entry in bag.iterdir()] == [file_of(bag).name]


def test_no_success_over_a_bag_that_does_not_read_back(bag, tmp_path, monkeypatch):
    class OnABadDisk(bag_repair.McapFile):
        def close(self):
            super().close()
            file = tmp_path / "out" / "out_0.mcap"
            content = bytearray(file.read_bytes())
            content[content.index(b"number   45")] ^= 1
            file.write_bytes(content)

    monkeypatch.setattr(bag_repair, "McapFile", OnABadDisk)
    with pytest.raises(RepairError, match=r"cannot be read back|differs from what was written"):
        repair_bag(bag, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_success_where_the_disk_is_full(bag, tmp_path):
    command = [sys.executable, "-P", "-m", "vjepa_cli.cli", "bag", "repair", str(bag), "--out", "out"]
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))  # noqa: E731
    done = subprocess.run(command, cwd=tmp_path, preexec_fn=limit, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done
    assert "vjepa: 'out' could not be written: File too large" in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_saved(bag, capsys):
    content = file_of(bag).read_bytes()
    file_of(bag).write_bytes(content[: len(content) // 2])
    with pytest.raises(SystemExit) as ended:
        main(["bag", "repair", str(bag)])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert str(bag.with_name("run_repaired")) in said
    assert f"{len(read(bag.with_name('run_repaired')))} messages saved" in said


@pytest.mark.parametrize("what", ["nothing", "database", "text"])
def test_what_is_no_mcap_bag_is_refused(tmp_path, what):
    if what == "database":
        (tmp_path / "bag.db3").write_bytes(b"SQLite")
    if what == "text":
        (tmp_path / "bag.mcap").write_text("no bag")
    with pytest.raises(RepairError):
        repair_bag(tmp_path / {"nothing": "bag", "database": "bag.db3", "text": "bag.mcap"}[what], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_existing_folder_is_left_alone(bag, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").touch()
    with pytest.raises(RepairError, match="exists already"):
        repair_bag(bag, tmp_path / "out")
    assert (tmp_path / "out/mine").exists()


def test_a_long_bag_in_many_files_is_copied_in_order(tmp_path):
    """Of twelve files, the eleventh and twelfth of which come before the third in the order of names."""
    now = 0.0
    writer = BagWriter(tmp_path / "run", {}, max_file_s=1.0, clock=lambda: now)
    writer.add_topic("/a", "std_msgs/msg/String", 3, latched=False)
    for number in range(12):
        writer.write("/a", message(number), 1000, 500, number + 1)  # All of one time, so that no reader sorts them.
        now += 1.0
        writer.flush()
    last = writer.path / "run_11.mcap"
    last.write_bytes(last.read_bytes()[:-8])
    repair_bag(writer.path, tmp_path / "out")
    assert [data for _, _, data in read(tmp_path / "out")] == [message(number) for number in range(12)]


WHOLE_QOS = [offered_qos(3, latched=False)]


def foreign(path: Path, channels: list[tuple[str, str, str, str]], qos=WHOLE_QOS) -> Path:
    """Write ten messages on each channel (topic, type, encoding, encoding of the definition) in an unchunked file."""
    with open(path, "wb") as stream:
        writer = Writer(stream, use_chunking=False, repeat_channels=False)
        writer.start("ros2")
        for topic, kind, encoding, form in channels:
            schema = writer.register_schema(kind, form, b"string data") if kind else 0
            about = {"offered_qos_profiles": yaml.safe_dump(qos)}
            number = writer.register_channel(topic, encoding, schema, about)
            for i in range(10):
                writer.add_message(number, 1000 + i, message(i), 1000 + i)
        writer.finish()
    return path


def described(bag: Path) -> list[tuple[str, str, str, int]]:
    entries = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    found = [(entry["topic_metadata"], entry["message_count"]) for entry in entries["topics_with_message_count"]]
    return [(about["name"], about["type"], about["serialization_format"], count) for about, count in found]


def channels_of(bag: Path) -> list[tuple[str, str, str, str]]:
    with open(file_of(bag), "rb") as stream:
        summary = make_reader(stream).get_summary()
    found = [(c, summary.schemas.get(c.schema_id)) for c in summary.channels.values()]
    return [(c.topic, s.name if s else "", c.message_encoding, s.encoding if s else "") for c, s in found]


STRING = ("std_msgs/msg/String", "cdr", "ros2msg")


def test_messages_of_a_channel_that_is_not_described_are_counted_as_lost(tmp_path, capsys):
    file = foreign(tmp_path / "bag.mcap", [("/a", *STRING), ("/b", *STRING)])
    data = bytearray(file.read_bytes())
    place = data.index(b"/b") - 17  # Of the channel's record, behind whose head are two numbers and a length.
    assert data[place] == Opcode.CHANNEL
    data[place] = 0x80  # A record of nobody's, which readers skip.
    file.write_bytes(data)
    repair = repair_bag(file, tmp_path / "out")
    assert repair.counts == {"/a": 10}
    assert repair.lost == {"message of channel 2, which the file does not describe": 10}
    with pytest.raises(SystemExit):
        main(["bag", "repair", str(file), "--out", str(tmp_path / "again")])
    assert "10 lost: message of channel 2, which the file does not describe" in capsys.readouterr().out


def test_messages_of_a_damaged_chunk_are_counted_as_lost_by_topic(bag, tmp_path):
    content = bytearray(file_of(bag).read_bytes())
    content[content.index(b"number   45")] ^= 1
    file_of(bag).write_bytes(content)
    lost = repair_bag(bag, tmp_path / "out").lost
    assert {what: count for what, count in lost.items() if "message on" in what} == {
        "message on /a lost in a damaged chunk": PER_CHUNK // 2,
        "message on /b lost in a damaged chunk": PER_CHUNK // 2,
    }


def test_messages_keep_their_encoding_and_a_topic_both_its_types(tmp_path):
    channels = [
        ("/camera", "sensor_msgs/msg/Image", "cdr", "ros2msg"),
        ("/camera", "sensor_msgs/msg/CompressedImage", "cdr", "ros2idl"),
    ]
    file = foreign(tmp_path / "bag.mcap", channels)
    repair = repair_bag(file, tmp_path / "out")
    assert (repair.counts, repair.lost) == ({"/camera": 20}, {})
    assert described(tmp_path / "out") == [(topic, kind, encoding, 10) for topic, kind, encoding, _ in channels]
    assert channels_of(tmp_path / "out") == channels
    channels += [("/text", "Text", "json", "jsonschema"), ("/free", "", "json", "")]
    file = foreign(tmp_path / "other.mcap", channels)
    assert repair_bag(file, tmp_path / "other").counts == {"/camera": 20, "/text": 10, "/free": 10}
    assert described(tmp_path / "other") == [(topic, kind, encoding, 10) for topic, kind, encoding, _ in channels]
    assert channels_of(tmp_path / "other") == channels


def test_messages_whose_type_is_not_defined_are_counted_as_lost(tmp_path):
    file = foreign(tmp_path / "bag.mcap", [("/a", *STRING), ("/b", "", "cdr", "")])
    repair = repair_bag(file, tmp_path / "out")
    assert (repair.counts, repair.lost) == ({"/a": 10}, {"message on /b, whose type the file does not define": 10})


@pytest.mark.parametrize("lacks", ["deadline", "lifespan", "liveliness", "durability"])
def test_qualities_of_service_that_are_not_whole_are_filled_up(lacks, tmp_path):
    qos = {**offered_qos(7, latched=False), "reliability": 2}
    del qos[lacks]
    repair_bag(foreign(tmp_path / "bag.mcap", [("/a", *STRING)], [qos]), tmp_path / "out")
    about = yaml.safe_load((tmp_path / "out/metadata.yaml").read_text())["rosbag2_bagfile_information"]
    (entry,) = about["topics_with_message_count"]
    expected = {**offered_qos(7, latched=False), "reliability": "best_effort"}
    assert entry["topic_metadata"]["offered_qos_profiles"] == [expected]
    assert len(read(tmp_path / "out")) == 10
