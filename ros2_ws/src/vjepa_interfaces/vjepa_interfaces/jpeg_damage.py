"""Whether a JPEG was decoded whole: libjpeg fills what it cannot read with grey, and only warns.

OpenCV has no function that returns these warnings. libjpeg writes them to the process's standard error, so they are
read there, while one picture is decoded.
"""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_DAMAGE = (
    "Corrupt JPEG data",
    "Premature end of JPEG file",
    "Inconsistent progression sequence",
    "Invalid SOS parameters",
)
_EXTRANEOUS = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
_BEFORE_PICTURE_DATA = range(0xDB, 0xF0)
"""Markers of tables and comments: bytes skipped before these are none of the picture's. Some cameras write such."""
_LOCK = threading.Lock()


@contextmanager
def jpeg_warnings() -> Iterator[list[str]]:
    """Give a list that holds, behind the block, what libjpeg warned of in it; everything else is passed on.

    One thread at a time is in such a block, and nothing in it may start a process.
    """
    found: list[str] = []
    with _LOCK:
        try:
            own = os.dup(2)
        except OSError:  # A process without a standard error, which warns of nothing.
            yield found
            return
        with open(os.memfd_create("jpeg_warnings"), "w+b") as collected:
            os.dup2(collected.fileno(), 2)
            try:
                yield found
            finally:
                os.dup2(own, 2)
                os.close(own)
                collected.seek(0)
                for line in collected:
                    text = line.decode(errors="replace").strip()
                    if text.startswith(_DAMAGE):
                        found.append(text)
                    else:
                        os.write(2, line)


def damage(warnings: list[str], data: bytes) -> str:
    """Return the first warning that a part of the picture in the JPEG `data` is missing; empty where none is.

    Zeros before a marker, with which some cameras fill a file up, are no damage.
    """
    for warning in warnings:
        skipped = _EXTRANEOUS.match(warning)
        if skipped is None:
            return warning
        count, marker = int(skipped[1]), int(skipped[2], 16)
        if marker not in _BEFORE_PICTURE_DATA and bytes(count) + bytes([0xFF, marker]) not in data:
            return warning
    return ""
