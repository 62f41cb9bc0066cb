"""What was published, recorded, repeated and lost on the topics of a recording."""

import struct
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass

_UNNUMBERED = 2**64 - 1
"""What rmw reports as a sequence number when the middleware has none."""

_REMEMBERED_PUBLISHERS = 16
_REMEMBERED_CONTENTS = 16


@dataclass(frozen=True)
class TopicAudit:
    """The account of one topic.

    Attributes:
        topic: its name.
        recorded: messages in the bag.
        repeated: exact repeats left out of the bag.
        lost: messages published between the first and last one seen of each publisher that never arrived.
        unwritten: messages that arrived but could not be written, because the disk failed.
        unnumbered: messages without a publication sequence number: their losses cannot be known.
        publishers: publishers told apart by their sequence numbers, a restarted one counted again.
    """

    topic: str
    recorded: int
    repeated: int
    lost: int
    unwritten: int
    unnumbered: int
    publishers: int

    @property
    def published(self) -> int:
        """Messages published between the first and the last one seen."""
        return self.recorded + self.repeated + self.lost + self.unwritten


@dataclass(frozen=True)
class Audit:
    """The account of a recording: one entry a topic, and the write `error` that ended it, if any."""

    topics: tuple[TopicAudit, ...]
    error: str | None = None

    @property
    def lost(self) -> int:
        """Messages published but not in the bag, exact repeats aside."""
        return sum(topic.lost + topic.unwritten for topic in self.topics)

    def as_dict(self) -> dict[str, dict[str, int]]:
        """Return the numbers by topic, ready for JSON."""
        return {
            topic.topic: {"published": topic.published}
            | {name: value for name, value in asdict(topic).items() if name != "topic"}
            for topic in self.topics
        }

    def __str__(self) -> str:
        lines = [f"{'published':>9} {'recorded':>9} {'repeated':>9} {'lost':>6} {'unwritten':>9}  topic"]
        for topic in self.topics:
            note = f" ({topic.unnumbered} without a sequence number)" if topic.unnumbered else ""
            lines.append(
                f"{topic.published:9} {topic.recorded:9} {topic.repeated:9} {topic.lost:6} {topic.unwritten:9}  "
                f"{topic.topic}{note}"
            )
        return "\n".join(lines + ([f"ended by a write error: {self.error}"] if self.error else []))


@dataclass(eq=False)
class _Publisher:
    """One increasing run of sequence numbers: its newest, and the last gap in it (exclusive bounds)."""

    newest: int
    gap_after: int
    gap_before: int


class PublicationCounter:
    """Counts the losses on one topic from publication sequence numbers.

    A publisher numbers its messages 1, 2, 3, … and the middleware delivers them in order, so a gap is a loss. No
    publisher is named along with the number, so each number is taken for the publisher whose newest number lies
    closest below it; one that lies below all of them is a new (or restarted) publisher. Publishers side by side, such
    as the many of `/diagnostics`, are told apart this way. A number that falls inside a gap already counted shows that
    the gap was no loss but the arrival of another publisher with higher numbers, and the count is taken back.

    What this cannot see: messages before the first or after the last one seen of a publisher, and losses of a restarted
    publisher just as it passes the number the old one had reached.
    """

    def __init__(self):
        self.lost = 0
        self.publishers = 0
        self.unnumbered = 0
        self._runs: list[_Publisher] = []  # the most recently heard first

    def observe(self, sequence: int | None) -> None:
        """Count one message that arrived with this publication sequence number."""
        if sequence is None or sequence == _UNNUMBERED:
            self.unnumbered += 1
            return
        if self._runs and sequence == self._runs[0].newest + 1:
            self._runs[0].newest = sequence
            return
        run, after = self._closest_below(sequence)
        if run is None:
            self._start_run(sequence)
        elif after == run.newest:
            self._extend(run, sequence)
        else:
            other, run.newest = run.newest, run.gap_after
            self.lost -= run.gap_before - run.gap_after - 1
            self._extend(run, sequence)
            self._start_run(other)

    def _closest_below(self, sequence: int) -> tuple[_Publisher | None, int]:
        best, best_after = None, -1
        for run in self._runs:
            if run.newest < sequence:
                after = run.newest
            elif run.gap_after < sequence < run.gap_before:
                after = run.gap_after
            else:
                continue
            if after > best_after:
                best, best_after = run, after
        return best, best_after

    def _extend(self, run: _Publisher, sequence: int) -> None:
        if sequence > run.newest + 1:
            run.gap_after, run.gap_before = run.newest, sequence
            self.lost += sequence - run.newest - 1
        run.newest = sequence
        self._runs.remove(run)
        self._runs.insert(0, run)

    def _start_run(self, sequence: int) -> None:
        self.publishers += 1
        self._runs.insert(0, _Publisher(sequence, sequence, sequence))
        del self._runs[_REMEMBERED_PUBLISHERS:]


def leading_stamp(data: bytes) -> int | None:
    """Return the nanoseconds of the `builtin_interfaces/Time` that a CDR message begins with, or None if too short.

    The second byte of the encapsulation says the byte order; seconds (int32) and nanoseconds (uint32) follow it.
    """
    if len(data) < 12:
        return None
    seconds, nanoseconds = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
    return seconds * 1_000_000_000 + nanoseconds


class RepeatFilter:
    """Recognises a message that a lockstep node sent again.

    A repeat has the newest stamp of its topic and the contents of a message already seen with it. Contents count,
    because several nodes may speak on one topic at one stamp (`/diagnostics` while simulated time stands still). Only
    the newest stamp counts, because a restarted simulation goes through old stamps again, and those are no repeats.
    Stamp zero is no stamp, and its messages are never repeats.
    """

    def __init__(self, canonical: Callable[[bytes], bytes]):
        """Take `canonical`, which returns a message's bytes with its alignment padding zeroed.

        Middlewares leave garbage in the padding, so equal messages may differ in bytes.
        """
        self.repeated = 0
        self._canonical = canonical
        self._stamp: int | None = None
        self._contents: deque[bytes] = deque(maxlen=_REMEMBERED_CONTENTS)

    def is_repeat(self, data: bytes) -> bool:
        """Say whether `data`, a CDR message that begins with a stamp, repeats one seen before, and remember it."""
        stamp = leading_stamp(data)
        if not stamp:
            return False
        if stamp != self._stamp:
            self._stamp = stamp
            self._contents.clear()
        elif any(self._same(data, other) for other in self._contents):
            self.repeated += 1
            return True
        self._contents.append(data)
        return False

    def _same(self, data: bytes, other: bytes) -> bool:
        if len(data) != len(other):
            return False
        return data == other or self._canonical(data) == self._canonical(other)
