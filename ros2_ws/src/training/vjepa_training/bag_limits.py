"""Bounds on what a bag of somebody else unfolds to, held before and while anything is decompressed.

A chunk of some kilobytes can state, and hold, gigabytes. So a file's chunks may state together at most `allowance` of
its size, each chunk at most `MAX_UNFOLDED_BYTES`, and no decompression goes on beyond what was stated. rosbags and the
mcap library decompress without a bound; here rosbags' table of decompressors is replaced, and `records_of` takes the
place of mcap's `breakup_chunk`.
"""

import mmap
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import lz4.frame
import rosbags.rosbag2.reader as rosbags_reader
import zstandard
from mcap.records import Chunk, McapRecord
from mcap.stream_reader import breakup_chunk
from rosbags.rosbag2 import storage_mcap

from vjepa_interfaces.errors import VjepaError

MAX_UNFOLDED_BYTES = 256 * 2**20
"""Of one chunk or message: ten uncompressed frames of 4K."""
BASE_BYTES, RATIO = 64 * 2**20, 1000
"""A file may unfold to `BASE_BYTES` and `RATIO` times its size: frames of one colour compress that well."""
BASE_RECORDS = 1000
"""Messages that a chunk may hold beyond one for each of its compressed bytes: stamps alone take more."""
MAX_WINDOW_BYTES = 2**27
PIECE_BYTES = 2**20
ADVICE = "unfold the bag with a tool that you trust it to, such as `ros2 bag convert` without compression"

_CHUNK, _CHUNK_INDEX, _MAGIC, _FOOTER_BYTES = 0x06, 0x08, 8, 37
_HEAD_BYTES = 2**20
"""Of a record that are looked at: an index of a chunk has ten bytes for each topic in it."""
_RECORD_HEAD = struct.Struct("<BQ")
_CHUNK_HEAD = struct.Struct("<QQQII")  # start, end, uncompressed size, checksum, length of the compression's name


class BagLimitError(VjepaError):
    """A bag that unfolds to more than its size may explain, or that leads out of its own folder."""


def allowance(size: int) -> int:
    """Return the bytes that a file of `size` bytes may unfold to."""
    return BASE_BYTES + RATIO * size


def check_links(folder: Path) -> None:
    """Refuse a bag's folder in which a file is a link to somewhere else.

    Raises:
        BagLimitError: it names the link and where it leads.
    """
    own = folder.resolve()
    for file in folder.iterdir():
        if file.is_symlink() and not file.resolve().is_relative_to(own):
            raise BagLimitError(f"{file} is a link to {file.resolve()}, outside the bag; put the file itself there")


def check_file(file: Path) -> None:
    """Refuse an MCAP file whose chunks state too much, or a database whose tables are none.

    What else is wrong with a file is for its readers to find.

    Raises:
        BagLimitError: it names what the file states and what was expected.
    """
    if file.suffix == ".mcap":
        _check_mcap(file)
    elif file.suffix == ".db3":
        _check_sqlite(file)


def _check_mcap(file: Path) -> None:
    size = file.stat().st_size
    for walk in (_chunks, _chunk_indexes):
        total = 0
        for compression, unfolds_to in walk(file):
            total += unfolds_to
            if compression and unfolds_to > MAX_UNFOLDED_BYTES:
                raise BagLimitError(
                    f"{file} has a chunk that unfolds to {unfolds_to} bytes; expected at most {MAX_UNFOLDED_BYTES}; "
                    f"{ADVICE}"
                )
            if total > allowance(size):
                raise BagLimitError(
                    f"{file} has {size} bytes and unfolds to {total} and more; expected at most {allowance(size)}; "
                    f"{ADVICE}"
                )


def _chunks(file: Path) -> Iterator[tuple[bytes, int]]:
    """Yield compression and stated size, bytes, of every chunk from the beginning of a file, as far as can be read."""
    for record in _records(file, lambda _: _MAGIC, _CHUNK):
        if len(record) >= _CHUNK_HEAD.size:
            _, _, unfolds_to, _, name = _CHUNK_HEAD.unpack_from(record)
            yield record[_CHUNK_HEAD.size :][:name], unfolds_to if name else 0


def _chunk_indexes(file: Path) -> Iterator[tuple[bytes, int]]:
    """Yield the same of every chunk in the index at the end, which may name one chunk many times."""
    for record in _records(file, _summary_start, _CHUNK_INDEX):
        position = 32
        try:
            position += 4 + struct.unpack_from("<I", record, position)[0] + 8
            (name,) = struct.unpack_from("<I", record, position)
            position += 4
            yield record[position : position + name], struct.unpack_from("<QQ", record, position + name)[1]
        except struct.error:
            return


def _summary_start(content: mmap.mmap) -> int:
    footer = len(content) - _FOOTER_BYTES
    return struct.unpack_from("<Q", content, footer + _RECORD_HEAD.size)[0] if footer >= _MAGIC else len(content)


def _records(file: Path, first: Callable[[mmap.mmap], int], wanted: int) -> Iterator[bytes]:
    """Yield the beginnings of the records of one opcode, from the offset that `first` gives."""
    if file.stat().st_size <= _MAGIC:
        return
    with open(file, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        position, end = first(content), len(content)
        while position + _RECORD_HEAD.size <= end:
            opcode, length = _RECORD_HEAD.unpack_from(content, position)
            position += _RECORD_HEAD.size
            if length > end - position:
                return
            if opcode == wanted:
                yield content[position : position + min(length, _HEAD_BYTES)]
            position += length


def _check_sqlite(file: Path) -> None:
    """Refuse a view or a generated column in the place of a table: it can give rows and bytes without end."""
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as database:
            kinds = dict(database.execute("SELECT name, type FROM sqlite_master WHERE name IN ('messages', 'topics')"))
            columns = {
                table: {row[1]: row[6] for row in database.execute(f"PRAGMA table_xinfo({table})")} for table in kinds
            }
    except sqlite3.Error:
        return
    for table, kind in kinds.items():
        generated = [name for name, hidden in columns[table].items() if hidden]
        if kind != "table" or generated:
            found = f"a {kind}" if kind != "table" else f"a table whose {', '.join(generated)} is computed"
            raise BagLimitError(f"{file}: '{table}' is {found}; expected the table that a recorder writes")


def unfolded(compression: str, data: bytes, most: int) -> bytes:
    """Return `data` decompressed (`zstd` or `lz4`), at most `most` bytes of it, and never more than the bound.

    Raises:
        BagLimitError: it goes on beyond that.
        zstandard.ZstdError, RuntimeError: it is damaged.
    """
    most = min(most, MAX_UNFOLDED_BYTES)
    pieces, size = [], 0
    for piece in _PIECES[compression](data):
        size += len(piece)
        if size > most:
            raise BagLimitError(f"{len(data)} compressed bytes unfold to more than the {most} that were expected")
        pieces.append(piece)
    return b"".join(pieces)


def _zstd_pieces(data: Any) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
    with decompressor.stream_reader(data, read_across_frames=True, closefd=False) as stream:
        while piece := stream.read(PIECE_BYTES):
            yield piece


def _lz4_pieces(data: bytes) -> Iterator[bytes]:
    while data:
        decompressor = lz4.frame.LZ4FrameDecompressor()
        piece = decompressor.decompress(data, max_length=PIECE_BYTES)
        while True:
            yield piece
            if decompressor.eof:
                break
            if not piece and decompressor.needs_input:
                raise RuntimeError("lz4 frame is cut short")
            piece = decompressor.decompress(b"", max_length=PIECE_BYTES)
        data = decompressor.unused_data or b""


_PIECES: dict[str, Callable[[Any], Iterator[bytes]]] = {"zstd": _zstd_pieces, "lz4": _lz4_pieces}


def _chunk(compression: str) -> Callable[[bytes, int], bytes]:
    """Return what takes the place of one of rosbags' decompressors of chunks: of data, and of the size stated."""

    def decompress(data: bytes, size: int) -> bytes:
        content = unfolded(compression, data, size)
        _check_records(content, BASE_RECORDS + len(data))
        return content

    return decompress


def _check_records(content: bytes, most: int) -> None:
    position, count = 0, 0
    while position + _RECORD_HEAD.size <= len(content):
        count += 1
        if count > most:
            raise BagLimitError(f"a chunk holds more than {most} messages, which its compressed size does not explain")
        position += _RECORD_HEAD.size + _RECORD_HEAD.unpack_from(content, position)[1]


def records_of(chunk: Chunk) -> list[McapRecord]:
    """Return the records in a chunk of an MCAP file, checked against its checksum.

    Raises:
        Exception: of many kinds; it is damaged or of an unknown compression, or goes beyond a bound.
    """
    if chunk.compression in _PIECES:
        content = _chunk(chunk.compression)(chunk.data, chunk.uncompressed_size)
        chunk = replace(chunk, compression="", data=content, uncompressed_size=len(content))
    elif chunk.compression:
        raise BagLimitError(f"chunk has compression '{chunk.compression}'; expected zstd, lz4 or none")
    return breakup_chunk(chunk, validate_crc=True)


class _BoundedZstd:
    """In the place of the module with which rosbags decompresses whole messages and whole files."""

    @staticmethod
    def decompress(data: bytes) -> bytes:
        return unfolded("zstd", data, PIECE_BYTES + RATIO * len(data))

    @staticmethod
    def open(stream: BufferedIOBase, mode: str) -> "_BoundedFile":
        return _BoundedFile(stream)


class _BoundedFile:
    """A compressed file that is read as its content, up to the allowance of its size."""

    def __init__(self, stream: Any):
        size = stream.seek(0, 2)
        stream.seek(0)
        self._left = allowance(size)
        self._size = size
        self._pieces = _zstd_pieces(stream)

    def read(self, _: int = -1) -> bytes:
        piece = next(self._pieces, b"")
        self._left -= len(piece)
        if self._left < 0:
            raise BagLimitError(f"a compressed file of {self._size} bytes unfolds to more than {allowance(self._size)}")
        return piece

    def __enter__(self) -> "_BoundedFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._pieces.close()  # type: ignore[attr-defined]


storage_mcap.DECOMPRESSORS.update({name: _chunk(name) for name in _PIECES})
rosbags_reader.zstd = _BoundedZstd  # type: ignore[assignment]
