"""The newest frame of a source: a thread that captures, stamps, and opens the source again when it is gone.

No ROS, no torch: the clock that stamps come from is given, and so is the function that opens the source.
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
    """What is captured from: `video.Video`, or a test's own.

    Attributes:
        finite: whether it ends, as a file does: it is then over, or begins again in a loop.
    """

    finite: bool

    def grab(self) -> bool:
        """Wait for a frame; False where there is none any more."""

    def retrieve(self) -> np.ndarray | None:
        """Return the frame last grabbed, uint8 of shape (height, width, 3); None if it does not decode."""

    def close(self) -> None:
        """Let the source go."""


@dataclass(frozen=True)
class Frame:
    """A picture, uint8 of shape (height, width, 3), and when it was captured, nanoseconds of the clock given."""

    stamp_ns: int
    rgb: np.ndarray


class Grabber:
    """Captures in a thread of its own from `start` to `stop`; `newest` waits for a frame that was not taken yet.

    A frame that the next one overtakes before it is taken is dropped and counted. Stamps rise strictly, even where the
    clock is set back: they then go on by a nanosecond a frame until it has caught up.

    A source that ends or fails is closed, and opened again after `reconnect_s`; `failure` says why until frames come.
    A file that ends, wherever it lies, begins again at once with `loop`. Without, it is over until another file has its
    name; one of another machine is over for good.

    Attributes:
        failure: what is wrong with the source; empty while it gives frames.
        ended: whether the source is a file that has been played to its end.
        counts: `frames`, `dropped_frames`, `undecoded_frames`, `reconnects`: how often it came back.
        rate: of the frames captured.
        since_s: steady time since which frames have come without a break; 0 where none has.
        seen_s: steady time of the newest frame; 0 where none has come.
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
        """Capture from what `open_source` returns; `name` is the source, as `video.Video` takes it.

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
        """Begin to capture."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wake who waits for a frame. A source that hangs is left to its thread after some seconds."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(STOP_TIMEOUT_S)

    def newest(self, timeout_s: float | None = None) -> Frame | None:
        """Wait for a frame that was not taken yet, and take it; None where `stop` or `timeout_s` came first."""
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
        """Capture until the source gives no more; return the number of frames."""
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
        """Report what became of the source, and wait until it is worth opening again."""
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
        """Return what tells a file from another one of the same name; None where there is none."""
        try:
            found = local_path(self._found).expanduser().stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns
