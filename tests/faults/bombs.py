"""Builders of bags that state, or hold, far more than their size."""

import io
import sqlite3
import struct
import zlib
from collections import Counter
from pathlib import Path

import lz4.frame
import numpy as np
import zstandard
from mcap.data_stream import RecordBuilder
from mcap.records import Channel, Chunk, ChunkIndex, DataEnd, Footer, Header, Message, Schema, Statistics
from mcap.writer import MCAP0_MAGIC
from rosbags.typesys import Stores, get_typestore

from vjepa_bags.bag_reader import messages_of
from vjepa_interfaces import topics

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


def mcap(
    path: Path,
    chunks,
    stated=None,
    indexes: int = 1,
    indexed: bool = True,
    channel: Channel = CHANNEL,
    times: bool = True,
) -> Path:
    """Write an MCAP file of chunks, each (compression, content); `stated` is the size that they state.

    All chunks state the time of the first message here; without `times`, that of their number.
    """
    out = io.BytesIO()
    out.write(MCAP0_MAGIC + encoded(Header(profile="ros2", library="")))
    out.write(encoded(SCHEMA, channel))
    found = []
    for number, (compression, content) in enumerate(chunks):
        data = COMPRESSIONS[compression](content) if compression else content
        size = len(content) if stated is None else stated
        crc = zlib.crc32(content) if stated is None else 0
        start = out.tell()
        span = {"message_start_time": 10**9 + (0 if times else number), "message_end_time": 2 * 10**12}
        chunk = encoded(Chunk(compression=compression, data=data, uncompressed_crc=crc, uncompressed_size=size, **span))
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
                **span,
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
    """Return how many joint states a bag gives, and what was wrong but for the counts, which `mcap` does not know."""
    faults: Counter[str] = Counter()
    count = sum(1 for _ in messages_of(path, {TOPIC: topics.JOINT_STATES}, faults))
    return count, Counter({fault: n for fault, n in faults.items() if "stated)" not in fault})


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


def database(path: Path, count: int = 0, messages_table: str = "", page_size: int = 4096) -> Path:
    """Write a SQLite file of a bag with `count` joint states, or with another table of messages."""
    own = "id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, timestamp INTEGER NOT NULL, data BLOB NOT NULL"
    with sqlite3.connect(path) as opened:
        opened.execute(f"PRAGMA page_size={page_size}")
        opened.execute(
            "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL, "
            "serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL)"
        )
        opened.execute(f"INSERT INTO topics VALUES (1, '{TOPIC}', '{topics.JOINT_STATES.type}', 'cdr', '')")
        opened.execute(messages_table or f"CREATE TABLE messages({own})")
        rows = ((1 + i, 10**9 + i * 10**7, joint_state(10**9 + i * 10**7)) for i in range(count))
        if count:
            opened.executemany("INSERT INTO messages VALUES (?, 1, ?, ?)", rows)
    opened.close()
    return path


def root_page(path: Path, table: str) -> int:
    """Return the number of the first page of a table's tree."""
    with sqlite3.connect(path) as opened:
        (page,) = opened.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    opened.close()
    return page


def turn_in_a_circle(path: Path, root: int, levels: int = 6, page_size: int = 4096) -> None:
    """Let all entries of a tree's inner page lead to the same page, `levels` times, and that to one with rows."""
    content = bytearray(path.read_bytes())

    def start(page: int) -> int:
        return (page - 1) * page_size

    inner = bytes(content[start(root) : start(root) + page_size])
    assert inner[0] == 5, "the table is too small to have an inner page"
    cells = [12 + 2 * i for i in range(int.from_bytes(inner[3:5], "big"))]
    places = [int.from_bytes(inner[cell : cell + 2], "big") for cell in cells]
    children = [int.from_bytes(inner[place : place + 4], "big") for place in places]
    chain = [root, *children[1:levels]]
    for number, page in enumerate(chain):
        changed = bytearray(inner)
        target = (chain[number + 1] if number + 1 < len(chain) else children[0]).to_bytes(4, "big")
        for place in places:
            changed[place : place + 4] = target
        changed[8:12] = target
        content[start(page) : start(page) + page_size] = changed
    path.write_bytes(content)


def png(width: int, height: int, rows: int | None = None) -> bytes:
    """Return a PNG that states so many pixels, all black, and has `rows` of them."""

    def piece(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    folded = zlib.compress((b"\0" + bytes(width * 3)) * (height if rows is None else rows), 9)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + piece(b"IHDR", head) + piece(b"IDAT", folded) + piece(b"IEND", b"")
