"""Detection of damaged JPEG files: libjpeg fills an unreadable part with grey, and only warns.

OpenCV has no function that returns these warnings. libjpeg writes them to the process's standard error. They are read
there while a picture is decoded.
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
"""Markers of tables and comments: bytes skipped before them are not part of the picture. Some cameras write such."""
_LOCK = threading.Lock()


@contextmanager
def jpeg_warnings() -> Iterator[list[str]]:
    """Yield a list that contains libjpeg's warnings after the block; all other output is passed on.

    Only one thread at a time runs such a block, and the block must not start a process.
    """
    found: list[str] = []
    with _LOCK:
        try:
            own = os.dup(2)
        except OSError:  # A process without a standard error gives no warnings.
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
    """Return the first warning that a part of the picture in the JPEG `data` is missing; empty if there is none.

    Zeros before a marker, with which some cameras pad a file, are no damage.
    """
    for warning in warnings:
        skipped = _EXTRANEOUS.match(warning)
        if skipped is None:
            return warning
        count, marker = int(skipped[1]), int(skipped[2], 16)
        if marker not in _BEFORE_PICTURE_DATA and bytes(count) + bytes([0xFF, marker]) not in data:
            return warning
    return ""
