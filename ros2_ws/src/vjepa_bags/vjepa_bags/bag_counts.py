"""Comparing how many messages of a topic were found with how many something states that there are."""

from collections import Counter

CDR = ("", "cdr")
"""Encodings of messages that are read."""


def compare(topic: str, found: int, stated: int, where: str, faults: Counter[str]) -> None:
    """Count the difference between the messages that a topic has and those that `where` states."""
    if found < stated:
        faults[f"fewer messages on {topic} than {where} states ({found}, {stated} stated)"] += stated - found
    elif found > stated:
        faults[f"more messages on {topic} than {where} states ({found}, {stated} stated)"] += found - stated


def message_type(name: str) -> str:
    """Return the name of a ROS 2 type, whose middle some recorders leave out: `sensor_msgs/Image`."""
    return name.replace("/", "/msg/") if name.count("/") == 1 else name
