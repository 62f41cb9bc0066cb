"""One file of a bag, whatever its format, and whether it or its messages are compressed."""

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
"""First bytes of a compressed message; those of a plain one are 00 and a number below 12."""


class BagError(VjepaError):
    """A bag, or a mapping of its topics, that cannot be read at all; the message names it and what was expected."""


class Source(Protocol):
    """One file of a bag.

    Attributes:
        path: of the file.
        is_whole: whether it has the end of a finished file.
        faults: what is wrong with it as far as can be told without reading its messages, and how often.
        start_ns: time of its first message.
    """

    path: Path
    is_whole: bool
    faults: Counter[str]
    start_ns: int

    def topics(self) -> dict[str, Counter[str]]:
        """Return the number of messages of each topic, by their type, as they lie in the file."""
        ...

    def messages(self, wanted: Mapping[str, str], faults: Counter[str]) -> Iterator[tuple[str, int, bytes]]:
        """Yield topic, time (ns) and contents of the messages on the topics and of the types `wanted`, by their times.

        `faults` is counted up by the parts that cannot be read, and by the messages wanted that are in them.
        """
        ...


def open_source(file: Path, allowance: Allowance, faults: Counter[str]) -> Source:
    """Open a file of a bag that may unfold to `allowance`, and count what is wrong with it.

    Raises:
        BagError: it is compressed, and there is no room for what it holds.
        BagLimitError: it unfolds to more than its size explains.
        OSError: it cannot be read.
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
    """A file that was compressed as a whole: unfolded into a folder of its own, which is deleted with it."""

    def __init__(self, file: Path, allowance: Allowance, faults: Counter[str]):
        self.path = file
        self._folder = tempfile.TemporaryDirectory(prefix="vjepa-bag-")
        plain, meter = Path(self._folder.name, file.stem), Meter(allowance)
        try:
            unfold_file(file, plain, meter)
        except BagDamageError:
            faults[f"file '{file.name}' is no whole zstd file, read as far as it is one"] += 1
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
    """A file whose messages may have been compressed one by one: their first bytes tell, not the metadata."""

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
