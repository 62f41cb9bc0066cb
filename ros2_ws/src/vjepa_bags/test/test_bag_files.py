"""The files of a bag give their messages by time, whoever wrote and compressed them; bounds leave room for these."""

import shutil
import sqlite3
from collections import Counter
from pathlib import Path

import lz4.frame
import numpy as np
import pytest
import zstandard
from mcap.writer import CompressionType, IndexType, Writer
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, StoragePlugin
from rosbags.rosbag2 import Writer as BagWriter
from rosbags.typesys import Stores, get_typestore

from vjepa_bags import mcap_reader, mcap_units
from vjepa_bags.bag_files import open_files
from vjepa_bags.bag_limits import Allowance, BagDamageError, BagLimitError, Meter, unfolded
from vjepa_bags.bag_source import BagError
from vjepa_bags.mcap_reader import McapReader

TOPICS = ("/a", "/b")
CODECS = {"zstd": zstandard.compress, "lz4": lz4.frame.compress}


def write_mcap(path: Path, entries, **options) -> Path:
    """Write (topic, time, contents) with the library's own writer."""
    with open(path, "wb") as stream:
        writer = Writer(stream, **options)
        writer.start("ros2")
        schema = writer.register_schema("std_msgs/msg/String", "ros2msg", b"string data")
        channels = {topic: writer.register_channel(topic, "cdr", schema) for topic in TOPICS}
        for number, (topic, time_ns, data) in enumerate(entries):
            writer.add_message(channels[topic], time_ns, data, time_ns, number)
        writer.finish()
    return path


def entries(count: int, size: int = 40) -> list[tuple[str, int, bytes]]:
    random = np.random.default_rng(1)
    return [(TOPICS[i % 2], 1000 + 10 * i, random.bytes(size)) for i in range(count)]


TYPE = "std_msgs/msg/String"


def read(path: Path, topics=TOPICS) -> tuple[list[tuple[str, int, bytes]], Counter]:
    faults: Counter[str] = Counter()
    files = open_files(path, faults)
    wanted = dict.fromkeys(topics, TYPE)
    return [message for source in files.sources for message in source.messages(wanted, faults)], faults


def counts(path: Path) -> dict[str, int]:
    return {name: count.total() for s in open_files(path, Counter()).sources for name, count in s.topics().items()}


def as_rosbags(path: Path) -> list[tuple[str, int, bytes]]:
    with Reader(path) as reader:
        return [(connection.topic, time_ns, bytes(data)) for connection, time_ns, data in reader.messages()]


@pytest.mark.parametrize("compression", list(CompressionType))
@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("indexed", [True, False])
def test_a_file_of_the_library_s_writer_is_read_as_rosbags_reads_it(compression, chunked, indexed, tmp_path):
    options = {"use_chunking": chunked, "chunk_size": 3000, "compression": compression}
    if not indexed:
        options |= {"use_statistics": False, "index_types": IndexType.NONE, "repeat_channels": False}
    path = write_mcap(tmp_path / "bag.mcap", entries(500), **options)
    assert read(path) == (entries(500), Counter())
    assert read(path)[0] == as_rosbags(path)
    assert read(path, ["/b"])[0] == entries(500)[1::2]
    assert counts(path) == {"/a": 250, "/b": 250}


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("shuffled", ["within chunks", "all"])
def test_messages_come_by_their_times_in_whichever_order_they_lie(shuffled, chunked, tmp_path):
    found = entries(400)
    blocks = [found[i : i + 20] for i in range(0, 400, 20)] if shuffled == "within chunks" else [found]
    for block in blocks:
        np.random.default_rng(2).shuffle(block)
    lying = [entry for block in blocks for entry in block]
    path = write_mcap(tmp_path / "bag.mcap", lying, use_chunking=chunked, chunk_size=2000)
    assert read(path) == (entries(400), Counter())


def test_chunks_of_the_same_time_are_merged_as_far_as_memory_is_for_it(tmp_path, monkeypatch):
    by_topic = sorted(entries(4000, 1000))
    path = write_mcap(tmp_path / "bag.mcap", by_topic, chunk_size=100_000, compression=CompressionType.NONE)
    monkeypatch.setattr(mcap_reader, "BASE_HELD_BYTES", 0)
    assert read(path) == (entries(4000, 1000), Counter()), "they take no more than the file is large"
    path = write_mcap(tmp_path / "zeros.mcap", [(topic, at, bytes(100_000)) for topic, at, _ in sorted(entries(200))])
    with pytest.raises(BagLimitError, match="chunks of the same time that take more than"):
        read(path)


def test_a_frame_of_a_dark_4k_camera_in_each_chunk_is_read(tmp_path):
    dark = [("/a", 1000 + i, bytes(3840 * 2160 * 3)) for i in range(2)]
    path = write_mcap(tmp_path / "bag.mcap", dark, compression=CompressionType.ZSTD)
    assert path.stat().st_size < 10_000
    assert read(path) == (dark, Counter())


def test_a_long_bag_of_small_messages_is_counted_without_being_read(tmp_path, monkeypatch):
    path = write_mcap(tmp_path / "bag.mcap", [("/a", i, i.to_bytes(8, "little")) for i in range(150_000)])
    monkeypatch.setattr(mcap_units, "_content", lambda *_: pytest.fail("a chunk was read"))
    assert counts(path) == {"/a": 150_000, "/b": 0}
    monkeypatch.undo()
    assert len(read(path)[0]) == 150_000


@pytest.mark.parametrize(
    ("plugin", "mode"),
    [
        (plugin, mode)
        for plugin in StoragePlugin
        for mode in CompressionMode
        if plugin == StoragePlugin.MCAP or mode != CompressionMode.STORAGE
    ],
)
def test_a_bag_that_rosbags_compressed_is_read_whole(plugin, mode, tmp_path):
    writer = BagWriter(tmp_path / "bag", version=9, storage_plugin=plugin)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        store = get_typestore(Stores.ROS2_JAZZY)
        connections = {t: writer.add_connection(t, "std_msgs/msg/String", typestore=store) for t in TOPICS}
        for topic, time_ns, data in entries(200):
            writer.write(connections[topic], time_ns, data)
    assert read(tmp_path / "bag") == (entries(200), Counter())
    assert counts(tmp_path / "bag") == {"/a": 100, "/b": 100}


def test_a_file_that_was_compressed_and_cut_short_gives_what_lies_before(tmp_path):
    plain = write_mcap(tmp_path / "plain", entries(2000, 400), chunk_size=2000, compression=CompressionType.NONE)
    folded = zstandard.ZstdCompressor(level=1, write_content_size=False).compress(plain.read_bytes())
    plain.unlink()
    (tmp_path / "bag_0.mcap.zstd").write_bytes(folded[: len(folded) // 2])
    found, faults = read(tmp_path)
    assert found == entries(2000, 400)[: len(found)]
    assert 500 < len(found) < 1500
    assert faults["truncated file, read as far as it is whole"] == 1
    (tmp_path / "bag_0.mcap.zstd").write_bytes(folded[: len(folded) // 2] + b"nothing of it" * 100_000)
    found, faults = read(tmp_path)
    assert found == entries(2000, 400)[: len(found)]
    assert "file 'bag_0.mcap.zstd' is not a whole zstd file, read as far as it is one" in faults


def test_nothing_is_left_behind_of_a_file_that_was_unfolded(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    plain = write_mcap(tmp_path / "plain", entries(20))
    (tmp_path / "bag").mkdir()
    (tmp_path / "bag" / "bag_0.mcap.zstd").write_bytes(zstandard.compress(plain.read_bytes()))
    files = open_files(tmp_path / "bag", Counter())
    assert list((tmp_path / "tmp").iterdir())
    del files
    assert not list((tmp_path / "tmp").iterdir())


def test_a_file_that_the_metadata_names_and_is_not_there_is_counted(tmp_path):
    write_mcap(tmp_path / "bag_1.mcap", entries(20))
    text = "rosbag2_bagfile_information: {relative_file_paths: [bag_0.mcap, bag_1.mcap]}"
    (tmp_path / "metadata.yaml").write_text(text)
    assert read(tmp_path) == (entries(20), Counter({"no file 'bag_0.mcap', which metadata.yaml lists": 1}))


def test_a_compression_that_is_not_known_is_named(tmp_path):
    write_mcap(tmp_path / "bag_0.mcap", entries(20))
    text = "rosbag2_bagfile_information: {compression_mode: FILE, compression_format: bz2}"
    (tmp_path / "metadata.yaml").write_text(text)
    with pytest.raises(BagError, match="compressed by 'bz2'; expected zstd"):
        read(tmp_path)


def test_a_database_gives_its_messages_by_their_times(tmp_path):
    database = sqlite3.connect(tmp_path / "bag.db3")
    with database:
        database.execute("CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT)")
        database.execute(
            "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data BLOB)"
        )
        database.executemany("INSERT INTO topics VALUES (?, ?, 'std_msgs/msg/String')", enumerate(TOPICS))
        rows = [(TOPICS.index(topic), at, data) for topic, at, data in reversed(entries(300))]
        database.executemany("INSERT INTO messages(topic_id, timestamp, data) VALUES (?, ?, ?)", rows)
    database.close()
    assert read(tmp_path / "bag.db3") == (entries(300), Counter())
    assert counts(tmp_path / "bag.db3") == {"/a": 150, "/b": 150}
    shutil.copy(tmp_path / "bag.db3", tmp_path / "cut.db3")
    with open(tmp_path / "cut.db3", "r+b") as file:
        file.truncate(16384)
    found, faults = read(tmp_path / "cut.db3")
    assert 0 < len(found) < 300
    assert faults["truncated file, read as far as it is whole"] == 1


@pytest.mark.parametrize("codec", CODECS)
def test_frames_behind_one_another_are_unfolded_together_up_to_a_limit(codec):
    data = CODECS[codec](bytes(3_000_000)) + CODECS[codec](b"x" * 1000)
    assert unfolded(codec, data, 3_001_000) == bytes(3_000_000) + b"x" * 1000
    assert unfolded(codec, data, 3_001_000, 3_001_000) == bytes(3_000_000) + b"x" * 1000
    for stated in (None, 10, 3_001_000):
        with pytest.raises(BagLimitError, match="unfold to more than the 3000999 that were expected"):
            unfolded(codec, data, 3_000_999, stated)
    with pytest.raises(BagDamageError):
        unfolded(codec, b"nothing of it", 3_001_000)


def test_files_of_a_bag_share_what_the_smallest_bag_is_allowed():
    whole = Allowance.of(Path("bag"), 1000)
    parts = [Allowance.of(Path(f"bag_{i}"), size, 1000) for i, size in enumerate((100, 400, 500))]
    assert sum(part.unfolded for part in parts) == whole.unfolded
    assert sum(part.messages for part in parts) == pytest.approx(whole.messages, abs=3)
    meter = Meter(whole)
    meter.unfold(whole.unfolded)
    with pytest.raises(BagLimitError, match=f"bag has 1000 bytes and unfolds to {whole.unfolded + 1} bytes and more"):
        meter.unfold(1)


def test_messages_are_given_as_they_lie_and_those_of_a_damaged_chunk_counted(tmp_path):
    path = write_mcap(tmp_path / "bag.mcap", entries(100), chunk_size=1000, compression=CompressionType.NONE)
    content = bytearray(path.read_bytes())
    place = content.index(entries(100)[50][2])
    content[place] ^= 1
    path.write_bytes(content)
    allowance = Allowance.of(path, path.stat().st_size)
    faults: Counter[str] = Counter()
    found = McapReader(path, allowance, counted=False).messages_as_they_lie(faults)
    read_back = [message.data for message in found]
    assert any("checksum mismatch" in fault for fault in faults)
    assert sum(count for fault, count in faults.items() if "lost" in fault) == 100 - len(read_back)
    assert read_back == [data for _, _, data in entries(100) if data in read_back]
    assert 80 < len(read_back) < 100
