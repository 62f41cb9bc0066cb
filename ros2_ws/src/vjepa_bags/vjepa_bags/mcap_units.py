"""Read the parts of an MCAP file that are read as a whole: chunks, and runs of messages outside of chunks.

Format: the MCAP specification, https://mcap.dev/spec.
"""

import struct
import zlib
from array import array
from collections.abc import Callable, Container, Iterator
from typing import IO, NamedTuple

import numpy as np
from mcap.opcode import Opcode

from vjepa_bags.bag_limits import BagDamageError, BagLimitError, Meter, unfolded

RUN_BYTES = 2**20
"""Approximate size in bytes of a run of messages outside of chunks."""
MAX_INDEX_BYTES = 2**26
"""Bound of the index of one channel in one chunk: four million messages. Without an index the messages are counted."""
RECORD_HEAD = struct.Struct("<BQ")  # opcode, length of the rest

_MESSAGE_HEAD = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time
_CHUNK_HEAD = struct.Struct("<QQQII")  # start, end, uncompressed size, checksum, length of the compression's name
_INDEX_HEAD = struct.Struct("<HI")  # channel, bytes of the entries
_INDEX_ENTRY_BYTES = 16
_LONGEST_NAME = 64


class McapMessage(NamedTuple):
    """A message as the file contains it; times in nanoseconds."""

    channel: int
    sequence: int
    log_time: int
    publish_time: int
    data: bytes


class Unit(NamedTuple):
    """A chunk, or a run of messages outside of chunks, whose records lie together and are read together.

    Attributes:
        start_ns: time of its first message according to the chunk, or according to its index if that is earlier.
        offset: place of its contents in the file.
        size: bytes of its contents.
        compression: its name in MCAP; empty for none.
        unfolds_to: bytes of the decompressed contents, as the chunk states.
        crc: checksum of the decompressed contents; 0 for none.
        counts: messages by channel, from the index behind a chunk; None without an index.
    """

    start_ns: int
    offset: int
    size: int
    compression: str = ""
    unfolds_to: int = 0
    crc: int = 0
    counts: dict[int, int] | None = None


class Loaded:
    """The records of one unit: its contents, and the places of its messages.

    Attributes:
        channels: channels of its messages, in file order.
        times: times of its messages, ns.
    """

    def __init__(
        self,
        unit: Unit,
        stream: IO[bytes],
        meter: Meter,
        wanted: Container[int],
        define: Callable[[int, bytes], bool],
    ):
        """Read a unit of the file `stream` and decompress it.

        Args:
            unit: place of the unit.
            stream: the file.
            meter: the part of the bag's allowance that is used.
            wanted: channels whose messages are kept.
            define: function of the opcode and the body of each definition; returns whether it is a definition.

        Raises:
            BagDamageError: its contents differ from its head, or its records are damaged.
            BagLimitError: the bag decompresses to more than its size allows.
        """
        self.channels, self.times = array("H"), array("Q")
        self._places, self._ends = array("Q"), array("Q")
        self._content = memoryview(_content(unit, stream, meter))
        position, size = 0, len(self._content)
        while position < size:
            place = position + RECORD_HEAD.size
            opcode, length = RECORD_HEAD.unpack_from(self._content, position) if place <= size else (0, size)
            position = place + length
            if position > size:
                raise BagDamageError("Chunk ends within a record")
            meter.record()
            if opcode == Opcode.MESSAGE:
                if length < _MESSAGE_HEAD.size:
                    raise BagDamageError("Chunk has a message without a head")
                self._note(place, position, wanted)
            elif opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
                if not define(opcode, bytes(self._content[place:position])):
                    raise BagDamageError("Chunk has an unreadable definition")
            elif opcode == Opcode.CHUNK:
                raise BagDamageError("Chunk contains another chunk")

    def __len__(self) -> int:
        return len(self.channels)

    @property
    def bytes_held(self) -> int:
        """Return its size in memory, in bytes."""
        return len(self._content) + 26 * len(self)

    def message(self, number: int) -> McapMessage:
        """Return one of its messages, by its number in file order."""
        place = self._places[number]
        channel, sequence, log_time, publish_time = _MESSAGE_HEAD.unpack_from(self._content, place)
        data = bytes(self._content[place + _MESSAGE_HEAD.size : self._ends[number]])
        return McapMessage(channel, sequence, log_time, publish_time, data)

    def by_time(self) -> Iterator[int]:
        """Return the numbers of its messages in the order of their times."""
        rising = all(map(int.__le__, self.times, self.times[1:]))
        return iter(range(len(self)) if rising else sorted(range(len(self)), key=self.times.__getitem__))

    def _note(self, place: int, end: int, wanted: Container[int]) -> None:
        channel, _, time_ns, _ = _MESSAGE_HEAD.unpack_from(self._content, place)
        if channel in wanted:
            self.channels.append(channel)
            self.times.append(time_ns)
            self._places.append(place)
            self._ends.append(end)


class Run:
    """Consecutive messages outside of chunks."""

    def __init__(self) -> None:
        self._start_ns = self._last_ns = self._offset = self._end = 0
        self._counts: dict[int, int] = {}

    def with_message(self, stream: IO[bytes], position: int, length: int) -> list[Unit]:
        """Add the message record at `position`; if it begins a new run, return the unit of the run before."""
        head = stream.read(_MESSAGE_HEAD.size)
        whole = len(head) == _MESSAGE_HEAD.size and length >= len(head)
        channel, _, time_ns, _ = _MESSAGE_HEAD.unpack(head) if whole else (-1, 0, 0, 0)
        goes_on = self._end == position and time_ns >= self._last_ns and position - self._offset < RUN_BYTES
        done = [] if goes_on else self.ended()
        if not goes_on:
            self._start_ns, self._offset = time_ns, position
        self._counts[channel] = self._counts.get(channel, 0) + 1
        self._last_ns, self._end = time_ns, position + RECORD_HEAD.size + length
        return done

    def ended(self) -> list[Unit]:
        """Return the unit of these messages, if there are any, and begin a new run."""
        size = self._end - self._offset
        found = [Unit(self._start_ns, self._offset, size, unfolds_to=size, counts=self._counts)] if size else []
        self._offset = self._end = 0
        self._counts = {}
        return found


def chunk_at(stream: IO[bytes], body: int, length: int) -> Unit:
    """Return the chunk whose record begins at the offset `body` of `stream`; its size is -1 if its head is damaged."""
    head = stream.read(min(length, _CHUNK_HEAD.size + _LONGEST_NAME + 8))
    try:
        start_ns, _, unfolds_to, crc, name_length = _CHUNK_HEAD.unpack_from(head)
        name = head[_CHUNK_HEAD.size :][:name_length]
        (size,) = struct.unpack_from("<Q", head, _CHUNK_HEAD.size + name_length)
    except struct.error:
        return Unit(0, body, -1)
    before = _CHUNK_HEAD.size + name_length + 8
    if before + size > length:
        return Unit(0, body, -1)
    return Unit(start_ns, body + before, size, name.decode("ascii", errors="replace"), unfolds_to, crc)


class Index(NamedTuple):
    """The index behind a chunk for one channel: the number of its messages, and the time of the first, ns."""

    channel: int
    messages: int
    first_ns: int


def index_at(stream: IO[bytes], length: int) -> Index | None:
    """Return the index record behind a chunk; None if it is not an index or has no messages."""
    head = stream.read(min(length, _INDEX_HEAD.size))
    if len(head) < _INDEX_HEAD.size:
        return None
    channel, size = _INDEX_HEAD.unpack(head)
    if not size or size != length - _INDEX_HEAD.size or size % _INDEX_ENTRY_BYTES or size > MAX_INDEX_BYTES:
        return None
    times = np.frombuffer(stream.read(size), "<u8")[::2]
    return Index(channel, size // _INDEX_ENTRY_BYTES, int(times.min()))


def _content(unit: Unit, stream: IO[bytes], meter: Meter) -> bytes:
    """Return the contents of a chunk or a run, checked against its size and checksum."""
    if unit.size < 0:
        raise BagDamageError("Chunk does not state its size within its record")
    stream.seek(unit.offset)
    content = stream.read(unit.size)
    if len(content) != unit.size:
        raise BagDamageError("Chunk is cut short")
    if unit.compression:
        meter.unfold(unit.unfolds_to)
        try:
            content = unfolded(unit.compression, content, unit.unfolds_to, unit.unfolds_to)
        except BagLimitError as error:
            raise BagDamageError(f"Chunk size mismatch: {error}") from error
    if len(content) != unit.unfolds_to:
        raise BagDamageError(f"Chunk size mismatch: it states {unit.unfolds_to} bytes and has {len(content)}")
    if unit.crc and zlib.crc32(content) != unit.crc:
        raise BagDamageError("Chunk checksum mismatch")
    return content
