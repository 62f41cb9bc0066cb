"""Read one MCAP file of any recorder record by record, and decompress its chunks within the bag's allowance.

The reader does not trust the index at a file's end, which may name one chunk many times. The heads of the records in
the data section state the place of each chunk. So a file that ends early is read like a whole file, and neither the
profile nor the order of the messages matters. The reader compares the counts in the chunk indexes and the statistics.

Format: the MCAP specification, https://mcap.dev/spec; definitions are decoded by the `mcap` library.
"""

import heapq
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from mcap.data_stream import ReadDataStream
from mcap.opcode import Opcode
from mcap.records import Channel, Schema, Statistics
from mcap.writer import MCAP0_MAGIC

from vjepa_bags.bag_counts import CDR, compare, message_type
from vjepa_bags.bag_limits import (
    BASE_HELD_BYTES,
    MAX_DEFINITION_BYTES,
    MAX_TOPICS,
    MAX_UNFOLDED_BYTES,
    Allowance,
    BagDamageError,
    BagLimitError,
    Meter,
)
from vjepa_bags.mcap_units import RECORD_HEAD, Index, Loaded, McapMessage, Run, Unit, chunk_at, index_at

DAMAGED_CHUNK = "damaged chunk left out"
MAX_STATISTICS_BYTES = 2**20
_NO_TEXT = "\\x"
"""Stands in a topic's name for bytes that are no text; no name in ROS contains it."""


class McapReader:
    """The content of an MCAP file.

    Attributes:
        path: its path.
        channels: channels by number.
        schemas: schemas by number.
        units: units in file order.
        counts: messages by channel: from the index behind each chunk, or counted where a chunk has none.
        is_whole: whether it has the end of a finished file.
        faults: numbers of faults that are known before its messages are read, by description.
        start_ns: time of its first message.
    """

    def __init__(self, path: Path, allowance: Allowance, counted: bool = True):
        """Scan the file `path` of a bag that may decompress to `allowance`.

        Args:
            path: path of the file.
            allowance: allowance of its bag.
            counted: whether messages are counted and compared with the file's statistics.

        Raises:
            BagLimitError: its chunks state more than the allowance, or its definitions are too many or too large.
            OSError: it is unreadable.
        """
        self.path, self._allowance = path, allowance
        self.channels: dict[int, Channel] = {}
        self.schemas: dict[int, Schema] = {}
        self.units: list[Unit] = []
        self.counts: Counter[int] = Counter()
        self.is_whole = False
        self.faults: Counter[str] = Counter()
        self._definitions: dict[tuple[int, int], int] = {}
        self._definition_bytes = 0
        statistics = self._look_through()
        self._check_stated()
        if counted:
            self._count(statistics)
            self._name_unread()
        self.start_ns = min((unit.start_ns for unit in self.units if unit.size >= 0), default=0)

    @property
    def definition_bytes(self) -> int:
        """Return the size in bytes of all topics and message definitions."""
        return self._definition_bytes

    def topics(self) -> dict[str, Counter[str]]:
        """Return the number of messages of each topic, by their type."""
        found: dict[str, Counter[str]] = {}
        for number, channel in self.channels.items():
            if channel.message_encoding in CDR:
                found.setdefault(channel.topic, Counter())[self._type_of(channel)] += self.counts[number]
        return found

    def _type_of(self, channel: Channel) -> str:
        schema = self.schemas.get(channel.schema_id)
        return message_type(schema.name) if schema else ""

    def _lost(self, unit: Unit, names: Mapping[int, str], error: BagDamageError, faults: Counter[str]) -> None:
        """Count an unreadable part of the file, and the messages in it according to its index."""
        faults[f"{DAMAGED_CHUNK} ({error})"] += 1
        for number, count in (unit.counts or {}).items():
            if number in names:
                faults[f"message on {names[number]} lost in a damaged chunk"] += count

    def messages(self, wanted: Mapping[str, str], faults: Counter[str]) -> Iterator[tuple[str, int, bytes]]:
        """Yield topic, time (ns) and contents of the messages on the topics and of the types `wanted`, by their times.

        Damaged chunks are left out. They, and the wanted messages in them, are added to `faults`.

        Raises:
            BagLimitError: chunks decompress to more than the allowance, or too many of them have the same time.
        """
        names = {
            number: channel.topic
            for number, channel in self.channels.items()
            if wanted.get(channel.topic) == self._type_of(channel) and channel.message_encoding in CDR
        }
        most_held = max(BASE_HELD_BYTES, os.stat(self.path).st_size)
        meter, held = Meter(self._allowance), 0
        waiting: list[tuple[int, int, int, Iterator[int], Loaded]] = []  # Time, serial, number of the next message.

        def push(serial: int, numbers: Iterator[int], loaded: Loaded) -> bool:
            number = next(numbers, None)
            if number is not None:
                heapq.heappush(waiting, (loaded.times[number], serial, number, numbers, loaded))
            return number is not None

        def until(time_ns: float) -> Iterator[tuple[str, int, bytes]]:
            nonlocal held
            while waiting and waiting[0][0] < time_ns:
                _, serial, number, numbers, loaded = heapq.heappop(waiting)
                message = loaded.message(number)
                if not push(serial, numbers, loaded):
                    held -= loaded.bytes_held
                yield names[message.channel], message.log_time, message.data

        try:
            with open(self.path, "rb") as stream:
                for serial, unit in enumerate(sorted(self.units, key=lambda unit: unit.start_ns)):
                    yield from until(unit.start_ns)
                    if held and held + unit.unfolds_to > most_held:
                        raise BagLimitError(
                            f"{self.path} has chunks of the same time that take more than {most_held} bytes together; "
                            "sort it with a trusted tool, such as `mcap sort`"
                        )
                    try:
                        loaded = Loaded(unit, stream, meter, names, self._define)
                    except BagDamageError as error:
                        self._lost(unit, names, error, faults)
                        continue
                    held += loaded.bytes_held if push(serial, loaded.by_time(), loaded) else 0
        except BagLimitError:
            yield from until(float("inf"))
            raise
        yield from until(float("inf"))

    def messages_as_they_lie(self, faults: Counter[str]) -> Iterator[McapMessage]:
        """Yield the messages of all channels in the order of the file.

        Damaged chunks, and the messages in them, are added to `faults`.

        Raises:
            BagLimitError: the chunks decompress to more than the allowance.
        """
        meter = Meter(self._allowance)
        with open(self.path, "rb") as stream:
            for unit in self.units:
                try:
                    loaded = Loaded(unit, stream, meter, range(2**16), self._define)
                except BagDamageError as error:
                    self._lost(unit, {number: self._name_of(number) for number in unit.counts or {}}, error, faults)
                else:
                    yield from map(loaded.message, range(len(loaded)))

    def _look_through(self) -> Statistics | None:
        """Find the place of every part, and return the statistics at the end of the file."""
        statistics, run, behind_chunk = None, Run(), False
        with open(self.path, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            position = len(MCAP0_MAGIC)
            if stream.read(position) != MCAP0_MAGIC:
                self.faults[f"file '{self.path.name}' does not begin as an MCAP file: nothing of it was read"] += 1
                return None
            while len(head := stream.read(RECORD_HEAD.size)) == RECORD_HEAD.size:
                opcode, length = RECORD_HEAD.unpack(head)
                body = position + RECORD_HEAD.size
                if length > size - body or not opcode:
                    break
                if opcode != Opcode.MESSAGE:
                    self.units += run.ended()
                behind_chunk = opcode == Opcode.CHUNK or (behind_chunk and opcode == Opcode.MESSAGE_INDEX)
                if opcode == Opcode.CHUNK:
                    self.units.append(chunk_at(stream, body, length))
                elif opcode == Opcode.MESSAGE:
                    self.units += run.with_message(stream, position, length)
                elif opcode == Opcode.MESSAGE_INDEX and behind_chunk:
                    self._note_index(index_at(stream, length))
                elif opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
                    if length > MAX_DEFINITION_BYTES or not self._define(opcode, stream.read(length)):
                        break
                elif opcode == Opcode.STATISTICS and length <= MAX_STATISTICS_BYTES:
                    statistics = _decoded(Statistics, stream.read(length))
                elif opcode == Opcode.FOOTER:
                    stream.seek(body + length)
                    self.is_whole = stream.read(len(MCAP0_MAGIC)) == MCAP0_MAGIC
                    if self.is_whole and (rest := size - stream.tell()):
                        self.faults[f"{rest} bytes behind the end of file '{self.path.name}' were not read"] += 1
                    break
                position = body + length
                stream.seek(position)
        self.units += run.ended()
        return statistics

    def _define(self, opcode: int, body: bytes) -> bool:
        """Add a definition; return whether the record is one."""
        kind: type[Schema] | type[Channel] = Schema if opcode == Opcode.SCHEMA else Channel
        found = _decoded(kind, body)
        if found is None:
            return False
        known: dict[int, Any] = self.schemas if opcode == Opcode.SCHEMA else self.channels
        before = known.get(found.id)
        if isinstance(found, Channel) and before is not None and before.topic != found.topic:
            raise BagLimitError(
                f"{self.path} uses channel {found.id} for '{before.topic}' and for '{found.topic}', so the "
                "topic of its messages is unknown; expected one topic for each channel"
            )
        if known.get(found.id) != found:
            known[found.id] = found
            self._definition_bytes += len(body) - self._definitions.get((opcode, found.id), 0)
            self._definitions[opcode, found.id] = len(body)
        if self._definition_bytes > MAX_DEFINITION_BYTES or len(self.channels) > MAX_TOPICS:
            raise BagLimitError(
                f"{self.path} has at least {len(self.channels)} topics and {self._definition_bytes} bytes of "
                f"definitions; expected at most {MAX_TOPICS} and {MAX_DEFINITION_BYTES}"
            )
        return True

    def _check_stated(self) -> None:
        """Refuse chunks that state too large a size before any of them is decompressed."""
        meter = Meter(self._allowance)
        for unit in self.units:
            if unit.compression:
                if unit.unfolds_to > MAX_UNFOLDED_BYTES:
                    raise BagLimitError(
                        f"{self.path} has a chunk that unfolds to {unit.unfolds_to} bytes; expected at most "
                        f"{MAX_UNFOLDED_BYTES}; unfold it with a trusted tool, such as `mcap decompress`"
                    )
                meter.unfold(unit.unfolds_to)

    def _note_index(self, found: Index | None) -> None:
        """Add the message count and the times of an index to the chunk before it."""
        if found is not None:
            counts = {**(self.units[-1].counts or {})}
            counts[found.channel] = counts.get(found.channel, 0) + found.messages
            self.units[-1] = self._with_start(self.units[-1], found.first_ns)._replace(counts=counts)

    def _with_start(self, unit: Unit, first_ns: int) -> Unit:
        """Return a unit that begins no later than its first message."""
        if first_ns >= unit.start_ns:
            return unit
        self.faults["chunk that states a later time than its messages have, read by theirs"] += 1
        return unit._replace(start_ns=first_ns)

    def _count(self, statistics: Statistics | None) -> None:
        """Sum the messages of all units; if indexes and statistics differ, count the messages one by one."""
        for unit in self.units:
            self.counts.update(unit.counts or {})
        if not self.is_whole:
            statistics = None
        stated = Counter(statistics.channel_message_counts) if statistics is not None else None
        if stated != self.counts or not all(map(self._is_described, self.counts)):
            self._count_one_by_one(stated)
        if statistics is not None and (not stated or statistics.message_count != stated.total()):
            where = f"the statistics of {self.path.name}"
            compare("all topics", self.counts.total(), statistics.message_count, where, self.faults)

    def _count_one_by_one(self, stated: Counter[int] | None) -> None:
        """Count the messages of each unit, and compare them with the statistics in `stated` and with the indexes."""
        indexed, self.counts = self.counts, Counter()
        is_indexed = all(unit.counts is not None for unit in self.units)
        meter = Meter(self._allowance)
        with open(self.path, "rb") as stream:
            for number, unit in enumerate(self.units):
                try:
                    loaded = Loaded(unit, stream, meter, range(2**16), self._define)
                    unit = self._with_start(unit, min(loaded.times, default=unit.start_ns))
                    self.units[number] = unit = unit._replace(counts=Counter(loaded.channels))
                except BagDamageError:
                    pass  # It is counted when it is read.
                self.counts.update(unit.counts or {})
        if stated:
            self._compare(stated, "statistics")
        if is_indexed:
            self._compare(indexed, "index")

    def _is_described(self, number: int) -> bool:
        """Return whether the channel and type of messages are known; only chunks may contain them."""
        channel = self.channels.get(number)
        return channel is not None and (not channel.schema_id or channel.schema_id in self.schemas)

    def _compare(self, stated: Counter[int], what: str) -> None:
        for number in sorted({*stated, *self.counts}):
            where = f"the {what} of {self.path.name}"
            compare(self._name_of(number), self.counts[number], stated[number], where, self.faults)

    def _name_unread(self) -> None:
        """Count the messages that are never read: without a channel or its name, or of another encoding."""
        for number, count in self.counts.items():
            channel = self.channels.get(number)
            if channel is None:
                self.faults[f"message of channel {number}, which the file does not describe"] += count
            elif channel.message_encoding not in CDR:
                what = f"message on {channel.topic} encoded as '{channel.message_encoding:.20}'; expected cdr"
                self.faults[what] += count
            elif _NO_TEXT in channel.topic:
                self.faults[f"message on '{channel.topic}', which is no name in UTF-8"] += count

    def _name_of(self, number: int) -> str:
        channel = self.channels.get(number)
        return channel.topic if channel else f"channel {number}"


class _Texts(ReadDataStream):
    """The library's reader of records, but it accepts names that are not UTF-8 and writes their bytes as numbers."""

    def read_prefixed_string(self) -> str:
        return self.read(self.read4()).decode(errors="backslashreplace")


def _decoded(kind: Any, body: bytes) -> Any:
    """Return the record of `kind` in the bytes `body`; None if there is none."""
    try:
        return kind.read(_Texts(BytesIO(body)))
    except Exception:  # The library has no single error type for a damaged record.
        return None
