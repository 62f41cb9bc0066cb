"""Open one file of a bag of any format, whether the file or its messages are compressed or not."""

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import zstandard

from vjepa_bags.bag_limits import Allowance, BagDamageError, Meter, unfold_file, unfolded
from vjepa_bags.mcap_reader import McapReader
from vjepa_bags.sqlite_reader import SqliteReader
from vjepa_interfaces.errors import VjepaError

FOLDED = ".zstd"
_ZSTD_MAGIC = zstandard.FRAME_HEADER
"""First bytes of a compressed message; a plain message begins with 00 and a number below 12."""


class BagError(VjepaError):
    """A bag, or a mapping of its topics, that is unreadable; the message names it and states what was expected."""


class Source(Protocol):
    """One file of a bag.

    Attributes:
        path: its path.
        is_whole: whether it has the end of a finished file.
        faults: numbers of faults that are known before its messages are read, by description.
        start_ns: time of its first message.
    """

    path: Path
    is_whole: bool
    faults: Counter[str]
    start_ns: int

    def topics(self) -> dict[str, Counter[str]]:
        """Return the number of messages in the file of each topic, by type."""
        ...

    def messages(self, wanted: Mapping[str, str], faults: Counter[str]) -> Iterator[tuple[str, int, bytes]]:
        """Yield topic, time (ns) and contents of the messages on the topics and of the types `wanted`, by their times.

        Unreadable parts, and the wanted messages in them, are added to `faults`.
        """
        ...


def open_source(file: Path, allowance: Allowance, faults: Counter[str]) -> Source:
    """Open a file of a bag that may decompress to `allowance`, and count its faults.

    Raises:
        BagError: it is compressed, and the disk has no room for its content.
        BagLimitError: it decompresses to more than its size allows.
        OSError: it is unreadable.
    """
    source = _file_of(file, allowance, faults)
    if not source.is_whole:
        faults["truncated file, read as far as it is whole"] += 1
    faults.update(source.faults)
    return source


def _file_of(file: Path, allowance: Allowance, faults: Counter[str]) -> Source:
    if file.suffix == FOLDED:
        return _FileUnfolded(file, allowance, faults)
    source = McapReader(file, allowance) if file.suffix == ".mcap" else SqliteReader(file, allowance)
    return _MessagesUnfolded(source, allowance)


class _FileUnfolded:
    """A file that was compressed as a whole, decompressed into a folder that is deleted with this object."""

    def __init__(self, file: Path, allowance: Allowance, faults: Counter[str]):
        self.path = file
        self._folder = tempfile.TemporaryDirectory(prefix="vjepa-bag-")
        plain, meter = Path(self._folder.name, file.stem), Meter(allowance)
        try:
            unfold_file(file, plain, meter)
        except BagDamageError:
            faults[f"file '{file.name}' is not a whole zstd file, read as far as it is one"] += 1
        except OSError as error:
            raise BagError(
                f"'{file}' cannot be unfolded into {plain}: {error.strerror}; set TMPDIR to a folder with room"
            ) from error
        self._source = _file_of(plain, allowance.less(meter.unfolded), faults)
        self.is_whole, self.faults, self.start_ns = self._source.is_whole, self._source.faults, self._source.start_ns

    def topics(self) -> dict[str, Counter[str]]:
        return self._source.topics()

    def messages(self, wanted: Mapping[str, str], faults: Counter[str]) -> Iterator[tuple[str, int, bytes]]:
        return self._source.messages(wanted, faults)


class _MessagesUnfolded:
    """A file whose messages may be compressed one by one: their first bytes show it, not the metadata."""

    def __init__(self, source: Source, allowance: Allowance):
        self._source, self._allowance = source, allowance
        self.path, self.is_whole, self.faults = source.path, source.is_whole, source.faults
        self.start_ns = source.start_ns

    def topics(self) -> dict[str, Counter[str]]:
        return self._source.topics()

    def messages(self, wanted: Mapping[str, str], faults: Counter[str]) -> Iterator[tuple[str, int, bytes]]:
        meter = Meter(self._allowance)
        for topic, time_ns, data in self._source.messages(wanted, faults):
            if data[: len(_ZSTD_MAGIC)] != _ZSTD_MAGIC:
                yield topic, time_ns, data
                continue
            try:
                plain = unfolded("zstd", data, meter.left)
            except BagDamageError as error:
                faults[f"message on {topic} lost: {error}"] += 1
                continue
            meter.unfold(len(plain))
            yield topic, time_ns, plain
