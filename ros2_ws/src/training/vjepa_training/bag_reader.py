"""rosbag2 bags as camera frames with what was measured at their stamps: MCAP or sqlite3, whoever recorded them.

A bag is read once, in the order of arrival, and about a second of it is held: a frame waits until what belongs to it
has arrived. A bag that a killed recorder left behind is read as far as it is whole.
"""

import re
import sqlite3
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mcap.records import Channel, Chunk, Message, Schema
from mcap.stream_reader import StreamReader
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from vjepa_interfaces import topics
from vjepa_interfaces.alignment import StampRing
from vjepa_interfaces.errors import VjepaError, unknown_name
from vjepa_interfaces.messages import Timestep, timestep_of
from vjepa_interfaces.stamps import to_nanoseconds
from vjepa_interfaces.yaml_file import YamlLimitError, read_yaml
from vjepa_training.bag_limits import BagLimitError, check_file, check_links, records_of

IMAGE, JOINT_STATES, JOINT_COMMAND = topics.IMAGE.name, topics.JOINT_STATES.name, topics.JOINT_COMMAND.name
TIMESTEP, TARGET, FINGERTIP = topics.TIMESTEP.name, topics.TARGET.name, topics.FINGERTIP.name
OF_THE_SIM = (TIMESTEP, TARGET, FINGERTIP)
TYPES: dict[str, tuple[str, ...]] = {
    IMAGE: (topics.IMAGE.type, topics.COMPRESSED_IMAGE.type),
    **{t.name: (t.type,) for t in (topics.JOINT_STATES, topics.JOINT_COMMAND, topics.TIMESTEP, topics.TARGET)},
    FINGERTIP: (topics.FINGERTIP.type,),
}
"""The topics that are read, by the stack's own names, and the types each may have."""

SETTLE_NS = 1_000_000_000
"""How much later than a frame, by the bag's clock, what belongs to it may arrive."""
LATER_FRAMES = 2
"""Frames that must have come after it as well: with a slow encoder in lockstep a command takes longer than a second."""
MAX_RECORD_BYTES = 2**30
"""A longer record is damage: no recorder writes one, and its length would be allocated."""
HELD_MESSAGES = 16_384
"""Messages of one topic that are held: what a sensor of 1 kHz sends while a frame waits."""


class BagError(VjepaError):
    """A bag, or a mapping of its topics, that cannot be read at all; the message names it and what was expected."""


@dataclass(frozen=True, eq=False)
class Frame:
    """A camera frame and what was joined to it; None where the bag has nothing for it.

    Attributes:
        stamp_ns: the frame's stamp, nanoseconds.
        image: the `sensor_msgs` Image or CompressedImage.
        joint_state: the `sensor_msgs/JointState` of this stamp, or the newest one before (see `Bag.frames`).
        timestep: reward, discount and step type.
        target: (3,) m, world frame.
        fingertip: (3,) m, world frame.
        command: the `sensor_msgs/JointState` that answered this frame.
    """

    stamp_ns: int
    image: Any
    joint_state: Any | None = None
    timestep: Timestep | None = None
    target: np.ndarray | None = None
    fingertip: np.ndarray | None = None
    command: Any | None = None


class _Source(NamedTuple):
    """One file or folder of a bag: type and number of messages by topic, and how topics are read from it."""

    counts: dict[str, tuple[str, int]]
    read: Callable[[Iterable[str]], Iterator[tuple[str, int, bytes]]]


def topic_names(namespace: str = "", mapping: Path | None = None) -> dict[str, str]:
    """Return the absolute topic in a bag of each topic of `TYPES`.

    Args:
        namespace: of the stack that was recorded.
        mapping: YAML file of the topics that have other names: ours, relative, and theirs.

    Raises:
        BagError: the file is not such a mapping, or names a topic that is not read.
    """
    prefix = f"/{namespace.strip('/')}" if namespace.strip("/") else ""
    names = {name: f"{prefix}/{name}" for name in TYPES}
    if mapping is None:
        return names
    theirs = read_yaml(mapping, "topic mapping", BagError)
    if not isinstance(theirs, Mapping) or not all(isinstance(name, str) and name for name in theirs.values()):
        raise BagError(f"topic mapping '{mapping}' is not one; expected lines such as: {IMAGE}: /my_camera/image_raw")
    for name, other in theirs.items():
        own = str(name).strip("/")
        if own not in names:
            raise BagError(f"{mapping}: {unknown_name('topic', str(name), names)}")
        names[own] = other if other.startswith("/") else f"{prefix}/{other}"
    return names


class Bag:
    """One rosbag2 bag, opened: a folder, or a single `.mcap` or `.db3` file.

    Attributes:
        path: where it lies.
        about: what its recorder said of it: `custom_data` of rosbag2's metadata.
        present: the topics of `TYPES` that it has messages of.
        frame_count: messages of the image topic.
        faults: what is wrong with the bag as such, in words, and how often.
    """

    def __init__(self, path: Path | str, names: Mapping[str, str]):
        """Open the bag at `path`; `names` is what `topic_names` returns.

        Raises:
            BagError: there is no bag, or a topic has another type than expected.
        """
        self.path = Path(path).expanduser()
        self.faults: Counter[str] = Counter()
        self._sources = _sources(self.path, self.faults)
        self.about = custom_data(self.path)
        if self.about.get("closed") == "false":
            self.faults["recorder killed before it closed the bag"] += 1
        counts = Counter({topic: n for source in self._sources for topic, (_, n) in source.counts.items() if n})
        names = dict(names)
        compressed = f"{names[IMAGE]}/compressed"
        if not counts[names[IMAGE]] and counts[compressed]:
            names[IMAGE] = compressed
        self._names = {topic: name for name, topic in names.items() if counts[topic]}
        self.present = frozenset(self._names.values())
        self.frame_count = sum(source.counts.get(names[IMAGE], ("", 0))[1] for source in self._sources)
        self._types = _types(self._sources)
        for topic, name in self._names.items():
            if self._types[topic] not in TYPES[name]:
                valid = " or ".join(TYPES[name])
                raise BagError(f"{self.path}: topic '{topic}' is a {self._types[topic]}; expected {valid}")
        expected = TYPES if self.present & set(OF_THE_SIM) else TYPES.keys() - OF_THE_SIM
        for name in TYPES:
            if name in expected and name not in self.present:
                self.faults[f"no topic {names[name]}"] += 1

    def frames(self, joint_state_max_age_ns: int, faults: Counter[str]) -> Iterator[Frame]:
        """Yield the frames with what belongs to them, in the order of their arrival, each stamp once.

        Everything is joined by equal stamp. Only where the bag has no timesteps, so that the joint states come from an
        independent sensor, theirs are joined causally: the newest at or before the frame, up to the age given.

        Args:
            joint_state_max_age_ns: see above, nanoseconds.
            faults: is counted up by what was wrong on the way, in words.
        """
        exact = TIMESTEP in self.present
        rings = {name: StampRing(HELD_MESSAGES) for name in TYPES if name != IMAGE}
        waiting: deque[tuple[int, int, Any]] = deque()
        newest: dict[str, int] = {}

        def settle() -> Frame:
            _, stamp_ns, image = waiting.popleft()
            joints = rings[JOINT_STATES]
            return Frame(
                stamp_ns=stamp_ns,
                image=image,
                joint_state=joints.at(stamp_ns) if exact else joints.at_or_before(stamp_ns, joint_state_max_age_ns),
                timestep=rings[TIMESTEP].at(stamp_ns),
                target=rings[TARGET].at(stamp_ns),
                fingertip=rings[FINGERTIP].at(stamp_ns),
                command=rings[JOINT_COMMAND].at(stamp_ns),
            )

        for name, arrived_ns, message in _messages(self._sources, self._names, self._types, faults):
            stamp_ns = to_nanoseconds(message.header.stamp)
            if stamp_ns == 0:  # As on the zeros of a planner that is switched off.
                if name == IMAGE:
                    faults["frame without a stamp"] += 1
                continue
            if name == IMAGE and stamp_ns == newest.get(IMAGE):
                faults["repeated stamp of a frame"] += 1
                continue
            if stamp_ns < newest.get(name, 0):  # A new time line, in which the rings forget the old one.
                while waiting and waiting[0][1] > stamp_ns:
                    yield settle()
            while len(waiting) > LATER_FRAMES and arrived_ns - waiting[0][0] > SETTLE_NS:
                yield settle()
            newest[name] = stamp_ns
            if name == IMAGE:
                waiting.append((arrived_ns, stamp_ns, message))
                continue
            try:
                rings[name].add(stamp_ns, _value(name, message))
            except VjepaError:
                faults[f"unreadable message on {name}"] += 1
        while waiting:
            yield settle()


def messages_of(
    path: Path | str, wanted: Mapping[str, topics.Topic], faults: Counter[str]
) -> Iterator[tuple[topics.Topic, int, Any]]:
    """Open a bag and return topic, time of arrival (ns) and message of what it has of some topics, as they arrived.

    Args:
        path: the bag: a folder, or a single `.mcap` or `.db3` file.
        wanted: the topics to read, by their absolute names in the bag.
        faults: is counted up by what was wrong on the way, in words.

    Raises:
        BagError: there is no bag.
    """
    sources = _sources(Path(path).expanduser(), faults)
    types = _types(sources)
    names = {}
    for name in wanted.keys() & types.keys():
        if types[name] == wanted[name].type:
            names[name] = name
        else:
            faults[f"topic '{name}' is a {types[name]}; expected {wanted[name].type}"] += 1
    found = _messages(sources, names, types, faults)
    return ((wanted[name], arrived_ns, message) for name, arrived_ns, message in found)


def _types(sources: Iterable[_Source]) -> dict[str, str]:
    """Return the type of each topic that has messages."""
    return {topic: kind for source in sources for topic, (kind, count) in source.counts.items() if count}


def _messages(
    sources: Iterable[_Source], names: Mapping[str, str], types: Mapping[str, str], faults: Counter[str]
) -> Iterator[tuple[str, int, Any]]:
    """Yield topic (our name), time of arrival (ns) and message, as far as each file of the bag can be read."""
    store = get_typestore(Stores.ROS2_JAZZY)
    for source in sources:
        messages = source.read(names)
        while True:
            try:
                topic, arrived_ns, data = next(messages)
            except StopIteration:
                break
            except Exception as error:  # rosbags, its decompressors and its databases raise many kinds
                faults[f"damaged: nothing read from there on ({_first_line(error)})"] += 1
                break
            name = names[topic]
            try:
                message = store.deserialize_cdr(data, types[topic])
            except Exception:  # rosbags raises many kinds on bytes that are no such message
                faults[f"unreadable message on {name}"] += 1
                continue
            yield name, arrived_ns, message


def _value(name: str, message: Any) -> Any:
    """Return what a message of the topic `name` says, as `Frame` holds it."""
    if name == TIMESTEP:
        return timestep_of(message)
    if name in (TARGET, FINGERTIP):
        return np.array([message.point.x, message.point.y, message.point.z])
    return message


def read_metadata(path: Path) -> dict[str, Any]:
    """Return what `metadata.yaml` in the folder of a bag states of it; nothing where it is missing or damaged.

    Raises:
        BagError: it stands for more values than a bound allows.
    """
    try:
        found = read_yaml(path / "metadata.yaml", "metadata", BagError, aliases=True)["rosbag2_bagfile_information"]
    except BagError as error:
        if isinstance(error.__cause__, YamlLimitError):
            raise
        return {}
    except (KeyError, TypeError, IndexError):
        return {}
    return found if isinstance(found, dict) else {}


def custom_data(path: Path) -> dict[str, str]:
    """Return what the recorder of a bag stated of it, `custom_data` of its metadata, as far as it can be read."""
    found = read_metadata(path).get("custom_data")
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _sources(path: Path, faults: Counter[str]) -> list[_Source]:
    """Return what a bag consists of: itself where rosbags opens it, else its files, each as far as it is whole."""
    if not path.exists():
        raise BagError(f"no bag at '{path}'; expected a rosbag2 folder, or an .mcap or .db3 file")
    folder = path.is_dir()
    files = (
        sorted((f for f in path.iterdir() if f.suffix in (".mcap", ".db3") and f.is_file()), key=file_order)
        if folder
        else [path]
    )
    try:
        if folder:
            check_links(path)
            _refuse_files_elsewhere(path)
        for file in files:
            check_file(file)
    except BagLimitError as error:
        raise BagError(str(error)) from error
    if not any(file.with_name(file.name + "-wal").exists() for file in files):
        try:
            return [_whole(path)]
        except Exception as error:  # see `_messages`
            if not files or (not folder and path.suffix not in (".mcap", ".db3")):
                raise BagError(f"'{path}' is no rosbag2 bag: {_first_line(error)}") from error
    if folder and not (path / "metadata.yaml").exists():
        faults["no metadata.yaml: its recorder was killed"] += 1
    found = []
    for file in files:
        try:
            if file.with_name(file.name + "-wal").exists():
                raise BagError(f"{file} has a write-ahead log")
            found.append(_whole(file))
        except Exception:  # see `_messages`
            faults["truncated file, read as far as it is whole"] += 1
            found.append(_scanned(file))
    return found


def _refuse_files_elsewhere(path: Path) -> None:
    """Refuse the bag in the folder `path` whose metadata leads out of it."""
    names = read_metadata(path).get("relative_file_paths")
    for name in map(str, names if isinstance(names, list) else ()):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise BagError(f"{path / 'metadata.yaml'} names the file '{name}'; expected files in the bag's own folder")


def file_order(file: Path) -> tuple[int, str]:
    """Return a key that sorts `name_2.mcap` before `name_10.mcap`."""
    number = re.search(r"_(\d+)$", file.stem)
    return int(number[1]) if number else -1, file.name


def _whole(path: Path) -> _Source:
    """Return the source of a bag or file that has all its indexes."""
    counts: dict[str, tuple[str, int]] = {}
    with Reader(path) as reader:
        for connection in reader.connections:
            _, before = counts.get(connection.topic, ("", 0))
            counts[connection.topic] = connection.msgtype, before + connection.msgcount

    def read(wanted: Iterable[str]) -> Iterator[tuple[str, int, bytes]]:
        with Reader(path) as reader:
            connections = [connection for connection in reader.connections if connection.topic in wanted]
            if connections:
                for connection, arrived_ns, data in reader.messages(connections):
                    yield connection.topic, arrived_ns, data

    return _Source(counts, read)


def _scanned(file: Path) -> _Source:
    """Return the source of a file that ends early, from the messages before its end."""
    scan = _scan_sqlite if file.suffix == ".db3" else _scan_mcap
    counts: dict[str, tuple[str, int]] = {}
    for topic, kind, _, _ in scan(file):
        counts[topic] = kind, counts.get(topic, ("", 0))[1] + 1

    def read(wanted: Iterable[str]) -> Iterator[tuple[str, int, bytes]]:
        return ((topic, arrived_ns, data) for topic, _, arrived_ns, data in scan(file) if topic in wanted)

    return _Source(counts, read)


def _scan_mcap(file: Path) -> Iterator[tuple[str, str, int, bytes]]:
    schemas: dict[int, str] = {}
    channels: dict[int, tuple[str, str]] = {}
    with open(file, "rb") as stream, suppress(Exception):  # the library has no one error for a record that is torn
        reader = StreamReader(stream, validate_crcs=True, emit_chunks=True, record_size_limit=MAX_RECORD_BYTES)
        for each in reader.records:
            for record in records_of(each) if isinstance(each, Chunk) else (each,):
                if isinstance(record, Schema):
                    schemas[record.id] = record.name
                elif isinstance(record, Channel):
                    channels[record.id] = record.topic, schemas.get(record.schema_id, "")
                elif isinstance(record, Message):
                    yield *channels[record.channel_id], record.log_time, record.data


def _scan_sqlite(file: Path) -> Iterator[tuple[str, str, int, bytes]]:
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as database:
        database.execute("PRAGMA writable_schema=ON")  # Or SQLite refuses a file shorter than its header says.
        known = {row[0]: row[1:] for row in database.execute("SELECT id, name, type FROM topics")}
        for topic_id, arrived_ns, data in database.execute(
            "SELECT topic_id, timestamp, data FROM messages NOT INDEXED ORDER BY id"
        ):
            yield *known[topic_id], arrived_ns, data


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
