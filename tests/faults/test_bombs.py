"""Bombs inside valid formats: small files that state, or hold, far more than their size; refused fast and in words."""

import io
import sqlite3
import struct
import time
import zlib
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import lz4.frame
import numpy as np
import pyarrow as pa
import pytest
import zstandard
from mcap.data_stream import RecordBuilder
from mcap.records import Channel, Chunk, ChunkIndex, DataEnd, Footer, Header, Message, Schema, Statistics
from mcap.writer import MCAP0_MAGIC
from rosbags.typesys import Stores, get_typestore

from vjepa_bringup.bag_repair import repair_bag
from vjepa_interfaces import topics
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.image_codec import compressed_to_rgb
from vjepa_training.bag_reader import Bag, topic_names
from vjepa_training.dataset import DatasetError, DatasetInfo, EpisodeWriter, _open_batches, arrow_schema

pytestmark = pytest.mark.faults

PATIENCE_S = 10.0
MEMORY_MIB = 300
COMPRESSIONS = {"zstd": zstandard.compress, "lz4": lz4.frame.compress}
STORE = get_typestore(Stores.ROS2_JAZZY)
TOPIC = "/" + topics.JOINT_STATES.name


def joint_state(stamp_ns: int) -> bytes:
    header, stamp = STORE.types["std_msgs/msg/Header"], STORE.types["builtin_interfaces/msg/Time"]
    head = header(stamp(*divmod(stamp_ns, 10**9)), "")
    message = STORE.types[topics.JOINT_STATES.type](head, ["a"], np.zeros(1), np.zeros(1), np.zeros(1))
    return bytes(STORE.serialize_cdr(message, topics.JOINT_STATES.type))


def encoded(*records) -> bytes:
    builder = RecordBuilder()
    for record in records:
        record.write(builder)
    return builder.end()


SCHEMA = Schema(id=1, name=topics.JOINT_STATES.type, encoding="ros2msg", data=b"")
CHANNEL = Channel(id=1, topic=TOPIC, message_encoding="cdr", metadata={}, schema_id=1)


def message(stamp_ns: int, data: bytes) -> bytes:
    return encoded(Message(channel_id=1, data=data, log_time=stamp_ns, publish_time=stamp_ns, sequence=0))


def messages(count: int, data: bytes | None = None, first: int = 0) -> bytes:
    """Message records, with stamps that rise, or of one and the same content."""
    found = []
    for i in range(count):
        stamp_ns = 10**9 + (first + i) * 10**7
        found.append(message(stamp_ns, joint_state(stamp_ns) if data is None else data))
    return b"".join(found)


def mcap(path: Path, chunks, stated=None, indexes: int = 1, indexed: bool = True, channel: Channel = CHANNEL) -> Path:
    """Write an MCAP file of chunks, each (compression, content); `stated` is the size that they state."""
    out = io.BytesIO()
    out.write(MCAP0_MAGIC + encoded(Header(profile="ros2", library="")))
    out.write(encoded(SCHEMA, channel))
    found = []
    for compression, content in chunks:
        data = COMPRESSIONS[compression](content) if compression else content
        size = len(content) if stated is None else stated
        crc = zlib.crc32(content) if stated is None else 0
        start = out.tell()
        times = {"message_start_time": 10**9, "message_end_time": 2 * 10**12}
        chunk = encoded(
            Chunk(compression=compression, data=data, uncompressed_crc=crc, uncompressed_size=size, **times)
        )
        out.write(chunk)
        found.append(
            ChunkIndex(
                chunk_length=len(chunk),
                chunk_start_offset=start,
                compression=compression,
                compressed_size=len(data),
                message_index_length=31,
                message_index_offsets={1: start + len(chunk)},
                uncompressed_size=size,
                **times,
            )
        )
    out.write(encoded(DataEnd(0)))
    start = out.tell() if indexed else 0
    if indexed:
        statistics = Statistics(
            attachment_count=0,
            channel_count=1,
            channel_message_counts={1: 1},
            chunk_count=len(found),
            message_count=1,
            message_start_time=10**9,
            message_end_time=2 * 10**12,
            metadata_count=0,
            schema_count=1,
        )
        out.write(encoded(SCHEMA, channel, *(found * indexes), statistics))
    out.write(encoded(Footer(summary_crc=0, summary_offset_start=0, summary_start=start)) + MCAP0_MAGIC)
    path.write_bytes(out.getvalue())
    return path


def read(path: Path) -> tuple[int, Counter]:
    """Return how many joint states a bag gives, and what was wrong."""
    from vjepa_training.bag_reader import messages_of

    faults: Counter[str] = Counter()
    return sum(1 for _ in messages_of(path, {TOPIC: topics.JOINT_STATES}, faults)), faults


def peak_mib(reset: bool = False) -> float:
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024


@pytest.fixture
def bounded():
    """Hold the test to limits of time and memory."""
    before, began = peak_mib(reset=True), time.monotonic()
    yield
    assert time.monotonic() - began < PATIENCE_S
    assert peak_mib() - before < MEMORY_MIB


def metadata(custom_data: str = "{}", files: str = "[bag_0.mcap]", mode: str = "") -> str:
    compression = f"  compression_format: {'zstd' if mode else ''!r}\n  compression_mode: {mode!r}\n"
    return (
        "rosbag2_bagfile_information:\n  version: 9\n  storage_identifier: mcap\n  message_count: 1\n"
        "  duration: {nanoseconds: 1}\n  starting_time: {nanoseconds_since_epoch: 1}\n"
        f"{compression}  relative_file_paths: {files}\n  files: []\n  ros_distro: jazzy\n"
        f"  topics_with_message_count:\n    - topic_metadata: {{name: {TOPIC}, type: {topics.JOINT_STATES.type}, "
        f"serialization_format: cdr, offered_qos_profiles: [], type_description_hash: ''}}\n      message_count: 1\n"
        f"  custom_data: {custom_data}\n"
    )


def aliases(levels: int) -> str:
    """Ten to the power of `levels` values, as a mapping in one line."""
    parts = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, levels):
        parts.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]")
    return "{" + ", ".join(parts) + "}"


# What is whole is read as before.


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("compression", ["", "zstd", "lz4"])
def test_a_compressed_file_of_ordinary_messages_is_read_whole(compression, indexed, tmp_path):
    file = mcap(
        tmp_path / "bag.mcap", [(compression, messages(3000)), (compression, messages(10, first=3000))], indexed=indexed
    )
    assert read(file) == (3010, Counter())


@pytest.mark.parametrize("mode", ["file", "message"])
def test_a_bag_compressed_by_file_or_message_is_read_whole(mode, tmp_path):
    if mode == "file":
        file = mcap(tmp_path / "plain", [("", messages(50))])
        (tmp_path / "bag_0.mcap.zstd").write_bytes(zstandard.compress(file.read_bytes()))
        file.unlink()
    else:
        folded = [message(10**9 + i, zstandard.compress(joint_state(10**9 + i))) for i in range(50)]
        mcap(tmp_path / "bag_0.mcap", [("", b"".join(folded))])
    name = "[bag_0.mcap.zstd]" if mode == "file" else "[bag_0.mcap]"
    (tmp_path / "metadata.yaml").write_text(metadata(files=name, mode=mode))
    assert read(tmp_path) == (50, Counter())


def test_metadata_with_anchors_for_what_topics_share_is_read(tmp_path):
    mcap(tmp_path / "bag_0.mcap", [("", messages(5))])
    (tmp_path / "metadata.yaml").write_text(metadata(custom_data="{a: &a x, b: *a}"))
    assert Bag(tmp_path, topic_names()).about == {"a": "x", "b": "x"}


# Bombs.


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("levels", [6, 9, 40])
def test_metadata_whose_aliases_stand_for_ever_more_values_is_refused(levels, tmp_path):
    mcap(tmp_path / "bag_0.mcap", [("", messages(5))])
    (tmp_path / "metadata.yaml").write_text(metadata(custom_data=aliases(levels)))
    with pytest.raises(VjepaError, match="stands for more than 200000 values"):
        Bag(tmp_path, topic_names())
    with pytest.raises(VjepaError, match="stands for more than 200000 values"):
        repair_bag(tmp_path, tmp_path / "out")


@pytest.mark.usefixtures("bounded")
def test_metadata_that_contains_itself_or_is_very_deep_is_refused(tmp_path):
    mcap(tmp_path / "bag_0.mcap", [("", messages(5))])
    for text in ("&a [*a]", "[" * 200 + "]" * 200):
        (tmp_path / "metadata.yaml").write_text(metadata(custom_data=text))
        with pytest.raises(VjepaError, match=r"values|deeper than 100 levels"):
            Bag(tmp_path, topic_names())


@pytest.mark.usefixtures("bounded")
def test_chunks_that_state_more_than_their_file_explains_are_refused_before_they_are_unfolded(tmp_path):
    for name, stated in (("one", 2**30), ("huge", 2**63)):
        file = mcap(tmp_path / f"{name}.mcap", [("zstd", messages(1))], stated=stated)
        with pytest.raises(VjepaError, match=f"unfolds to {stated} bytes; expected at most"):
            read(file)
    file = mcap(tmp_path / "many.mcap", [("zstd", messages(1))] * 20, stated=200 * 2**20)
    with pytest.raises(VjepaError, match=r"bytes and unfolds to .* and more; expected at most"):
        read(file)
    with pytest.raises(VjepaError, match=r"bytes and unfolds to .* and more; expected at most"):
        repair_bag(file, tmp_path / "out")


@pytest.mark.usefixtures("bounded")
def test_an_index_that_names_one_chunk_many_times_is_refused(tmp_path):
    file = mcap(tmp_path / "bag.mcap", [("zstd", messages(3000))], indexes=2000)
    with pytest.raises(VjepaError, match=r"bytes and unfolds to .* and more"):
        read(file)


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_a_chunk_that_holds_more_than_it_states_is_damage_and_not_unfolded(compression, indexed, tmp_path):
    content = messages(1) + bytes(200 * 2**20)
    file = mcap(tmp_path / "bag.mcap", [(compression, content)], stated=4096, indexed=indexed)
    count, faults = read(file)
    assert count == 0
    assert faults, "it is named"
    with pytest.raises(VjepaError, match="no message in a whole chunk"):
        repair_bag(file, tmp_path / "out")


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("indexed", [True, False])
def test_a_chunk_of_a_million_messages_in_a_few_kilobytes_is_damage(indexed, tmp_path):
    content = messages(1, b"") * 1_000_000
    file = mcap(tmp_path / "bag.mcap", [("zstd", content)], indexed=indexed)
    assert file.stat().st_size < 50_000
    count, faults = read(file)
    assert count == 0
    assert faults


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("mode", ["file", "message"])
def test_a_bag_compressed_by_file_or_message_unfolds_to_no_more_than_its_size_explains(mode, tmp_path):
    bomb = zstandard.compress(bytes(400 * 2**20))
    if mode == "file":
        (tmp_path / "bag_0.mcap.zstd").write_bytes(bomb)
    else:
        mcap(tmp_path / "bag_0.mcap", [("", message(10**9, bomb))])
    (tmp_path / "metadata.yaml").write_text(
        metadata(files="[bag_0.mcap.zstd]" if mode == "file" else "[bag_0.mcap]", mode=mode)
    )
    if mode == "file":
        with pytest.raises(VjepaError, match=r"a compressed file of .* bytes unfolds to more than"):
            read(tmp_path)
        return
    count, faults = read(tmp_path)
    assert count == 0
    assert any("unfold" in fault for fault in faults)


@pytest.mark.usefixtures("bounded")
def test_qualities_of_a_topic_that_unfold_without_end_do_not_stop_a_repair(tmp_path):
    bomb = "- " + aliases(20).replace("\n", " ")
    channel = Channel(id=1, topic=TOPIC, message_encoding="cdr", metadata={"offered_qos_profiles": bomb}, schema_id=1)
    file = mcap(tmp_path / "bag.mcap", [("zstd", messages(5))], channel=channel)
    assert repair_bag(file, tmp_path / "out").counts == {TOPIC: 5}


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize(
    "messages_table",
    [
        "CREATE VIEW messages AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
        "SELECT i AS id, 1 AS topic_id, i AS timestamp, x'00' AS data FROM n",
        "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, "
        "data BLOB GENERATED ALWAYS AS (zeroblob(900000000)))",
    ],
)
def test_a_database_whose_messages_are_computed_is_refused(messages_table, tmp_path):
    file = tmp_path / "bag.db3"
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT, serialization_format TEXT)")
        database.execute(f"INSERT INTO topics VALUES (1, '{TOPIC}', '{topics.JOINT_STATES.type}', 'cdr')")
        database.execute(messages_table)
        if "GENERATED" in messages_table:
            database.execute("INSERT INTO messages(id, topic_id, timestamp) VALUES (1, 1, 1)")
    database.close()
    with pytest.raises(VjepaError, match=r"'messages' is a .*; expected the table that a recorder writes"):
        read(file)


def test_a_link_that_leaves_the_bag_is_refused_by_name(tmp_path):
    outside = mcap(tmp_path / "outside.mcap", [("", messages(5))])
    bag = tmp_path / "bag"
    bag.mkdir()
    (bag / "metadata.yaml").write_text(metadata())
    (bag / "bag_0.mcap").symlink_to(outside)
    for load in (lambda: Bag(bag, topic_names()), lambda: repair_bag(bag, tmp_path / "out")):
        with pytest.raises(VjepaError, match=r"bag_0.mcap is a link to .*outside.mcap, outside the bag"):
            load()
    (bag / "bag_0.mcap").unlink()
    mcap(bag / "real.mcap", [("", messages(5))])
    (bag / "bag_0.mcap").symlink_to(bag / "real.mcap")
    assert Bag(bag, topic_names()).present, "a link within the bag leads to no stranger's file"


def zeros(kind: pa.DataType, rows: int) -> pa.Array:
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(zeros(kind.value_type, rows * kind.list_size), kind.list_size)
    return pa.array(np.zeros(rows, kind.to_pandas_dtype()))


@pytest.fixture
def dataset_info() -> DatasetInfo:
    return DatasetInfo(("a", "b"), 0.05, 20_000_000, (3, 4), (4, 4, 3), {"fingerprint": "abc"}, "reacher-easy", ({},))


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_rows_that_are_compressed_are_refused_before_they_are_unfolded(codec, dataset_info, tmp_path):
    schema, file = arrow_schema(dataset_info), tmp_path / "rows.arrow"
    rows = 60_000
    columns = [zeros(field.type, rows) for field in schema]
    batch = pa.RecordBatch.from_arrays(columns, schema=schema)
    with pa.ipc.new_stream(str(file), schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as stream:
        stream.write_batch(batch)
    assert file.stat().st_size < batch.nbytes / 50
    with pytest.raises(DatasetError, match="its rows are compressed"):
        _open_batches(file, schema)
    (tmp_path / ".parts").mkdir()
    with pa.ipc.new_stream(str(file), schema) as stream:
        stream.write_batch(batch.slice(0, 5))
    assert len(_open_batches(file, schema)) == 1


def test_a_part_that_somebody_compressed_is_refused_and_left_as_it_is(dataset_info, tmp_path):
    with EpisodeWriter(tmp_path, dataset_info) as writer:
        rows = {name: np.zeros((5, *shape), kind) for name, (kind, shape) in dataset_info.columns().items()}
        del rows["episode_index"]
        writer.add(0, rows)
    (part,) = tmp_path.rglob("*.arrow")
    with pa.ipc.open_stream(str(part)) as stream:
        batches, schema = list(stream), stream.schema
    with pa.ipc.new_stream(str(part), schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as stream:
        for batch in batches:
            stream.write_batch(batch)
    before = part.read_bytes()
    with pytest.raises(DatasetError, match="its rows are compressed"):
        EpisodeWriter(tmp_path, dataset_info)
    assert part.read_bytes() == before


def png(width: int, height: int) -> bytes:
    def piece(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + bytes(width * 3)
    folded = zlib.compress(row * min(height, 100))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + piece(b"IHDR", head) + piece(b"IDAT", folded) + piece(b"IEND", b"")


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_picture_that_states_more_pixels_than_any_camera_has_is_refused(kind):
    import cv2

    data = png(30_000, 30_000)
    if kind == "jpeg":
        whole = bytearray(cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes())
        frame = whole.index(b"\xff\xc0")
        whole[frame + 5 : frame + 9] = struct.pack(">HH", 30_000, 30_000)
        data = bytes(whole)
    with pytest.raises(VjepaError, match="states 30000 x 30000 pixels; expected at most"):
        compressed_to_rgb(SimpleNamespace(format=kind, data=np.frombuffer(data, np.uint8)))


def test_pictures_of_every_header_that_encoders_write_are_read():
    import cv2

    rgb = np.full((24, 40, 3), 100, np.uint8)
    for suffix, options in ((".png", []), (".jpg", []), (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])):
        data = cv2.imencode(suffix, rgb, options)[1]
        assert compressed_to_rgb(SimpleNamespace(format=suffix[1:], data=data)).shape == rgb.shape
