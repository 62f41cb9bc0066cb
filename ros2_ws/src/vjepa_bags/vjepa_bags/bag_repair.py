"""Makes a whole rosbag2 bag of what can still be read of an MCAP bag that was cut short or damaged.

The original is never touched. What is written is read back from the disk, message by message, before it counts as done.
"""

import hashlib
import json
import os
import shutil
import textwrap
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from mcap.records import Channel, Schema
from rosbags.rosbag2 import Reader

from vjepa_bags.bag_counts import CDR
from vjepa_bags.bag_files import custom_data, file_order
from vjepa_bags.bag_limits import Allowance, BagLimitError, check_entries, require_file
from vjepa_bags.bag_metadata import BagTopic, bag_metadata, offered_qos, to_yaml, whole_qos
from vjepa_bags.bag_source import BagError
from vjepa_bags.mcap_file import McapFile
from vjepa_bags.mcap_reader import DAMAGED_CHUNK, McapReader
from vjepa_bags.mcap_units import McapMessage
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.yaml_file import parse_yaml

COMMIT_BYTES = 8 * 2**20
_SCHEMAS_OF_ROS = ("ros2msg", "ros2idl")


class RepairError(VjepaError):
    """A bag of which nothing can be read, or a copy that did not become a whole bag."""


@dataclass(frozen=True)
class Repair:
    """What was saved.

    Attributes:
        path: the new bag.
        counts: messages in it by topic.
        damaged_chunks: chunks that were left out, each with all its messages.
        cut_short: files of the bag that end early.
        lost: what was left out, in words, and how often.
    """

    path: Path
    counts: dict[str, int]
    damaged_chunks: int
    cut_short: int
    lost: dict[str, int]


class _Digest:
    """Messages as they went in or came out, in any order within a topic: counts, and a sum of hashes."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.sums: Counter[str] = Counter()

    def add(self, topic: str, kind: str, time_ns: int, data: bytes) -> None:
        self.counts[topic] += 1
        content = hashlib.blake2b(time_ns.to_bytes(8, "little") + bytes(data), digest_size=8)
        content.update(kind.encode())
        self.sums[topic] = (self.sums[topic] + int.from_bytes(content.digest(), "little")) % 2**64


class _Scan:
    """The messages of MCAP files in whole chunks, and what stood in the way of the others.

    Attributes:
        lost: what could not be read, in words, and how often.
        cut_short: files that end early.
    """

    def __init__(self, files: list[Path]):
        self.lost: Counter[str] = Counter()
        sizes = [file.stat().st_size for file in files]
        allowances = [Allowance.of(file, size, sum(sizes)) for file, size in zip(files, sizes, strict=True)]
        self._readers = [McapReader(allowance.path, allowance, counted=False) for allowance in allowances]
        self.cut_short = sum(not reader.is_whole for reader in self._readers)

    def messages(self) -> Iterator[tuple[Channel, Schema | None, McapMessage]]:
        for reader in self._readers:
            for message in reader.messages_as_they_lie(self.lost):
                channel = reader.channels.get(message.channel)
                schema = reader.schemas.get(channel.schema_id) if channel else None
                if channel is None:
                    self.lost[f"message of channel {message.channel}, which the file does not describe"] += 1
                elif schema is None and channel.message_encoding in CDR:
                    self.lost[f"message on {channel.topic}, whose type the file does not define"] += 1
                else:
                    yield channel, schema, message

    @property
    def damaged_chunks(self) -> int:
        """Chunks that were left out."""
        return sum(count for what, count in self.lost.items() if what.startswith(DAMAGED_CHUNK))

    @property
    def commit_bytes(self) -> int:
        """How much to write at a time: each commit writes all definitions anew."""
        return max(COMMIT_BYTES, *(4 * reader.definition_bytes for reader in self._readers))


def repair_bag(path: Path, out: Path) -> Repair:
    """Copy all messages in whole chunks of the bag `path` into a new bag `out`, and read that back.

    Args:
        path: a rosbag2 folder of MCAP files, or one such file; it is only read.
        out: folder of the new bag, which must not exist.

    Raises:
        RepairError: there is no such bag, `out` exists, no message can be read, or the new bag could not be written or
            does not give back every message; nothing is then left at `out`.
    """
    try:
        scan = _Scan(_mcap_files(path))
    except BagLimitError as error:
        raise RepairError(str(error)) from error
    except OSError as error:
        raise RepairError(f"'{path}' cannot be read: {error.strerror}") from error
    try:
        out.mkdir(parents=True)
    except FileExistsError:
        raise RepairError(f"'{out}' exists already; choose another name with --out, or move it away") from None
    except OSError as error:
        raise RepairError(f"'{out}' cannot be created: {error.strerror}") from error
    try:
        repair = _copy(scan, path, out)
    except BaseException as error:
        shutil.rmtree(out, ignore_errors=True)
        if isinstance(error, BagLimitError | BagError):
            raise RepairError(str(error)) from error
        if isinstance(error, OSError):
            raise RepairError(f"'{out}' could not be written: {error.strerror}; free some space") from error
        raise
    return repair


def _mcap_files(path: Path) -> list[Path]:
    if path.is_dir():
        check_entries(path)
    elif path.exists():
        require_file(path)
    files = sorted(path.glob("*.mcap"), key=file_order) if path.is_dir() else [path]
    if not files or not all(file.suffix == ".mcap" and file.is_file() for file in files):
        raise RepairError(f"no MCAP bag at '{path}'; expected a folder with .mcap files, or one such file")
    return files


def _copy(scan: _Scan, path: Path, out: Path) -> Repair:
    name = f"{out.name}_0.mcap"
    file = McapFile(out / name, "vjepa bag repair")
    topics: dict[Any, BagTopic] = {}
    written = _Digest()
    about = {**custom_data(path), "repaired_from": str(path)}

    def describe(statistics: Any) -> str:
        return to_yaml(bag_metadata({name: statistics}, list(topics.values()), about))

    try:
        for channel, schema, message in scan.messages():
            key = channel.topic, channel.message_encoding, schema and (schema.name, schema.encoding, schema.data)
            if key not in topics:
                topics[key] = _topic(file, channel, schema)
            number = topics[key].channel
            file.add_message(number, message.sequence, message.log_time, message.publish_time, message.data)
            written.add(channel.topic, topics[key].type, message.log_time, message.data)
            if file.pending_bytes >= scan.commit_bytes:
                file.commit(lambda _: "")  # The last commit describes them all, and takes the place of this one's tail.
        if not topics:
            lost = "".join(f"\n  {what} ({count})" for what, count in scan.lost.items())
            raise RepairError(f"'{path}' has no message in a whole chunk: nothing can be saved{lost}")
        about |= {"damaged_chunks": str(scan.damaged_chunks), "cut_short": json.dumps(scan.cut_short > 0)}
        about |= {"lost": json.dumps(scan.lost)} if scan.lost else {}
        description = file.commit(describe)
    finally:
        file.close()
    text = "rosbag2_bagfile_information:\n" + textwrap.indent(description, "  ")
    with open(out / "metadata.yaml", "w", encoding="utf-8") as metadata:
        metadata.write(text)
        metadata.flush()
        os.fsync(metadata.fileno())
    _verify(out, written, set(topics))
    return Repair(out, dict(written.counts), scan.damaged_chunks, scan.cut_short, dict(scan.lost))


def _topic(file: McapFile, channel: Channel, schema: Schema | None) -> BagTopic:
    """Add a channel like the one read, and return it as rosbag2 describes it."""
    qos: tuple[dict[str, Any], ...] = ()
    with suppress(yaml.YAMLError, TypeError, LookupError):
        offered = parse_yaml(channel.metadata.get("offered_qos_profiles", ""), aliases=True)
        qos = tuple(whole_qos(profile) for profile in offered if isinstance(profile.get("depth"), int))
    about = channel.metadata
    if not qos or list(qos) != offered:  # Readers would stumble over what is missing or cannot be read here.
        qos = qos or (offered_qos(10, latched=False),)
        about = {**about, "offered_qos_profiles": to_yaml(list(qos))}
    encoding = channel.message_encoding or "cdr"
    name, text, form = (
        (schema.name, schema.data.decode(errors="replace"), schema.encoding) if schema else ("", "", "ros2msg")
    )
    number = file.add_channel(channel.topic, name, text, about, encoding, form)
    return BagTopic(
        name=channel.topic,
        type=name,
        type_hash=channel.metadata.get("topic_type_hash", ""),
        depth=10,
        latched=False,
        channel=number,
        encoding=encoding,
        qos=qos,
    )


def _verify(out: Path, written: _Digest, topics: set[Any]) -> None:
    """Read the new bag from its first to its last message as everybody else would, and compare."""
    found = _Digest()
    readable = all(encoding in CDR and schema[1] in _SCHEMAS_OF_ROS for _, encoding, schema in topics)
    try:
        for topic, kind, time_ns, data in _read_by_rosbags(out) if readable else _read_by_scan(out):
            found.add(topic, kind, time_ns, data)
    except Exception as error:  # rosbags raises many kinds
        raise RepairError(f"the repaired bag '{out}' cannot be read back: {error}; is the disk sound?") from error
    if found.counts != written.counts or found.sums != written.sums:
        raise RepairError(f"the repaired bag '{out}' does not give back what was written into it; is the disk sound?")


def _read_by_rosbags(bag: Path) -> Iterator[tuple[str, str, int, bytes]]:
    """Yield topic, type, time (ns) and contents of all messages, as everybody reads them who follows metadata.yaml."""
    with Reader(bag) as reader:
        for connection, time_ns, data in reader.messages():
            yield connection.topic, connection.msgtype, time_ns, data


def _read_by_scan(bag: Path) -> Iterator[tuple[str, str, int, bytes]]:
    """Yield the same of a bag with messages in other encodings, which rosbags refuses as a whole."""
    for channel, schema, message in _Scan(_mcap_files(bag)).messages():
        yield channel.topic, schema.name if schema else "", message.log_time, message.data
