"""Count the messages that were published, recorded, repeated and lost on the topics of a recording."""

import struct
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass

from vjepa_interfaces.tables import text_table

_UNNUMBERED = 2**64 - 1
"""The sequence number that rmw reports if the middleware has none."""

_REMEMBERED_MESSAGES = 64
_REMEMBERED_CONTENTS = 16


@dataclass(frozen=True)
class TopicAudit:
    """Numbers of messages of one topic.

    Attributes:
        topic: its name.
        recorded: messages in the bag.
        repeated: exact repeats left out of the bag.
        lost: messages that never arrived, between the first and the last message seen of each publisher.
        unwritten: messages that arrived but could not be written, because the disk failed.
        unnumbered: messages without a publication sequence number, whose losses cannot be known.
        publishers: publishers told apart by their sequence numbers; a restarted publisher counts again.
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
        """Return the number of messages published between the first and the last message seen."""
        return self.recorded + self.repeated + self.lost + self.unwritten


@dataclass(frozen=True)
class Audit:
    """The counts of a recording: an entry for each topic, and the write `error` that ended the recording, if any."""

    topics: tuple[TopicAudit, ...]
    error: str | None = None

    @property
    def lost(self) -> int:
        """Return the number of messages that were published but are not in the bag, without exact repeats."""
        return sum(topic.lost + topic.unwritten for topic in self.topics)

    def as_dict(self) -> dict[str, dict[str, int]]:
        """Return the numbers by topic, ready for JSON."""
        return {
            topic.topic: {"published": topic.published}
            | {name: value for name, value in asdict(topic).items() if name != "topic"}
            for topic in self.topics
        }

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("published", "recorded", "repeated", "lost", "unwritten", "topic")]
        for topic in self.topics:
            note = f" ({topic.unnumbered} without a sequence number)" if topic.unnumbered else ""
            counts = (topic.published, topic.recorded, topic.repeated, topic.lost, topic.unwritten)
            rows.append((*map(str, counts), f"{topic.topic}{note}"))
        table = text_table(rows, right=range(5))
        return f"{table}\nended by a write error: {self.error}" if self.error else table


@dataclass(eq=False)
class _Run:
    """Consecutive sequence numbers of one publisher: the newest, its place in order, and the run it may continue."""

    newest: int
    heard: int
    continues: "_Run | None" = None
    gap: int = 0


class PublicationCounter:
    """Count the losses on one topic from publication sequence numbers.

    A publisher numbers its messages 1, 2, 3, … and the middleware delivers them in order, so a gap is a loss. The
    middleware does not name the publisher of a number. A number that continues a run therefore belongs to that run. Any
    other number begins a new run. The counter assumes that the new run continues the closest run below it, after a
    loss. If that lower run continues by itself, the two runs are of two publishers, as on `/diagnostics`.

    The counter cannot detect messages before the first or after the last message seen of a publisher. It also misses
    losses of a restarted publisher at the moment when its number passes the last number of its former life.
    """

    def __init__(self) -> None:
        self.unnumbered = 0
        self._observed = 0
        self._settled_losses = 0
        self._settled_runs = 0
        self._runs: list[_Run] = []

    @property
    def lost(self) -> int:
        """Return the number of messages lost, as far as is known now."""
        return self._settled_losses + sum(run.gap for run in self._runs)

    @property
    def publishers(self) -> int:
        """Return the number of publishers told apart; a restarted publisher counts again."""
        return self._settled_runs + sum(run.continues is None for run in self._runs)

    def observe(self, sequence: int | None) -> None:
        """Count one message that arrived with the publication sequence number `sequence`."""
        if sequence is None or sequence == _UNNUMBERED:
            self.unnumbered += 1
            return
        self._observed += 1
        followed = [run for run in self._runs if run.newest == sequence - 1]
        if followed:
            run = max(followed, key=lambda run: run.heard)
            run.newest, run.heard = sequence, self._observed
            for other in self._runs:
                if other.continues is run:
                    other.continues, other.gap = None, 0
        else:
            self._begin_run(sequence)
        if len(self._runs) > 1:
            self._settle()

    def _begin_run(self, sequence: int) -> None:
        taken = [run.continues for run in self._runs]
        below = [run for run in self._runs if run.newest < sequence and run not in taken]
        run = _Run(sequence, self._observed)
        if below:
            run.continues = max(below, key=lambda run: run.newest)
            run.gap = sequence - run.continues.newest - 1
        self._runs.append(run)

    def _settle(self) -> None:
        """Remove runs that were silent for long: a run that continues one of them did follow a loss."""
        silent = [run for run in self._runs if self._observed - run.heard > _REMEMBERED_MESSAGES]
        for run in silent:
            successor = next((other for other in self._runs if other.continues is run), None)
            if successor is not None:
                self._settled_losses += successor.gap
                successor.continues, successor.gap = run.continues, run.gap
            else:
                self._settled_losses += run.gap
                self._settled_runs += run.continues is None
            self._runs.remove(run)


def leading_stamp(data: bytes) -> int | None:
    """Return the nanoseconds of the `builtin_interfaces/Time` that a CDR message begins with, or None if too short.

    The second byte of the encapsulation states the byte order. Seconds (int32) and nanoseconds (uint32) follow it.
    """
    if len(data) < 12:
        return None
    seconds, nanoseconds = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
    return seconds * 1_000_000_000 + nanoseconds


class RepeatFilter:
    """Recognise a message that a lockstep node sent again.

    A repeat has the newest stamp of its topic and the contents of an earlier message with that stamp. The filter
    compares contents, because several nodes may publish on one topic at one stamp (`/diagnostics` while simulated time
    stands still). It compares only the newest stamp, because a restarted simulation repeats old stamps. A message with
    stamp zero is never a repeat.
    """

    def __init__(self, canonical: Callable[[bytes], bytes]):
        """Keep `canonical`, which returns a message's bytes with its alignment padding zeroed.

        Middlewares leave garbage in the padding, so equal messages may differ in bytes.
        """
        self.repeated = 0
        self._canonical = canonical
        self._stamp: int | None = None
        self._contents: deque[bytes] = deque(maxlen=_REMEMBERED_CONTENTS)

    def is_repeat(self, data: bytes) -> bool:
        """Return whether `data`, a CDR message that begins with a stamp, repeats an earlier one, and remember it."""
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
