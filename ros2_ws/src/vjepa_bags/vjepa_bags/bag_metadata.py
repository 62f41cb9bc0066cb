"""Make the metadata of a rosbag2 bag, version 9, as ROS 2 Jazzy writes it into `metadata.yaml` and the MCAP file.

Source: https://github.com/ros2/rosbag2 (branch jazzy), rosbag2_storage/yaml.hpp and qos.cpp.
"""

from dataclasses import dataclass
from typing import Any

import yaml
from mcap.records import Statistics

from vjepa_interfaces.environment import distribution_of_ros

_INFINITE = {"sec": 9223372036, "nsec": 854775807}
_NO_START = 2**63 - 1


@dataclass(frozen=True)
class BagTopic:
    """The description of a topic in a bag: `type_hash` is the RIHS01 string, `channel` the MCAP channel number.

    The topic is reliable and keeps the last `depth` messages; a `latched` one is transient local. Profiles in `qos`
    replace these. `encoding` is the encoding of its messages.
    """

    name: str
    type: str
    type_hash: str
    depth: int
    latched: bool
    channel: int
    encoding: str = "cdr"
    qos: tuple[dict[str, Any], ...] = ()


def offered_qos(depth: int, latched: bool) -> dict[str, Any]:
    """Return a reliable profile in rosbag2's words."""
    return {
        "history": "keep_last",
        "depth": depth,
        "reliability": "reliable",
        "durability": "transient_local" if latched else "volatile",
        "deadline": _INFINITE,
        "lifespan": _INFINITE,
        "liveliness": "automatic",
        "liveliness_lease_duration": _INFINITE,
        "avoid_ros_namespace_conventions": False,
    }


_POLICIES = {
    "history": ("system_default", "keep_last", "keep_all", "unknown"),
    "reliability": ("system_default", "reliable", "best_effort", "unknown"),
    "durability": ("system_default", "transient_local", "volatile", "unknown"),
    "liveliness": ("system_default", "automatic", "manual_by_node", "manual_by_topic", "unknown"),
}
"""Meanings of the numbers that older releases wrote."""


def whole_qos(profile: dict[str, Any]) -> dict[str, Any]:
    """Return a profile in today's words; missing values are those of a reliable profile."""
    whole = {**offered_qos(10, latched=False), **profile}
    for name, words in _POLICIES.items():
        if isinstance(whole[name], int) and 0 <= whole[name] < len(words):
            whole[name] = words[whole[name]]
    return whole


def bag_metadata(files: dict[str, Statistics], topics: list[BagTopic], custom_data: dict[str, str]) -> dict[str, Any]:
    """Return the content of `rosbag2_bagfile_information` for a bag of MCAP `files`, by name."""
    return {
        "version": 9,
        "storage_identifier": "mcap",
        **_span(list(files.values())),
        "topics_with_message_count": [
            {
                "topic_metadata": {
                    "name": topic.name,
                    "type": topic.type,
                    "serialization_format": topic.encoding,
                    "offered_qos_profiles": list(topic.qos) or [offered_qos(topic.depth, topic.latched)],
                    "type_description_hash": topic.type_hash,
                },
                "message_count": sum(of.channel_message_counts.get(topic.channel, 0) for of in files.values()),
            }
            for topic in topics
        ],
        "compression_format": "",
        "compression_mode": "",
        "relative_file_paths": list(files),
        "files": [{"path": name, **_span([statistics])} for name, statistics in files.items()],
        "custom_data": custom_data,
        "ros_distro": distribution_of_ros(),
    }


def _span(files: list[Statistics]) -> dict[str, Any]:
    """Return the duration, the start and the number of the messages of some files."""
    some = [statistics for statistics in files if statistics.message_count]
    start = min((statistics.message_start_time for statistics in some), default=_NO_START)
    end = max((statistics.message_end_time for statistics in some), default=start)
    return {
        "duration": {"nanoseconds": end - start},
        "starting_time": {"nanoseconds_since_epoch": start},
        "message_count": sum(statistics.message_count for statistics in some),
    }


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    def ignore_aliases(self, data: Any) -> bool:
        return True


def to_yaml(value: Any) -> str:
    """Return `value` as block YAML without anchors; a scalar takes one line if YAML allows it."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=2**16)
