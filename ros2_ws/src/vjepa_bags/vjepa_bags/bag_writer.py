"""Write serialized messages into a rosbag2 bag that loses at most the last second if its recorder is killed.

A bag is a folder `<name>` with `<name>_0.mcap` and `metadata.yaml`, format version 9, as rosbag2 of ROS 2 Jazzy writes
it (https://github.com/ros2/rosbag2, rosbag2_storage/yaml.hpp and rosbag2_storage_mcap). A long bag continues in
`<name>_1.mcap`, since each flush writes the index of its file again. All files are complete after every flush, so `ros2
bag` and `rosbags` open the folder of a killed recorder. Message definitions come from `rosbags`; no message package is
needed.
"""

import json
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from mcap.records import Statistics
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from vjepa_bags.bag_audit import Audit, PublicationCounter, RepeatFilter, TopicAudit
from vjepa_bags.bag_metadata import BagTopic, bag_metadata, offered_qos, to_yaml
from vjepa_bags.mcap_file import McapFile
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.files import write_atomically

MAX_PENDING_BYTES = 8 * 2**20
"""Number of waiting bytes that causes an early flush, which bounds memory and the size of a chunk."""

_OWN_KEYS = ("audit", "closed", "error")


class RecordingError(VjepaError):
    """A bag cannot be created, or messages could not be written."""


@dataclass
class _RecordedTopic:
    description: BagTopic
    publications: PublicationCounter
    repeats: RepeatFilter | None
    arrived: int = 0


class BagWriter:
    """A bag during its recording.

    Call `write` for every message and `flush_if_due` from a steady-clock timer of at most half the flush period. Then
    the last messages before a silence reach the disk too, and no message stays in memory longer than one and a half
    flush periods. Not thread-safe: use one executor thread.

    A write error is raised once. After it the bag keeps the state of the last flush, later messages are only counted,
    and `close` still returns the audit.
    """

    def __init__(
        self,
        path: Path,
        provenance: dict[str, str],
        flush_period_s: float = 0.5,
        max_file_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Create the folder `path`, with both files readable.

        Args:
            path: the bag's folder; missing parents are created.
            provenance: origin of the data (seed, fingerprint, versions, …), kept in `custom_data` of the bag. The
                writer owns the keys `audit`, `closed` and `error`.
            flush_period_s: longest wait of a message for a flush, in seconds on the steady clock.
            max_file_s: seconds on the steady clock after which the bag continues in another file; 0 for never.
            clock: the steady clock, in seconds.

        Raises:
            RecordingError: the path exists or cannot be created, or provenance has a wrong key or value.
        """
        self._provenance: dict[str, str] = {}
        self.path = Path(path)
        self._flush_period_s = flush_period_s
        self._max_file_s = max_file_s
        self._clock = clock
        self._typestore: Typestore = get_typestore(Stores.ROS2_JAZZY)
        self._topics: dict[str, _RecordedTopic] = {}
        self._pending_since: float | None = None
        self._error: str | None = None
        self._closed = False
        self.annotate(provenance)
        try:
            self.path.mkdir(parents=True)
        except FileExistsError:
            raise RecordingError(f"bag '{self.path}' exists already; choose another name or move it away") from None
        except OSError as error:
            raise RecordingError(f"bag '{self.path}' cannot be created: {error.strerror}; check bag_dir") from error
        self._former: dict[str, Statistics] = {}
        try:
            self._file = self._new_file()
            self._commit()
        except OSError as error:
            raise RecordingError(f"bag '{self.path}' cannot be written: {error.strerror}; free some space") from error

    def annotate(self, provenance: dict[str, str]) -> None:
        """Add to the provenance of the data; the next flush writes it.

        Raises:
            RecordingError: provenance has a wrong key or value.
        """
        wrong = [k for k, v in provenance.items() if k in _OWN_KEYS or not isinstance(k, str) or not isinstance(v, str)]
        if wrong:
            raise RecordingError(
                f"provenance entries {wrong} are refused; expected strings under keys other than {list(_OWN_KEYS)}"
            )
        self._provenance |= provenance

    def add_topic(self, name: str, type_name: str, depth: int, latched: bool) -> None:
        """Add the topic `name` (absolute, as resolved) of type `type_name` such as `sensor_msgs/msg/Image`.

        The bag describes it as reliable, keep last `depth`, and transient local if `latched`, else volatile.

        Raises:
            RecordingError: the name is relative or was added before, or ROS 2 Jazzy has no such type.
        """
        if not name.startswith("/"):
            raise RecordingError(f"topic '{name}' is relative; expected the absolute name that it resolved to")
        if name in self._topics:
            raise RecordingError(f"topic '{name}' was added before; expected each topic once")
        if type_name not in self._typestore.fielddefs:
            raise RecordingError(
                f"topic '{name}' has type '{type_name}'; expected a message type of ROS 2 Jazzy, as `pkg/msg/Name`"
            )
        type_hash = self._typestore.hash_rihs01(type_name)
        described = BagTopic(name, type_name, type_hash, depth, latched, channel=0)
        description = replace(described, channel=self._add_channel(self._file, described))
        repeats = None
        if begins_with_stamp(self._typestore, type_name):
            repeats = RepeatFilter(lambda data: self._without_padding(data, type_name))
        self._topics[name] = _RecordedTopic(description, PublicationCounter(), repeats)
        self._note_pending()

    def write(self, topic: str, data: bytes, received_ns: int, source_ns: int, sequence: int | None) -> bool:
        """Record one message of an added topic, unless it is a repeat (see `RepeatFilter`).

        Args:
            topic: the name as added.
            data: the serialized message (CDR with its encapsulation header).
            received_ns: time of arrival, ns since the epoch; the bag's time.
            source_ns: time of publication, ns since the epoch; 0 if the middleware has none.
            sequence: the publication sequence number, or None if the middleware has none.

        Returns:
            Whether the message was accepted: False for a repeat, and for every message after a write error.

        Raises:
            RecordingError: the topic was not added, the bag is closed, or (once) writing failed.
        """
        try:
            recorded = self._topics[topic]
        except KeyError:
            raise RecordingError(f"topic '{topic}' was not added; recorded are: {', '.join(self._topics)}") from None
        if self._closed:
            raise RecordingError(f"bag '{self.path}' is closed; begin another recording")
        recorded.publications.observe(sequence)
        if recorded.repeats is not None and recorded.repeats.is_repeat(data):
            return False
        recorded.arrived += 1
        if self._error is not None:
            return False
        self._file.add_message(recorded.description.channel, sequence or 0, received_ns, source_ns or received_ns, data)
        self._note_pending()
        if self._file.pending_bytes >= MAX_PENDING_BYTES:
            self.flush()
        else:
            self.flush_if_due()
        return True

    def flush_if_due(self) -> None:
        """Flush if a message has waited for the flush period.

        Raises:
            RecordingError: (once) writing failed.
        """
        if self._pending_since is not None and self._clock() - self._pending_since >= self._flush_period_s:
            self.flush()

    def flush(self) -> None:
        """Write all messages to the operating system; a later kill of this process cannot lose them.

        Raises:
            RecordingError: (once) writing failed.
        """
        if self._pending_since is None or self._error is not None:
            return
        self._pending_since = None
        try:
            self._commit()
        except OSError as error:
            self._error = error.strerror or str(error)
            raise RecordingError(
                f"bag '{self.path}' could not be written: {self._error}; recording has stopped, what was written "
                "before is kept and readable; free some space and begin another recording"
            ) from error

    def audit(self) -> Audit:
        """Return the audit so far, of written and pending messages."""
        return self._audit(lambda channel: self._former_count(channel) + self._file.message_count(channel))

    def close(self) -> Audit:
        """Write the rest and the audit, make them durable (fsync), and return the audit.

        An error here is not raised; `Audit.error` contains it. A second call returns the audit again.
        """
        if self._closed:
            return self.audit()
        self._closed = True
        self._pending_since = None
        try:
            self._commit(durable=True)
        except OSError as error:
            self._error = self._error or error.strerror or str(error)
        try:
            self._file.close()
        except OSError as error:
            self._error = self._error or error.strerror or str(error)
        return self.audit()

    def _note_pending(self) -> None:
        if self._pending_since is None:
            self._pending_since = self._clock()

    @property
    def _file_name(self) -> str:
        return f"{self.path.name}_{len(self._former)}.mcap"

    def _new_file(self) -> McapFile:
        file = McapFile(self.path / self._file_name, f"vjepa_bringup mcap-python/{version('mcap')}")
        for topic in self._topics.values():  # The order is the same, so that the channel numbers are the same.
            self._add_channel(file, topic.description)
        self._file_since = self._clock()
        return file

    def _add_channel(self, file: McapFile, topic: BagTopic) -> int:
        definition, _ = self._typestore.generate_msgdef(topic.type, ros_version=2)
        qos = to_yaml([offered_qos(topic.depth, topic.latched)])
        about = {"offered_qos_profiles": qos, "topic_type_hash": topic.type_hash}
        return file.add_channel(topic.name, topic.type, definition, about)

    def _go_on_in_another_file(self) -> None:
        """Begin the next file of the bag; if that fails, continue in the present file."""
        former, self._former = self._former, {**self._former, self._file_name: self._file.statistics}
        file = None
        try:
            file = self._new_file()
            file.commit(self._describe)
        except OSError:
            if file is not None:
                file.close(durable=False)
            (self.path / self._file_name).unlink(missing_ok=True)
            self._former = former
            raise
        before, self._file = self._file, file
        before.close(durable=False)  # Like a flush, this does not wait for the disk: that could cost messages.

    def _commit(self, durable: bool = False) -> None:
        description = self._file.commit(self._describe)
        if self._max_file_s and self._clock() - self._file_since >= self._max_file_s and not self._closed:
            self._go_on_in_another_file()
        if self._former:
            description = self._describe(self._file.statistics, whole=True)
        text = "rosbag2_bagfile_information:\n" + textwrap.indent(description, "  ")
        self.path.stat()  # Raises if the bag was removed: its folder must not be created again without the messages.
        write_atomically(self.path / "metadata.yaml", text, durable)

    def _audit(self, recorded: Callable[[int], int]) -> Audit:
        return Audit(
            tuple(
                TopicAudit(
                    topic=topic.description.name,
                    recorded=recorded(topic.description.channel),
                    repeated=topic.repeats.repeated if topic.repeats else 0,
                    lost=topic.publications.lost,
                    unwritten=topic.arrived - recorded(topic.description.channel),
                    unnumbered=topic.publications.unnumbered,
                    publishers=topic.publications.publishers,
                )
                for topic in self._topics.values()
            ),
            self._error,
        )

    def _former_count(self, channel: int) -> int:
        """Return the number of messages of `channel` in the files before the present one."""
        return sum(statistics.channel_message_counts.get(channel, 0) for statistics in self._former.values())

    def _describe(self, statistics: Statistics, whole: bool = False) -> str:
        """Return the description of the file being written with `statistics`, or of the `whole` bag with it."""
        counts = statistics.channel_message_counts
        audit = self._audit(lambda channel: self._former_count(channel) + counts.get(channel, 0))
        custom_data = self._provenance | {
            "audit": json.dumps(audit.as_dict()),
            "closed": "true" if self._closed else "false",
        }
        if self._error is not None:
            custom_data["error"] = self._error
        topics = [topic.description for topic in self._topics.values()]
        files = {**(self._former if whole else {}), self._file_name: statistics}
        return to_yaml(bag_metadata(files, topics, custom_data))

    def _without_padding(self, data: bytes, type_name: str) -> bytes:
        try:
            message = self._typestore.deserialize_cdr(data, type_name)
        except Exception:  # rosbags raises many types of error on bytes that are not such a message
            return data
        return bytes(self._typestore.serialize_cdr(message, type_name))


def begins_with_stamp(typestore: Typestore, type_name: str) -> bool:
    """Return whether messages of `type_name` begin with a `builtin_interfaces/Time`, in a header or directly."""
    while type_name != "builtin_interfaces/msg/Time":
        _, fields = typestore.fielddefs[type_name]
        if not fields or fields[0][1][0] != Nodetype.NAME:
            return False
        type_name = str(fields[0][1][1])
    return True
