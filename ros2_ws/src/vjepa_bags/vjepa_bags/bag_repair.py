"""Copy the readable messages of an MCAP bag that is cut short or damaged into a whole rosbag2 bag.

The reader returns every message in a whole chunk, whatever the end of the file contains. The writer makes a file of
them that every reader opens. The original is never changed, and the finished copy is compared with it.
"""

import json
import shutil
import textwrap
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml
from mcap.records import Channel, Schema

from vjepa_bags.bag_counts import CDR
from vjepa_bags.bag_files import custom_data, file_order
from vjepa_bags.bag_limits import Allowance, BagLimitError, check_entries, require_file
from vjepa_bags.bag_metadata import BagTopic, bag_metadata, offered_qos, to_yaml, whole_qos
from vjepa_bags.bag_source import BagError
from vjepa_bags.mcap_file import McapFile
from vjepa_bags.mcap_reader import DAMAGED_CHUNK, McapReader
from vjepa_bags.mcap_units import McapMessage
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.files import write_atomically
from vjepa_interfaces.yaml_file import parse_yaml

COMMIT_BYTES = 8 * 2**20

Described = tuple[Channel, Schema | None, McapMessage]
"""A message with its channel, and its type if it has one."""


class RepairError(VjepaError):
    """A bag that is unreadable, or a copy that is not a whole bag."""


@dataclass(frozen=True)
class Repair:
    """The result of a repair.

    Attributes:
        path: the new bag.
        counts: messages in it by topic.
        damaged_chunks: chunks that were left out, each with all its messages.
        cut_short: files of the bag that end early.
        lost: numbers of parts that were left out, by their description in words.
    """

    path: Path
    counts: dict[str, int]
    damaged_chunks: int
    cut_short: int
    lost: dict[str, int]


def repair_bag(path: Path, out: Path) -> Repair:
    """Copy all messages in whole chunks of the bag `path` into a new bag `out`, and read the new bag again.

    Args:
        path: a rosbag2 folder of MCAP files, or one such file; it is only read.
        out: folder of the new bag, which must not exist.

    Raises:
        RepairError: there is no such bag, `out` exists, no message is readable, or the new bag could not be written or
            lacks a message. The function then leaves nothing at `out`.
    """
    try:
        readers = _readers(path)
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
        repair = _copy(readers, path, out)
        _compare(readers, out)
    except BaseException as error:
        shutil.rmtree(out, ignore_errors=True)
        if isinstance(error, BagLimitError | BagError):
            raise RepairError(str(error)) from error
        if isinstance(error, OSError):
            raise RepairError(f"'{out}' could not be written: {error.strerror}; free some space") from error
        raise
    return repair


def _readers(path: Path) -> list[McapReader]:
    """Return the readers of a bag's files, in order."""
    if path.is_dir():
        check_entries(path)
    elif path.exists():
        require_file(path)
    files = sorted(path.glob("*.mcap"), key=file_order) if path.is_dir() else [path]
    if not files or not all(file.suffix == ".mcap" and file.is_file() for file in files):
        raise RepairError(f"no MCAP bag at '{path}'; expected a folder with .mcap files, or one such file")
    sizes = [file.stat().st_size for file in files]
    allowances = [Allowance.of(file, size, sum(sizes)) for file, size in zip(files, sizes, strict=True)]
    return [McapReader(allowance.path, allowance, counted=False) for allowance in allowances]


def _messages(readers: list[McapReader], lost: Counter[str]) -> Iterator[Described]:
    """Yield the messages in whole chunks in file order; add unreadable parts to `lost`, in words."""
    for reader in readers:
        for message in reader.messages_as_they_lie(lost):
            channel = reader.channels.get(message.channel)
            schema = reader.schemas.get(channel.schema_id) if channel else None
            if channel is None:
                lost[f"message of channel {message.channel}, which the file does not describe"] += 1
            elif schema is None and channel.message_encoding in CDR:
                lost[f"message on {channel.topic}, whose type the file does not define"] += 1
            else:
                yield channel, schema, message


def _copy(readers: list[McapReader], path: Path, out: Path) -> Repair:
    """Write the messages of the readers of the bag `path` into a new bag in the folder `out`."""
    name = f"{out.name}_0.mcap"
    file = McapFile(out / name, "vjepa bag repair")
    topics: dict[Any, BagTopic] = {}
    counts: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    about = {**custom_data(path), "repaired_from": str(path)}
    commit_bytes = max(COMMIT_BYTES, *(4 * reader.definition_bytes for reader in readers))  # Each has all definitions.

    def describe(statistics: Any) -> str:
        return to_yaml(bag_metadata({name: statistics}, list(topics.values()), about))

    try:
        for channel, schema, message in _messages(readers, lost):
            key = channel.topic, channel.message_encoding, schema and (schema.name, schema.encoding, schema.data)
            if key not in topics:
                topics[key] = _topic(file, channel, schema)
            number = topics[key].channel
            file.add_message(number, message.sequence, message.log_time, message.publish_time, message.data)
            counts[channel.topic] += 1
            if file.pending_bytes >= commit_bytes:
                file.commit(lambda _: "")  # The last commit describes all files and replaces the tail of this one.
        if not topics:
            named = "".join(f"\n  {what} ({count})" for what, count in lost.items())
            raise RepairError(f"'{path}' has no message in a whole chunk: nothing can be saved{named}")
        damaged_chunks = sum(count for what, count in lost.items() if what.startswith(DAMAGED_CHUNK))
        cut_short = sum(not reader.is_whole for reader in readers)
        about |= {"damaged_chunks": str(damaged_chunks), "cut_short": json.dumps(cut_short > 0)}
        about |= {"lost": json.dumps(lost)} if lost else {}
        description = file.commit(describe)
    finally:
        file.close()
    text = "rosbag2_bagfile_information:\n" + textwrap.indent(description, "  ")
    write_atomically(out / "metadata.yaml", text, durable=True)
    return Repair(out, dict(counts), damaged_chunks, cut_short, dict(lost))


def _compare(readers: list[McapReader], out: Path) -> None:
    """Read the new bag from the disk beside its original, and refuse a copy that differs."""
    copies = _readers(out)
    pairs = zip_longest(_messages(readers, Counter()), _messages(copies, Counter()))
    is_whole = all(reader.is_whole for reader in copies)
    if not is_whole or not all(one and other and _content(one) == _content(other) for one, other in pairs):
        raise RepairError(f"the repaired bag '{out}' differs from what was written into it; check the disk")


def _content(described: Described) -> tuple[str, str, int, bytes]:
    """Return topic, type, time (ns) and contents of a message."""
    channel, schema, message = described
    return channel.topic, schema.name if schema else "", message.log_time, message.data


def _topic(file: McapFile, channel: Channel, schema: Schema | None) -> BagTopic:
    """Add a channel equal to the one read, and return it as rosbag2 describes it."""
    qos: tuple[dict[str, Any], ...] = ()
    with suppress(yaml.YAMLError, TypeError, LookupError):
        offered = parse_yaml(channel.metadata.get("offered_qos_profiles", ""), aliases=True)
        qos = tuple(whole_qos(profile) for profile in offered if isinstance(profile.get("depth"), int))
    about = channel.metadata
    if not qos or list(qos) != offered:  # Readers fail on a profile that is incomplete or unreadable.
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
