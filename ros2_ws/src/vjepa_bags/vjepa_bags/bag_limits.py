"""Bounds on the decompressed size of a bag of any recorder, checked before and during decompression.

A chunk of some kilobytes can contain gigabytes, and a file of such chunks can be compressed again. So the bag's size on
disk bounds the decompressed size of all its chunks, messages and files together.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lz4.frame
import zstandard

from vjepa_interfaces.errors import VjepaError

MAX_UNFOLDED_BYTES = 256 * 2**20
"""Largest size of one decompressed chunk or message: ten uncompressed 4K frames."""
BASE_BYTES, RATIO = 64 * 2**20, 1000
"""A bag may decompress to `BASE_BYTES` and `RATIO` times its size: frames of one colour compress that well."""
BASE_MESSAGES, BYTES_A_MESSAGE = 100_000, 4
"""A bag may have `BASE_MESSAGES` and one more for each `BYTES_A_MESSAGE` of its size, which its stamps alone take."""
BASE_PICTURE_BYTES, PICTURE_RATIO = 256 * 2**20, 2000
"""Bound of its decompressed pictures, likewise; a PNG of one colour has a thousandth of the size of its pixels."""
BASE_HELD_BYTES = 256 * 2**20
"""Bytes of messages that may be held until earlier ones have been read; a larger file may hold its own size."""
MAX_DEFINITION_BYTES = 64 * 2**20
"""Largest size of the topics and message definitions of one file: a thousand types of 60 kB each."""
MAX_TOPICS = 4096

ADVICE = "unfold the bag with a trusted tool, such as `ros2 bag convert` without compression"

_MAX_WINDOW_BYTES = 2**27
_PIECE_BYTES = 2**20


class BagLimitError(VjepaError):
    """A bag that decompresses to more than its size allows, or that leads out of its own folder."""


class BagDamageError(VjepaError):
    """A part of a bag that is unreadable; the message states why."""


@dataclass(frozen=True)
class Allowance:
    """The size to which a bag may decompress.

    Attributes:
        path: path of the bag.
        size: its bytes on disk.
        unfolded: bytes to which all its chunks, messages and files together may decompress.
        messages: number of messages that it may have.
        pictures: bytes of pixels to which its compressed pictures may decompress.
    """

    path: Path
    size: int
    unfolded: int
    messages: int
    pictures: int

    @classmethod
    def of(cls, path: Path, size: int, bag_size: int | None = None) -> "Allowance":
        """Return the allowance of `path`, which has `size` bytes on disk.

        Args:
            path: path of a bag, or of one of its files.
            size: bytes on disk.
            bag_size: bytes of the whole bag; its files share the allowance of the smallest bag.
        """
        share = size / max(bag_size or size, 1)
        return cls(
            path=path,
            size=size,
            unfolded=round(BASE_BYTES * share) + RATIO * size,
            messages=round(BASE_MESSAGES * share) + size // BYTES_A_MESSAGE,
            pictures=round(BASE_PICTURE_BYTES * share) + PICTURE_RATIO * size,
        )

    def less(self, unfolded: int) -> "Allowance":
        """Return the rest of the allowance, for the content of a file that has decompressed to `unfolded` bytes."""
        return replace(self, unfolded=self.unfolded - unfolded)


class Meter:
    """The part of a bag's allowance that one reading has used."""

    def __init__(self, allowance: Allowance):
        self._allowance = allowance
        self._unfolded = self._messages = self._pictures = 0

    @property
    def unfolded(self) -> int:
        """Return the number of bytes decompressed so far."""
        return self._unfolded

    @property
    def left(self) -> int:
        """Return the number of bytes to which one more chunk or message may decompress."""
        return min(self._allowance.unfolded - self._unfolded, MAX_UNFOLDED_BYTES)

    def unfold(self, count: int) -> None:
        """Count `count` bytes that are decompressed, or are about to be.

        Raises:
            BagLimitError: the bag decompresses to more than its size allows.
        """
        self._unfolded += count
        self._check(self._unfolded, self._allowance.unfolded, "unfolds to", "bytes")

    def record(self) -> None:
        """Count one message, or one record between messages; raise BagLimitError likewise."""
        self._messages += 1
        if self._messages > self._allowance.messages:
            self._check(self._messages, self._allowance.messages, "has", "messages")

    def picture(self, pixels: int) -> None:
        """Count a compressed picture whose header states `pixels`; raise BagLimitError likewise."""
        self._pictures += 3 * pixels
        self._check(self._pictures, self._allowance.pictures, "has pictures that unfold to", "bytes")

    def _check(self, found: int, most: int, does: str, what: str) -> None:
        if found > most:
            raise BagLimitError(
                f"{self._allowance.path} has {self._allowance.size} bytes and {does} {found} {what} and more; "
                f"expected at most {most}; {ADVICE}"
            )


def check_entries(folder: Path) -> None:
    """Refuse a bag's folder with an entry that links out of it, or that is neither a file nor a folder.

    Raises:
        BagLimitError: there is such an entry; the error names it and its target.
    """
    own = Path(os.path.realpath(folder))
    for entry in sorted(folder.iterdir()):
        target = Path(os.path.realpath(entry))  # This takes a link to itself for one within the folder.
        if entry.is_symlink() and not target.is_relative_to(own):
            raise BagLimitError(f"{entry} is a link to {target}, outside the bag; put the file itself there")
        require_file(entry, folders=True)


def require_file(path: Path, folders: bool = False) -> None:
    """Refuse a pipe, a socket or a device, whose reading may never end.

    Raises:
        BagLimitError: it is one of these.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if not stat.S_ISREG(mode) and not (folders and stat.S_ISDIR(mode)):
        raise BagLimitError(f"{path} is not a file but {_kind_of(mode)}; expected a file that a recorder wrote")


def _kind_of(mode: int) -> str:
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def unfolded(compression: str, data: bytes, most: int, stated: int | None = None) -> bytes:
    """Return `data` decompressed (`zstd` or `lz4`), at most `most` bytes.

    Args:
        compression: the compression's name in MCAP.
        data: one or more frames; of a zstd frame that ends early, the result is the readable part.
        most: largest number of bytes of the result.
        stated: expected number of bytes, so that they are read in one piece.

    Raises:
        BagLimitError: the result is longer than `most`.
        BagDamageError: the data is damaged, or the compression is unknown.
    """
    if compression not in _PIECES:
        raise BagDamageError(f"chunk has compression '{compression:.20}'; expected zstd, lz4 or none")
    pieces: list[bytes] = []
    size, piece_bytes = 0, (_PIECE_BYTES if stated is None else min(stated, most) + 1)
    try:
        for piece in _PIECES[compression](data, piece_bytes):
            size += len(piece)
            if size > most:
                raise BagLimitError(f"{len(data)} compressed bytes unfold to more than the {most} that were expected")
            pieces.append(piece)
    except (zstandard.ZstdError, RuntimeError, MemoryError) as error:  # lz4 has no error type of its own.
        raise BagDamageError(f"compressed bytes are damaged: {error}") from error
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def unfold_file(file: Path, out: Path, meter: Meter) -> None:
    """Decompress the zstd file `file` into the new file `out`.

    Raises:
        BagLimitError: the result is larger than the bag's size allows.
        BagDamageError: it is not a zstd file.
        OSError: `out` cannot be written.
    """
    with open(file, "rb") as stream, open(out, "xb") as target:
        try:
            for piece in _zstd_pieces(stream, _PIECE_BYTES):
                meter.unfold(len(piece))
                target.write(piece)
        except zstandard.ZstdError as error:
            raise BagDamageError(f"{file} is not a whole zstd file: {error}") from error


def _zstd_pieces(data: Any, piece_bytes: int) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
    with decompressor.stream_reader(data, read_across_frames=True, closefd=False) as stream:
        while piece := stream.read(piece_bytes):
            yield piece


def _lz4_pieces(data: bytes, piece_bytes: int) -> Iterator[bytes]:
    while data:
        decompressor = lz4.frame.LZ4FrameDecompressor()
        piece = decompressor.decompress(data, max_length=piece_bytes)
        while True:
            yield piece
            if decompressor.eof:
                break
            if not piece and decompressor.needs_input:
                raise RuntimeError("an lz4 frame is cut short")
            piece = decompressor.decompress(b"", max_length=piece_bytes)
        data = decompressor.unused_data or b""


_PIECES = {"zstd": _zstd_pieces, "lz4": _lz4_pieces}
