"""Bags that a few bytes tell how to write and how to spoil, for fuzzers; and the account that each must pass.

The account: the messages read and those named as lost are the messages written, or the bag is refused in words.
"""

import re
import sqlite3
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import yaml
import zstandard
from mcap.writer import CompressionType, IndexType

from tests.foreign_bags import COMMAND, JOINTS, MS, T0, arm, cdr, commands, in_order, write_mcap, write_metadata
from tests.foreign_bags import write_sqlite as write_database
from vjepa_bags.bag_reader import messages_of
from vjepa_interfaces import topics
from vjepa_interfaces.errors import VjepaError

WANTED = {JOINTS: topics.JOINT_STATES, COMMAND: topics.JOINT_COMMAND}
RECIPE = "recipe"
_LOST = re.compile(r"^(message (on|of|without) .*|unreadable message on .*)")


class Choices:
    """The bytes of a recipe, one after the other; zeros behind its end."""

    def __init__(self, recipe: bytes):
        self._bytes: Iterator[int] = iter(recipe)

    def below(self, count: int) -> int:
        return next(self._bytes, 0) % count

    def one_in(self, count: int) -> bool:
        """Return true for one byte in `count`, never for a zero."""
        return self.below(count) == count - 1


def entries() -> list:
    return in_order(arm(40) + commands(20))


def account(path: Path, written: Counter[str], countable: bool = True) -> None:
    """Read a bag, and fail where a message is neither read nor named.

    Args:
        path: of the bag.
        written: messages by topic.
        countable: whether something in the bag counts its messages; otherwise a fault without a count is enough.
    """
    faults: Counter[str] = Counter()
    try:
        read = Counter("/" + topic.name for topic, _, _ in messages_of(path, WANTED, faults))
    except VjepaError as error:
        if len(str(error)) < 20:
            raise ValueError(f"refused without a cause: {error}") from error
        return
    direct = sum(count for fault, count in faults.items() if _LOST.match(fault))
    fewer: dict[str, Counter[str]] = {}
    for fault, count in faults.items():
        if found := re.match(r"fewer messages on (\S+|all topics|channel \d+) than (.*) states \(", fault):
            fewer.setdefault(found[2], Counter())[found[1]] += count
    named = direct + sum(counter.total() for counter in fewer.values())
    for topic, count in written.items():
        assert read[topic] <= count, f"{read[topic]} of {count} messages on {topic} read: {faults}"
        lost = count - read[topic]
        assert not lost or faults, f"{lost} messages on {topic} lost without a word"
    if any("nothing of it was read" in fault for fault in faults):
        return
    lost = written.total() - read.total()
    assert not countable or lost <= named, f"{lost} messages lost, {named} named: {faults}"


def records(data: bytes, opcode: int) -> list[tuple[int, int]]:
    """Return the place and the length of each record of an MCAP file with `opcode`."""
    found, position = [], 8
    while position + 9 <= len(data):
        kind, length = struct.unpack_from("<BQ", data, position)
        if kind == opcode:
            found.append((position + 9, length))
        position += 9 + length
    return found


def reordered(choose: Choices, found: list) -> list:
    order = choose.below(3)
    if order == 1:
        return found[::-1]
    return [found[i] for i in np.random.default_rng(choose.below(256)).permutation(len(found))] if order else found


def mcap_file(path: Path, recipe: bytes) -> None:
    """Write an MCAP file after a recipe: order, profile, chunks, compression, indexes, statistics, and damage."""
    choose = Choices(recipe)
    found = entries()
    written = Counter(topic for topic, _, _ in found)
    has_index, has_statistics = not choose.one_in(2), not choose.one_in(2)
    options = {
        "profile": ("ros2", "", "ros1", "other")[choose.below(4)],
        "encoding": "json" if choose.one_in(16) else "cdr",
        "compression": (CompressionType.ZSTD, CompressionType.LZ4, CompressionType.NONE)[choose.below(3)],
        "use_chunking": not choose.one_in(4),
        "chunk_size": (500, 2000, 10**6)[choose.below(3)],
        "index_types": IndexType.ALL if has_index else IndexType.NONE,
        "use_statistics": has_statistics,
        "repeat_channels": not choose.one_in(2),
        "repeat_schemas": not choose.one_in(2),
    }
    file = write_mcap(path / "b.mcap", reordered(choose, found), **options)
    data = bytearray(file.read_bytes())
    chunks, indexes, statistics = (records(data, opcode) for opcode in (0x06, 0x07, 0x0B))
    lies, cut = False, False
    if chunks and choose.one_in(3):
        place, _ = chunks[choose.below(len(chunks))]
        (length,) = struct.unpack_from("<I", data, place + 28)
        data[place + 32 : place + 32 + length] = b"brotli"[:length]
    if chunks and choose.one_in(3):
        place, length = chunks[choose.below(len(chunks))]
        data[place + 40 + choose.below(max(length - 40, 1))] ^= 1 + choose.below(255)
    if chunks and choose.one_in(4):
        struct.pack_into("<Q", data, chunks[choose.below(len(chunks))][0], T0 + choose.below(256) * 100 * MS)
    if choose.one_in(8):
        data[:] = data.replace(COMMAND.encode(), COMMAND.encode()[:-1] + b"\xff")
    if indexes and choose.one_in(3):
        lies = True
        struct.pack_into("<H", data, indexes[choose.below(len(indexes))][0], choose.below(256))
    if statistics and choose.one_in(3):
        lies = True
        place, length = statistics[0]
        data[place + length - 1 - choose.below(min(length, 28))] ^= 1 + choose.below(255)
    if choose.one_in(4):
        cut = True
        del data[len(data) * choose.below(256) // 256 :]
    file.write_bytes(data)
    account(file, written, countable=has_statistics and not lies and not cut)


def sqlite_file(path: Path, recipe: bytes) -> None:
    """Write a database after a recipe: order, encoding, compression, and changes of schema and rows."""
    choose = Choices(recipe)
    found = entries()
    written = Counter(topic for topic, _, _ in found)
    encode = (lambda message: zstandard.compress(cdr(message))) if choose.one_in(3) else cdr
    encoding = "json" if choose.one_in(8) else "cdr"
    file = path / "b.db3"
    file.unlink(missing_ok=True)
    write_database(file, reordered(choose, found), encode, encoding)
    changes = (
        "DROP INDEX timestamp_idx",
        "ALTER TABLE topics DROP COLUMN offered_qos_profiles",
        "ALTER TABLE topics DROP COLUMN serialization_format",
        "ALTER TABLE topics ADD COLUMN type_description_hash TEXT NOT NULL DEFAULT ''",
        "CREATE TABLE schema(schema_version INTEGER PRIMARY KEY, ros_distro TEXT NOT NULL)",
        "ALTER TABLE messages RENAME COLUMN data TO contents",
        "ALTER TABLE messages RENAME TO other",
        "UPDATE messages SET topic_id = 77 WHERE id % 7 = 3",
        "UPDATE messages SET timestamp = 'x' WHERE id % 7 = 2",
        "UPDATE messages SET data = 'text' WHERE id % 7 = 1",
        "UPDATE messages SET data = x'' WHERE id % 11 = 1",
        "UPDATE messages SET data = x'0001ff' WHERE id % 13 = 1",
        "DELETE FROM topics WHERE id = 1",
        "UPDATE topics SET type = 'sensor_msgs/JointState'",
        "INSERT INTO topics VALUES (99, '/joint_states', '', '', '')",
        "UPDATE topics SET name = '/joint_states', type = 'std_msgs/msg/Float64' WHERE id = 2",
    )
    with sqlite3.connect(file) as database:
        for _ in range(choose.below(4)):
            try:
                database.execute(changes[choose.below(len(changes))])
            except sqlite3.Error:
                continue  # The changes before have left nothing to change.
    database.close()
    account(file, written)


def bag_folder(path: Path, recipe: bytes) -> None:
    """Write a bag of three files after a recipe: which are there, which are listed and how, and what else is stated."""
    choose = Choices(recipe)
    folder = path / "b"
    folder.mkdir(exist_ok=True)
    for file in folder.iterdir():
        file.unlink()
    found = entries()
    written = Counter(topic for topic, _, _ in found)
    edges = [T0 - 1000 * MS, T0 + 100 * MS, T0 + 200 * MS, T0 + 10**12]
    for number in range(3):
        if not choose.one_in(4):
            part = [entry for entry in found if edges[number] <= entry[1] < edges[number + 1]]
            file = write_mcap(folder / f"b_{number}.mcap", part)
            if choose.one_in(4):
                file.with_name(file.name + ".zstd").write_bytes(zstandard.compress(file.read_bytes()))
                file.unlink()
    listed = [f"{'b/' if choose.one_in(8) else ''}b_{number}.mcap" for number in range(3) if not choose.one_in(4)]
    listed = reordered(choose, listed) + (listed[:1] if choose.one_in(8) else [])
    write_metadata(folder, listed, found)
    stated = yaml.safe_load((folder / "metadata.yaml").read_text())
    about = stated["rosbag2_bagfile_information"]
    for _ in range(choose.below(3)):
        stated_topics = about.get("topics_with_message_count") or [{}]
        topic = stated_topics[choose.below(len(stated_topics))]
        change = choose.below(9)
        if change == 0:
            topic.setdefault("topic_metadata", {})["offered_qos_profiles"] = ("", "[", [], 5)[choose.below(4)]
        elif change == 1:
            topic["message_count"] = (0, 10**6, "many", None)[choose.below(4)]
        elif change == 2:
            topic.setdefault("topic_metadata", {})["type"] = ("std_msgs/msg/String", "", 7)[choose.below(3)]
        elif change == 3:
            about.pop(sorted(about)[choose.below(len(about))])
        elif change == 4:
            about["relative_file_paths"] = (None, "b_0.mcap", [], [5], ["other.mcap"])[choose.below(5)]
        elif change == 5:
            about["compression_mode"], about["compression_format"] = "FILE", ("zstd", "gzip", "")[choose.below(3)]
        elif change == 6:
            about["storage_identifier"] = ("sqlite3", "", 5)[choose.below(3)]
        elif change == 7:
            about["topics_with_message_count"] = about.get("topics_with_message_count", [])[:1]
        else:
            about["version"] = (1, 99, "x")[choose.below(3)]
    text = yaml.safe_dump(stated)
    is_cut = choose.one_in(8)
    counts = [topic.get("message_count") for topic in about.get("topics_with_message_count") or ()]
    (folder / "metadata.yaml").write_text(text[: len(text) // 2] if is_cut else text)
    account(folder, written, countable=not is_cut and counts == list(written.values()))


READERS = {"an MCAP file": mcap_file, "a database": sqlite_file, "the folder of a bag": bag_folder}


def make_recipe(path: Path) -> None:
    """Write the recipe of a sound bag, long enough to be changed everywhere."""
    path.mkdir(parents=True)
    (path / RECIPE).write_bytes(bytes(64))


def follow(name: str, path: Path) -> None:
    """Write the bag of the recipe at `path`, read it, and fail where the account does not hold; none of no recipe."""
    if (path / RECIPE).is_file():
        READERS[name](path, (path / RECIPE).read_bytes())
