"""How often Fast DDS announces a process to others, which bounds the time in which they discover each other."""

import os
from pathlib import Path
from xml.etree import ElementTree

from vjepa_interfaces.shared_memory import PROFILES

DEFAULT_S = 3.0
"""The period without a file of profiles, seconds."""


def announcement_period_s() -> float:
    """Return the period of announcements in the file of profiles of this process, or Fast DDS's own, seconds.

    Other middlewares announce themselves at other times; this period is then only a guess.
    """
    for name in PROFILES:
        if file := os.environ.get(name):
            return _period_in(Path(file))
    return DEFAULT_S


def _period_in(file: Path) -> float:
    """Return the period in the default profile of a file; Fast DDS reports a file that it cannot read."""
    try:
        root = ElementTree.fromstring(file.read_bytes())
    except (OSError, ElementTree.ParseError):
        return DEFAULT_S
    for participant in root.iterfind(".//{*}participant[@is_default_profile='true']"):
        for duration in participant.iterfind(".//{*}leaseAnnouncement"):
            seconds, nanoseconds = (duration.findtext(f"{{*}}{part}", "0") for part in ("sec", "nanosec"))
            if seconds.strip().isdecimal() and nanoseconds.strip().isdecimal():
                return int(seconds) + int(nanoseconds) * 1e-9
    return DEFAULT_S
