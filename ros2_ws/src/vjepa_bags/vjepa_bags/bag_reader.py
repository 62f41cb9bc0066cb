"""Read rosbag2 bags, MCAP or sqlite3, of any recorder, as camera frames with the messages at their stamps.

A bag is read once, in the order of arrival. If its recorder was killed, its readable part is read.
"""

from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from rosbags.typesys import Stores, get_typestore

from vjepa_bags.bag_counts import compare
from vjepa_bags.bag_files import custom_data, open_files
from vjepa_bags.bag_frames import (
    FINGERTIP,
    IMAGE,
    JOINT_COMMAND,
    JOINT_STATES,
    OF_THE_SIM,
    REWARD,
    TIMESTEP,
    Frame,
    FrameJoiner,
)
from vjepa_bags.bag_limits import BagLimitError, Meter
from vjepa_bags.bag_order import in_order_of_time
from vjepa_bags.bag_source import BagError, Source
from vjepa_interfaces import topics
from vjepa_interfaces.errors import unknown_name
from vjepa_interfaces.image_codec import stated_size
from vjepa_interfaces.yaml_file import read_yaml

TYPES: dict[str, tuple[str, ...]] = {
    IMAGE: (topics.IMAGE.type, topics.COMPRESSED_IMAGE.type),
    **{t.name: (t.type,) for t in (topics.JOINT_STATES, topics.JOINT_COMMAND, topics.TIMESTEP, topics.TARGET)},
    FINGERTIP: (topics.FINGERTIP.type,),
    REWARD: ("std_msgs/msg/Float64", "std_msgs/msg/Float32", "geometry_msgs/msg/Vector3Stamped"),
}
"""The topics that are read, by the stack's own names, and the possible types of each."""

_SMALL = {topics.JOINT_STATES.type, topics.TARGET.type, *TYPES[REWARD]}
MAX_SMALL_BYTES = 2**16
"""Largest size in bytes of a joint state (of a thousand joints), a point or a vector."""
NAMING_MESSAGES = 1000
"""Number of joint states and commands at the beginning of a bag that determine the joints of the arm."""


def topic_names(namespace: str = "", mapping: Path | None = None, reward: str = "") -> dict[str, str]:
    """Return the absolute topic in a bag of each topic of `TYPES`, without `REWARD` unless one is requested.

    Args:
        namespace: namespace of the recorded stack.
        mapping: YAML file of topics with other names: the stack's relative name and the bag's name.
        reward: topic of a reward; empty for none.

    Raises:
        BagError: the file is not such a mapping, it names a topic that is not read, or two topics have one name in the
            bag.
    """
    prefix = f"/{namespace.strip('/')}" if namespace.strip("/") else ""
    names = {name: f"{prefix}/{name}" for name in TYPES if name != REWARD}
    if reward:
        names[REWARD] = reward if reward.startswith("/") else f"{prefix}/{reward}"
    if mapping is not None:
        _take_mapping(names, mapping, prefix)
    for topic, count in Counter(names.values()).items():
        if count > 1:
            twice = " and ".join(name for name, other in names.items() if other == topic)
            raise BagError(
                f"{twice} are both read from '{topic}'; expected a topic of its own for each: correct --topics or "
                "--reward-topic"
            )
    return names


def _take_mapping(names: dict[str, str], mapping: Path, prefix: str) -> None:
    """Put the topics that the file `mapping` names into `names`; raise BagError as `topic_names` does."""
    theirs = read_yaml(mapping, "topic mapping", BagError)
    if not isinstance(theirs, Mapping) or not all(isinstance(name, str) and name for name in theirs.values()):
        raise BagError(f"topic mapping '{mapping}' is not readable; expected lines like {IMAGE}: /my_camera/image_raw")
    for name, other in theirs.items():
        own = str(name).strip("/")
        if own not in names:
            raise BagError(f"{mapping}: {unknown_name('topic', str(name), names)}")
        names[own] = other if other.startswith("/") else f"{prefix}/{other}"


class Bag:
    """One opened rosbag2 bag: a folder, or a single `.mcap` or `.db3` file.

    Attributes:
        path: its path.
        about: information from its recorder: `custom_data` of rosbag2's metadata.
        present: the topics of `TYPES` with messages in the bag.
        frame_count: number of messages of the image topic.
        faults: numbers of faults of the bag as a whole, by their description in words.
        notes: numbers of remarks that are no faults, likewise.
    """

    def __init__(self, path: Path | str, names: Mapping[str, str]):
        """Open the bag at `path`; `names` is the result of `topic_names`.

        Raises:
            BagError: there is no bag, or a topic has another type than expected.
        """
        self.path = Path(path).expanduser()
        self.faults: Counter[str] = Counter()
        self._sources, self._allowance = open_files(self.path, self.faults)
        self.about = custom_data(self.path)
        if self.about.get("closed") == "false":
            self.faults["recorder killed before it closed the bag"] += 1
        counts = _counts_by_type(self._sources)
        names = dict(names)
        compressed = f"{names[IMAGE]}/compressed"
        if names[IMAGE] not in counts and compressed in counts:
            names[IMAGE] = compressed
        self._names = {topic: name for name, topic in names.items() if topic in counts}
        self.present = frozenset(self._names.values())
        self._types: dict[str, str] = {}
        for topic, name in self._names.items():
            if not any(kind in TYPES[name] for kind in counts[topic]):
                kinds = " and ".join(kind or "topic without a type" for kind in counts[topic])
                raise BagError(f"{self.path}: topic '{topic}' is a {kinds}; expected {' or '.join(TYPES[name])}")
            self._types[topic] = _read_type(topic, counts[topic], TYPES[name], self.faults)
        self.frame_count = counts[names[IMAGE]][self._types[names[IMAGE]]] if IMAGE in self.present else 0
        expected = TYPES if self.present & set(OF_THE_SIM) else TYPES.keys() - OF_THE_SIM
        self.notes: Counter[str] = Counter()
        for name in TYPES:
            if name in expected and name in names and name not in self.present:
                # In a bag of a real arm, the efforts of the joint states replace the commands.
                own = self.notes if name == JOINT_COMMAND and expected is not TYPES else self.faults
                own[f"no topic {names[name]}"] += 1

    def joint_names(self, faults: Counter[str] | None = None) -> tuple[str, ...]:
        """Return the joints of the arm: the commanded joints, else the largest group in one joint state.

        The first `NAMING_MESSAGES` joint states and commands determine them. Their faults are added to `faults`.

        Raises:
            BagError: two groups are the largest.
        """
        wanted = {t: name for t, name in self._names.items() if name in (JOINT_STATES, JOINT_COMMAND)}
        groups: dict[frozenset[str], tuple[str, ...]] = {}
        commanded: frozenset[str] = frozenset()
        messages = _messages(self._sources, wanted, self._types, Counter() if faults is None else faults)
        for name, _, message in islice(messages, NAMING_MESSAGES):
            joints = tuple(message.name)
            if name == JOINT_STATES and joints:
                groups.setdefault(frozenset(joints), joints)
            elif joints and not commanded:
                commanded = frozenset(joints)
        messages.close()
        all_joints = dict.fromkeys(joint for group in groups.values() for joint in group)
        if commanded and commanded <= all_joints.keys():
            return tuple(joint for joint in all_joints if joint in commanded)
        largest = sorted(groups, key=len, reverse=True)
        if len(largest) > 1 and len(largest[0]) == len(largest[1]):
            raise BagError(
                f"{self.path} has joint states of {', '.join(groups[largest[0]])} and of "
                f"{', '.join(groups[largest[1]])}; name the joints of the arm with --joints, or give --task"
            )
        return groups[largest[0]] if largest else ()

    def frames(
        self,
        joint_state_max_age_ns: int,
        faults: Counter[str],
        joint_names: Sequence[str] | None = None,
        derive_velocity: bool = False,
        notes: Counter[str] | None = None,
    ) -> Generator[Frame, None, None]:
        """Yield each frame once with its messages, in the order of arrival.

        Messages are joined by equal stamp. If the bag has no timesteps, its joint states come from an independent
        sensor. They are then joined causally: the newest at or before the frame, up to the given age. A reward is
        always joined causally; without a stamp of its own, its time is its arrival.

        Args:
            joint_state_max_age_ns: the largest age, nanoseconds.
            faults: counter of faults, in words; increased.
            joint_names: joints of the arm; None for `joint_names()`. Joint states of other joints are ignored.
            derive_velocity: see `JointStates`.
            notes: counter of remarks that are no faults, in words; increased.
        """
        names = self.joint_names() if joint_names is None else joint_names
        joiner = FrameJoiner(names, TIMESTEP in self.present, joint_state_max_age_ns, derive_velocity, faults)
        found = _messages(self._sources, self._names, self._types, faults)
        try:
            for name, arrived_ns, message in self._within_allowance(found, faults):
                yield from joiner.add(name, arrived_ns, message)
            yield from joiner.end()
        finally:
            found.close()
            joiner.report(Counter() if notes is None else notes)

    def _within_allowance(
        self, found: Iterator[tuple[str, int, Any]], faults: Counter[str]
    ) -> Iterator[tuple[str, int, Any]]:
        """Yield messages until their compressed pictures state more pixels than the size of the bag allows."""
        meter = Meter(self._allowance)
        for name, arrived_ns, message in found:
            if name == IMAGE and hasattr(message, "format"):
                width, height = stated_size(message.data.tobytes()) or (0, 0)
                try:
                    meter.picture(width * height)
                except BagLimitError as error:
                    faults[f"too much: nothing read from there on ({error})"] += 1
                    return
            yield name, arrived_ns, message


def messages_of(
    path: Path | str, wanted: Mapping[str, topics.Topic], faults: Counter[str]
) -> Iterator[tuple[topics.Topic, int, Any]]:
    """Open a bag and return topic, time of arrival (ns) and message of the wanted topics, in the order of arrival.

    Args:
        path: the bag: a folder, or a single `.mcap` or `.db3` file.
        wanted: the topics to read, by their absolute names in the bag.
        faults: counter of faults, in words; increased.

    Raises:
        BagError: there is no bag.
    """
    sources, _ = open_files(Path(path).expanduser(), faults)
    counts = _counts_by_type(sources)
    types = {name: wanted[name].type for name in sorted(wanted.keys() & counts.keys())}
    for name, kind in types.items():
        _read_type(name, counts[name], (kind,), faults)
    found = _messages(sources, {name: name for name in types}, types, faults)
    return ((wanted[name], arrived_ns, message) for name, arrived_ns, message in found)


def _counts_by_type(sources: Iterable[Source]) -> dict[str, Counter[str]]:
    """Return the number of messages by type, of each topic that has messages."""
    found: dict[str, Counter[str]] = {}
    for source in sources:
        for topic, counts in source.topics().items():
            if counts.total():
                found.setdefault(topic, Counter()).update(+counts)
    return found


def _read_type(topic: str, counts: Counter[str], valid: Sequence[str], faults: Counter[str]) -> str:
    """Return the one of the `valid` types of a topic with the most messages; count the messages of other types."""
    chosen = max(valid, key=lambda kind: counts[kind])
    for kind, count in counts.items():
        if kind != chosen:
            faults[f"message on {topic} of type {kind or '(none)'}; those of {chosen} are read"] += count
    return chosen


def _messages(
    sources: Iterable[Source], names: Mapping[str, str], types: Mapping[str, str], faults: Counter[str]
) -> Generator[tuple[str, int, Any], None, None]:
    """Yield topic (the stack's name), time of arrival (ns) and message of the readable part of each file.

    At the end, the number of messages read is compared with the number in the files.
    """
    store = get_typestore(Stores.ROS2_JAZZY)
    sources = list(sources)
    lost: Counter[str] = Counter()
    read: Counter[str] = Counter()
    try:
        for topic, arrived_ns, data in in_order_of_time(sources, {topic: types[topic] for topic in names}, lost):
            read[topic] += 1
            name = names[topic]
            if types[topic] in _SMALL and len(data) > MAX_SMALL_BYTES:
                faults[f"message on {name} of more than {MAX_SMALL_BYTES} bytes"] += 1
                continue
            try:
                message = store.deserialize_cdr(data, types[topic])
            except Exception:  # rosbags raises many types of error on bytes that are not such a message
                faults[f"unreadable message on {name}"] += 1
                continue
            yield name, arrived_ns, message
    finally:
        faults.update(lost)
    counts = _counts_by_type(sources)
    for topic in sorted(names):
        named = sum(count for fault, count in lost.items() if fault.startswith(f"message on {topic} lost"))
        compare(topic, read[topic] + named, counts[topic][types[topic]], "the bag", faults)
