"""The newest frame of a source: a thread that captures, stamps, and opens a lost source again.

No ROS, no torch: the caller passes the clock of the stamps, and the function that opens the source.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vjepa_interfaces.address import local_path, read_source, without_address
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.statistics import Counts, RateMeter
from vjepa_perception.video import described

STOP_TIMEOUT_S = 2.0


class Source(Protocol):
    """A source of frames: `video.Video`, or a class of a test.

    Attributes:
        finite: whether it ends, as a file does; it then stays ended, or begins again in a loop.
    """

    finite: bool

    def grab(self) -> bool:
        """Wait for a frame; False if there are no more."""

    def retrieve(self) -> np.ndarray | None:
        """Return the frame last grabbed, uint8 of shape (height, width, 3); None if it does not decode."""

    def close(self) -> None:
        """Close the source."""


@dataclass(frozen=True)
class Frame:
    """A picture, uint8 of shape (height, width, 3), and its time of capture, nanoseconds of the caller's clock."""

    stamp_ns: int
    rgb: np.ndarray


class Grabber:
    """Captures in a separate thread from `start` to `stop`; `newest` waits for a frame that was not taken yet.

    A frame is dropped and counted if the next one arrives before it is taken. Stamps rise strictly, even if the clock
    is set back. They then advance by a nanosecond for each frame until the clock has caught up.

    A source that ends or fails is closed, and opened again after `reconnect_s`; `failure` has the reason until frames
    come. With `loop` an ended file begins again at once. Otherwise it stays ended until another file has its name; a
    file on another machine stays ended.

    Attributes:
        failure: the fault of the source; empty while it gives frames.
        ended: whether the source is a file that has been played to its end.
        counts: `frames`, `dropped_frames`, `undecoded_frames` and `reconnects`.
        rate: rate of the captured frames.
        since_s: steady time since which frames have come without a break; 0 before the first.
        seen_s: steady time of the newest frame; 0 before the first.
    """

    def __init__(
        self,
        open_source: Callable[[], Source],
        name: str,
        now_ns: Callable[[], int],
        loop: bool = False,
        reconnect_s: float = 1.0,
        rate_window_s: float = 5.0,
    ):
        """Prepare to capture from the source that `open_source` returns; `name` is the source for `video.Video`.

        Raises:
            VjepaError: as `read_source`.
        """
        self._open = open_source
        self._name, self._found = name, read_source(name)
        self._now_ns = now_ns
        self._loop = loop
        self._reconnect_s = reconnect_s
        self.failure = ""
        self.ended = False
        self.counts = Counts()
        self.rate = RateMeter(rate_window_s)
        self.since_s = self.seen_s = 0.0
        self._stamp_ns = 0
        self._newest: Frame | None = None
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)

    def start(self) -> None:
        """Start to capture."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, and wake a caller that waits for a frame. After some seconds a hanging source is left to its thread."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(STOP_TIMEOUT_S)

    def newest(self, timeout_s: float | None = None) -> Frame | None:
        """Wait for a frame that was not taken yet, and take it; None after `stop` or `timeout_s` without one."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._stopping.is_set(), timeout_s)
            frame, self._newest = self._newest, None
        return None if self._stopping.is_set() else frame

    def _run(self) -> None:
        while not self._stopping.is_set():
            identity = self._identity()
            try:
                source = self._open()
            except VjepaError as error:
                self._fail(str(error))
                self._stopping.wait(self._reconnect_s)
                continue
            try:
                captured = self._capture(source)
            except Exception as error:  # OpenCV's own, for one: the thread must outlive it.
                reason = f"{type(error).__name__}: {without_address(str(error), self._found)}"
                self._fail(f"{described(self._name)} failed: {reason}; trying to open it again")
                self._stopping.wait(self._reconnect_s)
                continue
            finally:
                source.close()
            if not (source.finite and captured and self._loop):
                self._end(captured, identity, source.finite)

    def _capture(self, source: Source) -> int:
        """Capture until the source gives no more frames; return their number."""
        captured = 0
        while not self._stopping.is_set() and source.grab():
            stamp_ns, now_s = max(self._now_ns(), self._stamp_ns + 1), time.monotonic()
            rgb = source.retrieve()
            if rgb is None:
                self.counts["undecoded_frames"] += 1
                continue
            captured += 1
            self._stamp_ns = stamp_ns
            self.since_s, self.seen_s = self.since_s or now_s, now_s
            self.counts["reconnects"] += bool(self.failure)
            self.failure = ""
            self.rate.tick(now_s)
            with self._changed:
                self.counts["frames"] += 1
                self.counts["dropped_frames"] += self._newest is not None
                self._newest = Frame(stamp_ns, rgb)
                self._changed.notify_all()
        return captured

    def _end(self, captured: int, identity: object, finite: bool) -> None:
        """Report the end of the source, and wait until it can be opened again."""
        if not (finite and captured):
            self._fail(f"{described(self._name)} gives no more frames, after {captured}; trying to open it again")
            self._stopping.wait(self._reconnect_s)
            return
        self._fail(f"{described(self._name)} has ended after {captured} frames; set 'loop' to play it again and again")
        self.ended = True
        while not self._stopping.wait(self._reconnect_s):
            if self._identity() not in (identity, None):
                self.ended = False
                return

    def _fail(self, reason: str) -> None:
        self.failure, self.since_s = reason, 0.0

    def _identity(self) -> object:
        """Return the identity of a file, to detect another file of the same name; None if there is no file."""
        try:
            found = local_path(self._found).expanduser().stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns
