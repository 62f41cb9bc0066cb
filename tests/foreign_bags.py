"""Small bags as other recorders write them: a camera at 30 Hz, joint states at 100 Hz; MCAP files and databases."""

import sqlite3
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import yaml
from mcap.writer import Writer
from rosbags.typesys import Stores, get_typestore

from vjepa_bags.bag_reader import Bag, topic_names
from vjepa_training.data.build import BuildConfig, build_dataset
from vjepa_training.data.dataset import Dataset, DatasetError

STORE = get_typestore(Stores.ROS2_JAZZY)
T0, MS, SECOND = 1_700_000_000 * 10**9, 10**6, 10**9
CAMERA, JOINTS, COMMAND = "/camera/image_raw", "/joint_states", "/joint_command"
QOS = "- history: 1\n  depth: 10\n  reliability: 1\n  durability: 2"

Entry = tuple[str, int, object]
"""Topic, time of arrival in ns, message."""


def header(stamp_ns: int):
    time = STORE.types["builtin_interfaces/msg/Time"](stamp_ns // SECOND, stamp_ns % SECOND)
    return STORE.types["std_msgs/msg/Header"](time, "")


def image(stamp_ns: int, value: int = 0):
    data = np.full(4 * 4 * 3, value % 256, np.uint8)
    return STORE.types["sensor_msgs/msg/Image"](header(stamp_ns), 4, 4, "rgb8", 0, 12, data)


def joint_state(stamp_ns: int, names=("j1", "j2"), position=None, velocity=None, effort=None):
    """A joint state; positions are zero where none are given, velocities and efforts are left out."""
    position = np.zeros(len(names)) if position is None else position
    arrays = (np.array([] if part is None else part, np.float64) for part in (position, velocity, effort))
    return STORE.types["sensor_msgs/msg/JointState"](header(stamp_ns), list(names), *arrays)


def frames(count: int = 90, start: int = 0) -> list[Entry]:
    """Frames at 30 Hz that arrive 5 ms after their stamps."""
    stamps = [T0 + i * SECOND // 30 for i in range(start, start + count)]
    return [(CAMERA, stamp + 5 * MS, image(stamp, i)) for i, stamp in enumerate(stamps, start)]


def arm(count: int = 310, names=("j1", "j2"), every_ms: int = 10, behind_ms: int = 0, **fields) -> list[Entry]:
    """Joint states from 50 ms before the first frame on, 1 ms late; the first position counts them."""
    fields = {"velocity": np.ones(len(names)), "effort": 0.1 * np.arange(1, len(names) + 1), **fields}
    found = []
    for k in range(count):
        stamp = T0 - 50 * MS + k * every_ms * MS
        state = joint_state(stamp - behind_ms * MS, names, 0.01 * k + np.arange(len(names)), **fields)
        found.append((JOINTS, stamp + MS, state))
    return found


def commands(count: int = 90) -> list[Entry]:
    """A command for each frame, 9 ms after its stamp."""
    stamps = [T0 + i * SECOND // 30 for i in range(count)]
    return [(COMMAND, stamp + 9 * MS, joint_state(stamp, position=[], effort=[0.5, -0.5])) for stamp in stamps]


def run() -> list[Entry]:
    """Three seconds with all that is recorded of an arm."""
    return in_order(frames() + arm() + commands())


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: entry[1])


def kind(message) -> str:
    return message.__msgtype__


def cdr(message) -> bytes:
    return bytes(STORE.serialize_cdr(message, kind(message)))


def write_mcap(
    file: Path, entries: Iterable[Entry], profile: str = "ros2", encoding: str = "cdr", encode=cdr, **options
) -> Path:
    """Write an MCAP file with the library's writer; `options` are the writer's."""
    with open(file, "wb") as stream:
        writer = Writer(stream, **options)
        writer.start(profile=profile, library="someone else's")
        channels: dict[tuple[str, str], int] = {}
        for topic, at, message in entries:
            key = topic, kind(message)
            if key not in channels:
                text = STORE.generate_msgdef(kind(message), ros_version=2)[0].encode()
                schema = writer.register_schema(kind(message), "ros2msg", text)
                channels[key] = writer.register_channel(topic, encoding, schema, {"offered_qos_profiles": QOS})
            writer.add_message(channels[key], at, encode(message), at)
        writer.finish()
    return file


def write_sqlite(file: Path, entries: Iterable[Entry], encode=cdr, encoding: str = "cdr") -> Path:
    """Write a database as rosbag2 does."""
    with sqlite3.connect(file) as database:
        database.execute(
            "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL, "
            "serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL)"
        )
        database.execute(
            "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, timestamp INTEGER NOT NULL, "
            "data BLOB NOT NULL)"
        )
        database.execute("CREATE INDEX timestamp_idx ON messages (timestamp ASC)")
        numbers: dict[tuple[str, str], int] = {}
        for topic, at, message in entries:
            key = topic, kind(message)
            if key not in numbers:
                numbers[key] = len(numbers) + 1
                row = (numbers[key], topic, kind(message), encoding, QOS)
                database.execute("INSERT INTO topics VALUES (?, ?, ?, ?, ?)", row)
            row = (numbers[key], at, encode(message))
            database.execute("INSERT INTO messages(topic_id, timestamp, data) VALUES (?, ?, ?)", row)
    database.close()
    return file


def write_metadata(
    folder: Path, files: list[str], entries: Iterable[Entry], /, qos: dict[str, str] | None = None, **other
) -> None:
    """Write metadata.yaml with the counts of `entries`; `other` takes the place of entries of it."""
    counts: dict[str, list] = {}
    for topic, _, message in entries:
        counts.setdefault(topic, [kind(message), 0])[1] += 1
    topics = [
        {
            "topic_metadata": {
                "name": name,
                "type": type_name,
                "serialization_format": "cdr",
                "offered_qos_profiles": (qos or {}).get(name, QOS),
            },
            "message_count": count,
        }
        for name, (type_name, count) in counts.items()
    ]
    about = {
        "version": 5,
        "storage_identifier": "mcap",
        "relative_file_paths": files,
        "message_count": sum(count for _, count in counts.values()),
        "topics_with_message_count": topics,
        "compression_format": "",
        "compression_mode": "",
    }
    (folder / "metadata.yaml").write_text(yaml.safe_dump({"rosbag2_bagfile_information": {**about, **other}}))


def build(path: Path, strict: bool = False, **settings) -> tuple[Dataset, Counter[str]]:
    """Return the dataset of a bag, frames alone, and what was wrong."""
    config = BuildConfig(**{"names": topic_names(), "frames": True, "effort_limit": 1.0, "strict": strict, **settings})
    folder = path.parent / f"ds-{len(list(path.parent.iterdir()))}"
    dataset, (report,), _ = build_dataset(folder, [Bag(path, config.names)], config, None, {})
    return dataset, report.faults


def refused(path: Path) -> bool:
    """Return whether --strict refuses a bag."""
    with pytest.raises(DatasetError, match="--strict allows none"):
        build(path, strict=True)
    return True
