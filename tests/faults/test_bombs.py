"""Bombs inside valid bags: small files that state, or hold, far more than their size; refused fast and in words."""

import os
import socket
import sqlite3
import struct
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import zstandard
from mcap.records import Channel, Message, Schema

from tests.faults.bombs import (
    CHANNEL,
    SCHEMA,
    STORE,
    TOPIC,
    aliases,
    database,
    encoded,
    joint_state,
    mcap,
    message,
    messages,
    metadata,
    png,
    read,
    root_page,
    turn_in_a_circle,
)
from vjepa_bags import bag_frames, mcap_reader
from vjepa_bags.bag_limits import MAX_TOPICS
from vjepa_bags.bag_reader import Bag, topic_names
from vjepa_bags.bag_repair import repair_bag
from vjepa_interfaces import topics
from vjepa_interfaces.errors import VjepaError

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("bounded")]

PICTURES = "/" + topics.COMPRESSED_IMAGE.name
TOO_MUCH = r"bytes and unfolds to .* and more; expected at most"


def frames_of(path: Path) -> tuple[int, Counter]:
    """Return how many frames a bag gives, and what was wrong."""
    bag = Bag(path, topic_names())
    faults = bag.faults.copy()
    return sum(1 for _ in bag.frames(10**8, faults)), faults


def header(stamp_ns: int):
    stamp = STORE.types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 10**9))
    return STORE.types["std_msgs/msg/Header"](stamp, "")


def on_another_topic(kind: str, name: str) -> bytes:
    """Return the definitions of channel 2."""
    schema = Schema(id=2, name=kind, encoding="ros2msg", data=b"")
    return encoded(schema, Channel(id=2, topic=name, message_encoding="cdr", metadata={}, schema_id=2))


# ---------------------------------------------------------------------------------------------------------- metadata


@pytest.mark.parametrize("levels", [6, 9, 40])
def test_metadata_whose_aliases_stand_for_ever_more_values_is_refused(levels, tmp_path):
    mcap(tmp_path / "bag_0.mcap", [("", messages(5))])
    (tmp_path / "metadata.yaml").write_text(metadata(custom_data=aliases(levels)))
    with pytest.raises(VjepaError, match="stands for more than 200000 values"):
        Bag(tmp_path, topic_names())
    with pytest.raises(VjepaError, match="stands for more than 200000 values"):
        repair_bag(tmp_path, tmp_path / "out")


def test_metadata_that_contains_itself_or_is_very_deep_is_refused(tmp_path):
    mcap(tmp_path / "bag_0.mcap", [("", messages(5))])
    for text in ("&a [*a]", "[" * 200 + "]" * 200):
        (tmp_path / "metadata.yaml").write_text(metadata(custom_data=text))
        with pytest.raises(VjepaError, match=r"values|deeper than 100 levels"):
            Bag(tmp_path, topic_names())


def test_nobody_reads_the_qualities_of_a_topic_that_would_unfold_without_end(tmp_path):
    merged = "[{a0: &a0 {k: v}, " + ", ".join(
        f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 30)
    )
    for name, text in (("merged", merged + "}]"), ("long", "[" + "[]," * 2_000_000 + "]"), ("deep", "[" * 10_000)):
        about = {"offered_qos_profiles": text}
        channel = Channel(id=1, topic=TOPIC, message_encoding="cdr", metadata=about, schema_id=1)
        file = mcap(tmp_path / f"{name}.mcap", [("zstd", encoded(SCHEMA, channel) + messages(5))], channel=channel)
        assert read(file) == (5, Counter())
        assert repair_bag(file, tmp_path / name).counts == {TOPIC: 5}


# ------------------------------------------------------------------------------------------------------------ chunks


def test_chunks_that_state_more_than_their_file_explains_are_refused_before_they_are_unfolded(tmp_path):
    for name, stated in (("one", 2**30), ("huge", 2**63)):
        file = mcap(tmp_path / f"{name}.mcap", [("zstd", messages(1))], stated=stated)
        with pytest.raises(VjepaError, match=f"unfolds to {stated} bytes; expected at most"):
            read(file)
    file = mcap(tmp_path / "many.mcap", [("zstd", messages(1))] * 20, stated=200 * 2**20)
    with pytest.raises(VjepaError, match=TOO_MUCH):
        read(file)
    with pytest.raises(VjepaError, match=TOO_MUCH):
        repair_bag(file, tmp_path / "out")


def test_many_small_files_may_not_unfold_to_more_than_one_of_their_size(tmp_path):
    for number in range(40):
        mcap(tmp_path / f"bag_{number}.mcap", [("zstd", message(10**9, bytes(30 * 2**20)))])
    with pytest.raises(VjepaError, match=TOO_MUCH):
        read(tmp_path)
    with pytest.raises(VjepaError, match=TOO_MUCH):
        repair_bag(tmp_path, tmp_path / "out")


def test_an_index_that_names_one_chunk_many_times_is_not_followed(tmp_path):
    file = mcap(tmp_path / "bag.mcap", [("zstd", messages(3000))], indexes=2000)
    assert read(file) == (3000, Counter())


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


@pytest.mark.parametrize("inside", ["messages", "something unknown"])
@pytest.mark.parametrize("indexed", [True, False])
def test_a_million_records_in_a_few_kilobytes_are_refused(indexed, inside, tmp_path):
    record = message(10**9, b"") if inside == "messages" else b"\xf0" + bytes(8)
    file = mcap(tmp_path / "bag.mcap", [("zstd", messages(1) + record * 1_000_000)], indexed=indexed)
    assert file.stat().st_size < 50_000
    refused = r"bytes and has \d+ messages and more; expected at most \d+"
    with pytest.raises(VjepaError, match=refused):
        read(file)
    with pytest.raises(VjepaError, match=refused):
        repair_bag(file, tmp_path / "out")


def test_many_small_chunks_hold_no_more_messages_than_one(tmp_path):
    file = mcap(tmp_path / "bag.mcap", [("zstd", message(10**9, joint_state(10**9)) * 1000)] * 400)
    with pytest.raises(VjepaError, match="messages and more"):
        read(file)


def test_chunks_of_one_time_are_not_all_unfolded_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(mcap_reader, "BASE_HELD_BYTES", 32 * 2**20)
    padding = b"\xf0" + struct.pack("<Q", 2**20) + os.urandom(2**20)
    chunk = ("zstd", message(10**9, bytes(8 * 2**20)))
    file = mcap(tmp_path / "bag.mcap", [("", padding), *[chunk] * 100])
    _, faults = read(file)
    assert any("chunks of the same time" in fault and "`mcap sort`" in fault for fault in faults)


def test_a_chunk_in_a_chunk_or_of_an_unknown_compression_is_damage(tmp_path):
    inner = mcap(tmp_path / "inner.mcap", [("zstd", messages(3))]).read_bytes()
    start = inner.index(b"\x06", 8)
    _, length = struct.unpack_from("<BQ", inner, start)
    for compression, content in (("zstd", inner[start : start + 9 + length]), ("none", messages(3))):
        file = mcap(tmp_path / "bag.mcap", [("zstd", content)])
        if compression == "none":
            file.write_bytes(file.read_bytes().replace(b"zstd", b"gzip"))
        count, faults = read(file)
        assert count == 0
        assert any("another chunk" in fault or "'gzip'; expected zstd, lz4 or none" in fault for fault in faults)


def test_topics_and_definitions_without_end_are_refused(tmp_path):
    many = (
        Channel(id=i, topic=f"/t{i}", message_encoding="cdr", metadata={}, schema_id=1)
        for i in range(CHANNEL.id + 1, CHANNEL.id + 1 + MAX_TOPICS)
    )
    large = (Schema(id=i, name="a", encoding="ros2msg", data=bytes(2**20)) for i in range(2, 80))
    for name, definitions in (("topics", (*many, CHANNEL)), ("large", large)):
        content = encoded(SCHEMA, *definitions) + messages(1)
        file = mcap(tmp_path / f"{name}.mcap", [("zstd", content), ("", os.urandom(100_000))], indexed=False)
        with pytest.raises(VjepaError, match=r"topics and \d+ bytes of definitions; expected at most"):
            read(file)


# ------------------------------------------------------------------------------------------------- a layer above these


@pytest.mark.parametrize("mode", ["file", "message"])
def test_a_bag_compressed_by_file_or_message_unfolds_to_no_more_than_its_size_explains(mode, tmp_path):
    bomb = zstandard.compress(bytes(400 * 2**20))
    if mode == "file":
        (tmp_path / "bag_0.mcap.zstd").write_bytes(bomb)
    else:
        mcap(tmp_path / "bag_0.mcap", [("", message(10**9, bomb))])
    name = "[bag_0.mcap.zstd]" if mode == "file" else "[bag_0.mcap]"
    (tmp_path / "metadata.yaml").write_text(metadata(files=name, mode=mode))
    if mode == "file":
        with pytest.raises(VjepaError, match=TOO_MUCH):
            read(tmp_path)
        return
    count, faults = read(tmp_path)
    assert count == 0
    assert any("unfold" in fault for fault in faults)


def test_what_a_compressed_file_holds_is_bounded_as_if_it_lay_there_itself(tmp_path):
    """Chunks that state much in a file that was compressed once more, to a thousandth."""
    plain = mcap(tmp_path / "plain", [("zstd", message(10**9, bytes(60 * 2**20)))] * 40)
    (tmp_path / "bag_0.mcap.zstd").write_bytes(zstandard.compress(plain.read_bytes()))
    plain.unlink()
    (tmp_path / "metadata.yaml").write_text(metadata(files="[bag_0.mcap.zstd]", mode="file"))
    with pytest.raises(VjepaError, match=TOO_MUCH):
        read(tmp_path)


def test_messages_that_are_small_each_may_not_unfold_to_more_together(tmp_path):
    small = zstandard.compress(bytes(2**20))
    mcap(tmp_path / "bag_0.mcap", [("zstd", b"".join(message(10**9 + i, small) for i in range(10_000)))])
    (tmp_path / "metadata.yaml").write_text(metadata(mode="message"))
    count, faults = read(tmp_path)
    assert count == 0
    assert any("unfold" in fault for fault in faults)


def test_frames_of_one_time_do_not_wait_for_what_belongs_to_them_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(bag_frames, "HELD_PICTURE_BYTES", 16 * 2**20)
    kind = topics.IMAGE.type
    chunks = [("", b"\xf0" + struct.pack("<Q", 2**17) + os.urandom(2**17))]
    for number in range(1, 41):
        image = STORE.types[kind](header(number * 10**9), 1000, 1000, "rgb8", 0, 3000, np.zeros(3_000_000, np.uint8))
        data = bytes(STORE.serialize_cdr(image, kind))
        record = Message(channel_id=2, data=data, log_time=10**9 + number, publish_time=0, sequence=0)
        chunks.append(("zstd", on_another_topic(kind, "/" + topics.IMAGE.name) + encoded(record)))
    file = mcap(tmp_path / "bag.mcap", chunks, indexed=False, times=False)
    tracemalloc.start()
    count, _ = frames_of(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 40
    assert peak < 60 * 2**20


def test_a_joint_state_of_more_joints_than_an_arm_has_is_left_out(tmp_path):
    kind = STORE.types[topics.JOINT_STATES.type]
    nothing = np.zeros(0)
    data = bytes(STORE.serialize_cdr(kind(header(10**9), [""] * 100_000, nothing, nothing, nothing), kind.__msgtype__))
    file = mcap(tmp_path / "bag.mcap", [("zstd", messages(3) + message(2 * 10**9, data))])
    assert read(file) == (3, Counter({f"message on {TOPIC} of more than 65536 bytes": 1}))


def test_pictures_may_not_unfold_to_more_together_than_the_bag_explains(tmp_path):
    kind = topics.COMPRESSED_IMAGE.type
    picture = np.frombuffer(png(5000, 5000), np.uint8)
    found = [on_another_topic(kind, PICTURES)]
    for number in range(1, 200):
        image = STORE.types[kind](header(number * 10**9), "png", picture)
        data = bytes(STORE.serialize_cdr(image, kind))
        found.append(encoded(Message(channel_id=2, data=data, log_time=number * 10**9, publish_time=0, sequence=0)))
    file = mcap(tmp_path / "bag.mcap", [("zstd", b"".join(found))], indexed=False)
    count, faults = frames_of(file)
    assert count < 20
    assert any(fault.startswith("too much: nothing read from there on") for fault in faults)


# ---------------------------------------------------------------------------------------------------------- databases


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("what", "table"),
    [
        (
            "a view",
            "CREATE VIEW messages AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
            "SELECT i AS id, 1 AS topic_id, i AS timestamp, x'00' AS data FROM n",
        ),
        (
            "a table whose data is computed",
            "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, "
            "data BLOB GENERATED ALWAYS AS (zeroblob(900000000)))",
        ),
        ("a table that a module computes", "CREATE VIRTUAL TABLE messages USING fts5(id, topic_id, timestamp, data)"),
        (
            "a table whose id is not its key",
            "CREATE TABLE messages(id INTEGER, topic_id INTEGER, timestamp INTEGER, data BLOB)",
        ),
        (
            "a table whose id is not its key",
            "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data BLOB) "
            "WITHOUT ROWID",
        ),
    ],
)
def test_a_database_whose_messages_are_no_table_of_a_recorder_is_refused(what, table, compressed, tmp_path):
    file = database(tmp_path / "bag_0.db3", messages_table=table)
    if "GENERATED" in table:
        with sqlite3.connect(file) as opened:
            opened.execute("INSERT INTO messages(id, topic_id, timestamp) VALUES (1, 1, 1)")
        opened.close()
    if compressed:
        (tmp_path / "bag_0.db3.zstd").write_bytes(zstandard.compress(file.read_bytes()))
        file.unlink()
        (tmp_path / "metadata.yaml").write_text(metadata(files="[bag_0.db3.zstd]", mode="file"))
    with pytest.raises(VjepaError, match=f"'messages' is {what}; expected the table that a recorder writes"):
        read(tmp_path if compressed else file)


@pytest.mark.parametrize("table", ["messages", "sqlite_master"])
def test_a_database_whose_pages_lead_in_a_circle_ends_where_it_begins_anew(table, tmp_path):
    file = database(tmp_path / "bag.db3", 20_000 if table == "messages" else 5)
    if table == "sqlite_master":
        with sqlite3.connect(file) as opened:
            opened.execute("BEGIN")  # Without it, each table waits for the disk.
            for number in range(3000):
                opened.execute(f"CREATE TABLE t{number}(a)")
        opened.close()
        with open(file, "r+b") as raw:  # The head of the file stands before that of the first page.
            page = raw.read(4096)
            cells = int.from_bytes(page[103:105], "big")
            assert page[100] == 5
            places = [int.from_bytes(page[112 + 2 * i : 114 + 2 * i], "big") for i in range(cells)]
            first = page[places[0] : places[0] + 4]
            for place in (*places, 108):
                raw.seek(place)
                raw.write(first)
    else:
        turn_in_a_circle(file, root_page(file, table))
    count, faults = read(file)
    assert count < 1000
    assert faults["truncated file, read as far as it is whole"] == 1


def test_a_message_whose_pages_lead_in_a_circle_is_not_read(tmp_path):
    file = database(tmp_path / "bag.db3", page_size=512)
    with sqlite3.connect(file) as opened:
        opened.execute("INSERT INTO messages VALUES (1, 1, 1000000000, ?)", (bytes(50_000_000),))
    opened.close()
    content = bytearray(file.read_bytes()[: 20 * 512])
    content[19 * 512 : 19 * 512 + 4] = (19).to_bytes(4, "big")
    content[28:32] = (20).to_bytes(4, "big")
    file.write_bytes(content)
    count, faults = read(file)
    assert count == 0
    assert any(fault.startswith(f"message on {TOPIC} lost in a damaged row") for fault in faults)


# --------------------------------------------------------------------------------------------------- links and pipes


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


@pytest.mark.parametrize("name", ["bag_0.mcap", "metadata.yaml", "bag_0.db3"])
@pytest.mark.parametrize("kind", ["a pipe", "a socket", "a device"])
def test_what_is_no_file_is_not_waited_for(name, kind, tmp_path, monkeypatch):
    bag = tmp_path / "bag"
    bag.mkdir()
    mcap(bag / "real.mcap", [("", messages(5))])
    (bag / "metadata.yaml").write_text(metadata(files=f"[{name}]"))
    (bag / name).unlink(missing_ok=True)
    if kind == "a pipe":
        os.mkfifo(bag / name)
    elif kind == "a socket":
        monkeypatch.chdir(bag)  # A socket's path may not be long.
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(name)
    else:
        (bag / name).symlink_to("/dev/zero")
    for load in (lambda: Bag(bag, topic_names()), lambda: repair_bag(bag, tmp_path / "out")):
        with pytest.raises(
            VjepaError, match=rf"{name} is (not a file but {kind}|a link to /dev/zero, outside the bag)"
        ):
            load()
