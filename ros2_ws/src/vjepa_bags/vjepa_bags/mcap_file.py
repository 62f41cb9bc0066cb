"""Write an MCAP file that is complete, with index and footer, after every commit.

Other writers write the index when they close, so most readers refuse the file of a killed writer. Here each commit
writes one chunk and, behind it, the whole tail of a finished file. The next commit overwrites that tail. If the process
is killed between two commits, every reader opens the file. If it is killed during a commit, the file ends early, and
readers that scan find all earlier chunks whole.

Format: the MCAP specification, https://mcap.dev/spec; records are encoded by the `mcap` library.
"""

import os
import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from mcap.data_stream import RecordBuilder
from mcap.opcode import Opcode
from mcap.records import (
    Channel,
    ChunkIndex,
    DataEnd,
    Footer,
    Header,
    McapRecord,
    MessageIndex,
    Metadata,
    MetadataIndex,
    Schema,
    Statistics,
)
from mcap.writer import MCAP0_MAGIC

_RECORD_HEAD = struct.Struct("<BQ")  # opcode, length of the rest
_MESSAGE_HEAD = struct.Struct("<BQHIQQ")  # the same, channel, sequence, log time, publish time
_CHUNK_HEAD = struct.Struct("<BQQQQIIQ")  # the same, start, end, size, crc, length of compression name, size


def _encoded(*records: McapRecord) -> bytes:
    builder = RecordBuilder()
    for record in records:
        record.write(builder)
    return builder.end()


class _Chunk:
    """The messages since the last commit, in memory."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0
        self.start = self.end = 0
        self.indexes: dict[int, MessageIndex] = {}

    def add(self, channel: int, sequence: int, log_time: int, publish_time: int, data: bytes) -> None:
        self.start = min(self.start, log_time) if self.parts else log_time
        self.end = max(self.end, log_time)
        self.indexes.setdefault(channel, MessageIndex(channel, [])).records.append((log_time, self.size))
        length = _MESSAGE_HEAD.size - _RECORD_HEAD.size + len(data)
        self.parts.append(_MESSAGE_HEAD.pack(Opcode.MESSAGE, length, channel, sequence, log_time, publish_time))
        self.parts.append(data)
        self.size += _RECORD_HEAD.size + length

    def encoded(self, offset: int) -> tuple[list[bytes], bytes]:
        """Return the pieces of the chunk and its message indexes, for the file offset `offset`, and its chunk index."""
        if not self.parts:
            return [], b""
        crc = 0
        for part in self.parts:
            crc = zlib.crc32(part, crc)
        length = _CHUNK_HEAD.size - _RECORD_HEAD.size + self.size
        head = _CHUNK_HEAD.pack(Opcode.CHUNK, length, self.start, self.end, self.size, crc, 0, self.size)
        chunk_length = len(head) + self.size
        encoded_indexes, index_offsets, indexes_length = [], {}, 0
        for channel, index in self.indexes.items():
            index_offsets[channel] = offset + chunk_length + indexes_length
            encoded_indexes.append(_encoded(index))
            indexes_length += len(encoded_indexes[-1])
        chunk_index = ChunkIndex(
            chunk_length=chunk_length,
            chunk_start_offset=offset,
            compression="",
            compressed_size=self.size,
            message_end_time=self.end,
            message_index_length=indexes_length,
            message_index_offsets=index_offsets,
            message_start_time=self.start,
            uncompressed_size=self.size,
        )
        return [head, *self.parts, *encoded_indexes], _encoded(chunk_index)


class McapFile:
    """Write one MCAP file of profile `ros2`, uncompressed, with one chunk for each commit.

    Not thread-safe. After an `OSError` from `commit` the messages of that commit are lost, and the file keeps the state
    of the commit before.
    """

    def __init__(self, path: Path, library: str):
        """Create `path` with magic and header; `library` names the writer.

        Raises:
            OSError: the file exists or cannot be created or written.
        """
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        self._schemas: dict[tuple[str, str, str], Schema] = {}
        self._channels: list[Channel] = []
        self._definitions = b""
        self._chunk = _Chunk()
        self._chunk_indexes = bytearray()
        self._statistics = Statistics(
            attachment_count=0,
            channel_count=0,
            channel_message_counts={},
            chunk_count=0,
            message_count=0,
            message_end_time=0,
            message_start_time=0,
            metadata_count=1,
            schema_count=0,
        )
        self._tail: list[bytes | bytearray] = []
        self._data_end = 0
        head = MCAP0_MAGIC + _encoded(Header(profile="ros2", library=library))
        try:
            self._replace_tail([head])
        except OSError:
            os.close(self._descriptor)
            raise
        self._data_end = len(head)

    @property
    def pending_bytes(self) -> int:
        """Return the number of bytes that the next commit will write, without its tail."""
        return self._chunk.size + len(self._definitions)

    @property
    def statistics(self) -> Statistics:
        """Return the statistics of the committed messages."""
        return self._statistics

    def message_count(self, channel: int) -> int:
        """Return the number of messages of `channel` that are committed or pending."""
        pending = self._chunk.indexes.get(channel)
        return self._statistics.channel_message_counts.get(channel, 0) + (len(pending.records) if pending else 0)

    def add_channel(
        self,
        topic: str,
        schema_name: str,
        schema_text: str,
        metadata: dict[str, str],
        encoding: str = "cdr",
        schema_encoding: str = "ros2msg",
    ) -> int:
        """Add a channel, and return its number.

        Args:
            topic: name of the topic.
            schema_name: type of its messages; empty for a channel without a schema.
            schema_text: full definition of the type.
            metadata: metadata of the channel.
            encoding: encoding of its messages.
            schema_encoding: encoding of the definition.
        """
        key = (schema_name, schema_encoding, schema_text)
        if schema_name and key not in self._schemas:
            number = len(self._schemas) + 1
            schema = Schema(id=number, data=schema_text.encode(), encoding=schema_encoding, name=schema_name)
            self._schemas[key] = schema
            self._definitions += _encoded(schema)
        channel = Channel(
            id=len(self._channels) + 1,
            topic=topic,
            message_encoding=encoding,
            metadata=metadata,
            schema_id=self._schemas[key].id if schema_name else 0,
        )
        self._channels.append(channel)
        self._definitions += _encoded(channel)
        return channel.id

    def add_message(self, channel: int, sequence: int, log_time: int, publish_time: int, data: bytes) -> None:
        """Keep a message for the next commit; times in ns, `sequence` modulo 2^32. `data` must not change later."""
        self._chunk.add(channel, sequence & 0xFFFFFFFF, log_time, publish_time, data)

    def commit(self, describe: Callable[[Statistics], str]) -> str:
        """Write the pending messages and a new tail; return the description in it.

        Args:
            describe: returns the text of rosbag2's `serialized_metadata` from the new statistics of the file.

        Raises:
            OSError: the file could not be written; it keeps the state of the last commit.
        """
        chunk, self._chunk = self._chunk, _Chunk()
        definitions, self._definitions = self._definitions, b""
        statistics = self._statistics_with(chunk)
        pieces, chunk_index = chunk.encoded(self._data_end + len(definitions))
        data_end = self._data_end + len(definitions) + sum(map(len, pieces))
        description = describe(statistics)
        before, after = self._encoded_tail(data_end, statistics, description)
        try:
            self._replace_tail([b"".join([definitions, *pieces, before]), self._chunk_indexes, chunk_index + after])
        except OSError:
            self._replace_tail(self._tail)
            raise
        self._chunk_indexes += chunk_index  # Never copied: it grows by about a MiB an hour.
        self._data_end, self._tail = data_end, [before, self._chunk_indexes, after]
        self._statistics = statistics
        return description

    def close(self, durable: bool = True) -> None:
        """Close the file; if `durable`, first wait until the committed messages would survive a power cut."""
        try:
            if durable:
                os.fsync(self._descriptor)
        finally:
            os.close(self._descriptor)

    def _statistics_with(self, chunk: _Chunk) -> Statistics:
        before = self._statistics
        added = {channel: len(index.records) for channel, index in chunk.indexes.items()}
        counts = {c.id: before.channel_message_counts.get(c.id, 0) + added.get(c.id, 0) for c in self._channels}
        statistics = replace(
            before, schema_count=len(self._schemas), channel_count=len(self._channels), channel_message_counts=counts
        )
        if not added:
            return statistics
        return replace(
            statistics,
            chunk_count=before.chunk_count + 1,
            message_count=before.message_count + sum(added.values()),
            message_start_time=min(before.message_start_time, chunk.start) if before.message_count else chunk.start,
            message_end_time=max(before.message_end_time, chunk.end),
        )

    def _encoded_tail(self, offset: int, statistics: Statistics, description: str) -> tuple[bytes, bytes]:
        """Return the bytes before and behind the indexes of the chunks in the tail of a file."""
        metadata = _encoded(Metadata(name="rosbag2", metadata={"serialized_metadata": description}))
        data_end = _encoded(DataEnd(data_section_crc=0))
        metadata_index = _encoded(MetadataIndex(offset=offset, length=len(metadata), name="rosbag2"))
        definitions = _encoded(*self._schemas.values(), *self._channels, statistics)
        footer = _encoded(
            Footer(summary_start=offset + len(metadata) + len(data_end), summary_offset_start=0, summary_crc=0)
        )
        return metadata + data_end + definitions, metadata_index + footer + MCAP0_MAGIC

    def _replace_tail(self, pieces: Iterable[bytes | bytearray]) -> None:
        # Cut the file first. A kill during the write then leaves a file that just ends early, which scanning readers
        # expect. The rest of an old index could pass for records.
        os.ftruncate(self._descriptor, self._data_end)
        offset = self._data_end
        for piece in pieces:
            with memoryview(piece) as view:
                written = 0
                while written < len(view):
                    written += os.pwrite(self._descriptor, view[written:], offset + written)
            offset += written
