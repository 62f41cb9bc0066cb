"""A camera, a video file or a network stream, opened by OpenCV: frames one after the other. No ROS, no torch."""

import contextlib
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from vjepa_interfaces.address import (
    is_device,
    is_local,
    is_reference,
    local_path,
    read_source,
    shown,
    without_address,
)
from vjepa_interfaces.errors import VjepaError

DEVICE, FILE, STREAM = "device", "file", "stream"
OPEN_TIMEOUT_S, READ_TIMEOUT_S = 5.0, 2.0
"""How long a stream may take to begin, and to its next frame, before it counts as lost."""
MAX_FILE_RATE_HZ = 1000.0
"""A file that claims more than this does not know its rate: OpenCV gives such numbers for still pictures."""
PUSHED = ("rist:", "rtmp", "rtp:", "rtsp", "sctp:", "srt", "tcp:", "udp")
"""How the schemes begin of streams whose sender sets the pace, files that it plays included."""
AHEAD_S, AHEAD_FACTOR = 3.0, 4.0
"""A stream that is so far ahead of its own rate, in seconds and as a factor, does not come from a camera."""
FFMPEG_LEVEL, FFMPEG_DEBUG = "OPENCV_FFMPEG_LOGLEVEL", "OPENCV_FFMPEG_DEBUG"
"""Variables by which OpenCV, when it first opens a video, sets what FFmpeg writes to standard error."""
FFMPEG_QUIET = "-8"
"""FFmpeg's AV_LOG_QUIET: its errors repeat addresses, those that a playlist names among them."""


class VideoError(VjepaError):
    """A source that cannot be opened, or that gives no frame."""


def kind_of(source: str) -> str:
    """Return what a source, no reference, is: `DEVICE` (a number or path in /dev), `STREAM` (an address) or `FILE`.

    An address `file:///PATH` is a `FILE`.
    """
    if is_device(source):
        return DEVICE
    return STREAM if "://" in source and not is_local(source) else FILE


class Video:
    """An opened source; `grab` waits for the next frame and `retrieve` decodes it.

    The source may be a reference, as `read_source` takes it; each opening reads it anew. A file is played in real
    time, wherever it lies: at its own rate, or at `fps` where that is above 0. A camera is asked for `fps` and does
    what it can. A stream over HTTP and the like is a file where it states its length. One that does not is taken for
    a camera until it is `AHEAD_S` ahead of its own rate and `AHEAD_FACTOR` times as fast.

    Attributes:
        kind: `DEVICE`, `FILE` or `STREAM`.
        finite: whether it is known to end, as a file does.
        fps: frames a second, as asked of a file or as the source says; 0 where it does not say.

    Raises:
        VideoError: the source cannot be opened, with what was tried and what to do.
    """

    def __init__(self, source: str, fps: float = 0.0):
        if not source:
            raise VideoError("no source; expected a device such as /dev/video0, a video file or an rtsp:// address")
        self._source, found = source, read_source(source)
        self.kind = kind_of(found)
        self._capture = _opened(source, found)
        if fps and self.kind == DEVICE:
            self._capture.set(cv2.CAP_PROP_FPS, fps)
        pulled = self.kind == STREAM and not found.lower().startswith(PUSHED)
        self.finite = self.kind == FILE or (pulled and self._capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0)
        stated = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if fps and self.finite else stated if math.isfinite(stated) and stated > 0 else 0.0
        self._paced, self._watched = self.finite, pulled and not self.finite
        self._pace = fps or self.fps
        self._begun_s, self._grabbed = 0.0, 0
        if self.finite and not 0 < self.fps <= MAX_FILE_RATE_HZ:
            self.close()
            raise VideoError(f"{described(source)} does not say how many frames a second it has; set 'fps' above 0")
        self._due_s = time.monotonic()

    def grab(self) -> bool:
        """Wait for the next frame and take it, not decoded yet; False where there is none, or none any more."""
        asked_s = time.monotonic()
        if not self._capture.grab():
            return False
        if self.kind == STREAM and time.monotonic() - asked_s >= READ_TIMEOUT_S:
            return False  # Nothing came; this is what the decoder still had.
        if self._watched:
            self._watch()
        if self._paced:
            self._wait_for_its_time()
        return True

    def _watch(self) -> None:
        """Begin to pace a stream of unknown length that comes much faster than its rate, as a file does."""
        now = time.monotonic()
        self._begun_s = self._begun_s or now
        self._grabbed += 1
        if not 0 < self._pace <= MAX_FILE_RATE_HZ:
            return
        played_s, elapsed_s = self._grabbed / self._pace, now - self._begun_s
        if played_s > max(elapsed_s + AHEAD_S, AHEAD_FACTOR * elapsed_s):
            self._paced, self._watched = True, False
            self._due_s = now

    def _wait_for_its_time(self) -> None:
        """Wait until the frame in hand is to be shown; after a standstill play on, rather than catch up."""
        now = time.monotonic()
        self._due_s += 1.0 / self._pace
        if now - self._due_s > 0.5:
            self._due_s = now
        time.sleep(max(self._due_s - now, 0.0))

    def retrieve(self) -> np.ndarray | None:
        """Return the frame last grabbed, uint8 of shape (height, width, 3), red first; None if it does not decode."""
        decoded, bgr = self._capture.retrieve()
        if not decoded or bgr is None or not bgr.size:
            return None
        return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)

    def first_frame(self) -> np.ndarray:
        """Return the next frame, or raise VideoError where there is none: to look at what a source gives."""
        rgb = self.retrieve() if self.grab() else None
        if rgb is None:
            raise VideoError(f"{described(self._source)} was opened but gave no frame; {_ADVICE[self.kind]}")
        return rgb

    def close(self) -> None:
        """Let the source go."""
        self._capture.release()

    def __enter__(self) -> "Video":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def described(source: str) -> str:
    """Return a source with what it was taken for, for messages: of an address scheme and host alone.

    What a reference leads to may be another secret than a camera's, if somebody set it so: only that of a stream is
    shown, as any address is.
    """
    if not is_reference(source):
        return f"video {kind_of(source)} {f'/dev/video{source}' if source.isdigit() else shown(source)}"
    try:
        found = read_source(source)
    except VjepaError:
        return f"video source {shown(source)}"
    address = f"{shown(found)} " if kind_of(found) == STREAM else ""
    return f"video {kind_of(found)} {address}of {shown(source)}"


_ADVICE = {
    DEVICE: "see that it is plugged in, that no other program has it, that it is the camera's picture device "
    "(v4l2-ctl --list-devices) and that you may read it (group video)",
    FILE: "see that the path is right and that the file plays",
    STREAM: "see that the address with its user and password is right and that its host answers",
}

_ADVICE_OF_A_FOLDER = (
    "expected a file; pictures become a video with: "
    "ffmpeg -framerate 30 -pattern_type glob -i 'FOLDER/*.png' -pix_fmt yuv420p video.mp4"
)


def _opened(source: str, found: str) -> cv2.VideoCapture:
    """Open what was `found` for a `source`."""
    kind = kind_of(found)
    path = local_path(found).expanduser()
    if kind == FILE and path.is_dir():
        raise VideoError(f"{described(source)} is a folder; {_ADVICE_OF_A_FOLDER}")
    if kind == FILE and not path.is_file():
        raise VideoError(f"no {described(source)}; {_ADVICE[FILE]}")
    device = Path(f"/dev/video{found}" if found.isdigit() else found)
    if kind == DEVICE and not device.exists():
        here = ", ".join(sorted(map(str, Path("/dev").glob("video*")))) or "none"
        raise VideoError(f"no {described(source)}, devices here: {here}; {_ADVICE[DEVICE]}")
    with _quiet(), _described_errors(source, found):
        if kind == DEVICE:
            capture = cv2.VideoCapture(int(found) if found.isdigit() else found, cv2.CAP_V4L2)
        elif kind == STREAM:
            options = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, round(OPEN_TIMEOUT_S * 1e3)]
            options += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(READ_TIMEOUT_S * 1e3)]
            options += [cv2.CAP_PROP_N_THREADS, 1]  # Each further one holds a frame back, by default one a core.
            capture = cv2.VideoCapture(found, cv2.CAP_FFMPEG, options)
        else:
            capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise VideoError(f"{described(source)} cannot be opened by OpenCV {cv2.__version__}; {_ADVICE[kind]}")
    return capture


@contextlib.contextmanager
def _described_errors(source: str, found: str) -> Iterator[None]:
    """Raise OpenCV's own error as one that does not repeat the address."""
    try:
        yield
    except cv2.error as error:
        text = without_address(str(error), found)
        raise VideoError(f"{described(source)} cannot be opened by OpenCV {cv2.__version__}: {text}") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep OpenCV and FFmpeg from writing about a source: the error says it, and theirs have the address.

    Who sets one of FFmpeg's variables sees FFmpeg's own messages.
    """
    if not (os.environ.get(FFMPEG_LEVEL) or os.environ.get(FFMPEG_DEBUG)):
        os.environ[FFMPEG_LEVEL] = FFMPEG_QUIET
    logging = getattr(getattr(cv2, "utils", None), "logging", None)
    if logging is None:
        yield
        return
    level = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(level)
