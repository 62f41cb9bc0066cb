"""Compare the number of messages found on a topic with the number that a file states."""

from collections import Counter

CDR = ("", "cdr")
"""Encodings of messages that can be read."""


def compare(topic: str, found: int, stated: int, where: str, faults: Counter[str]) -> None:
    """Count the difference between the messages found on a topic and the number that `where` states.

    Args:
        topic: name of the topic.
        found: number of messages found.
        stated: number that `where` states.
        where: source of that number, for the message.
        faults: counter of faults, in words; increased.
    """
    if found < stated:
        faults[f"fewer messages on {topic} than {where} states ({found}, {stated} stated)"] += stated - found
    elif found > stated:
        faults[f"more messages on {topic} than {where} states ({found}, {stated} stated)"] += found - stated


def message_type(name: str) -> str:
    """Return the full name of a ROS 2 type; some recorders leave its middle part out: `sensor_msgs/Image`."""
    return name.replace("/", "/msg/") if name.count("/") == 1 else name
