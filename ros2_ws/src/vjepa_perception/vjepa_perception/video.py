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
"""The longest time until a stream's first frame, and until its next one; after it the stream counts as lost."""
MAX_FILE_RATE_HZ = 1000.0
"""The highest plausible rate of a file: OpenCV returns higher numbers for still pictures."""
PUSHED = ("rist:", "rtmp", "rtp:", "rtsp", "sctp:", "srt", "tcp:", "udp")
"""Beginnings of the schemes of streams whose sender sets the pace, also when it plays a file."""
AHEAD_S, AHEAD_FACTOR = 3.0, 4.0
"""A stream that is this far ahead of its own rate, in seconds and as a factor, does not come from a camera."""
FFMPEG_LEVEL, FFMPEG_DEBUG = "OPENCV_FFMPEG_LOGLEVEL", "OPENCV_FFMPEG_DEBUG"
"""Variables that OpenCV reads when it first opens a video: they choose what FFmpeg writes to standard error."""
FFMPEG_QUIET = "-8"
"""FFmpeg's AV_LOG_QUIET: its errors repeat addresses, those that a playlist names among them."""


class VideoError(VjepaError):
    """A source that cannot be opened, or that gives no frame."""


def kind_of(source: str) -> str:
    """Return the kind of a source: `DEVICE` (a number or path in /dev), `STREAM` (an address) or `FILE`.

    The source must not be a reference. An address `file:///PATH` is a `FILE`.
    """
    if is_device(source):
        return DEVICE
    return STREAM if "://" in source and not is_local(source) else FILE


class Video:
    """An opened source; `grab` waits for the next frame and `retrieve` decodes it.

    The source may be a reference for `read_source`; each opening reads it again. A file is played in real time, also on
    another machine: at its own rate, or at `fps` if that is above 0. A camera is asked for `fps` and may give another
    rate. A stream over HTTP and the like is a file if it states its length. Otherwise it counts as a camera until it is
    `AHEAD_S` ahead of its own rate and `AHEAD_FACTOR` times as fast.

    Attributes:
        kind: `DEVICE`, `FILE` or `STREAM`.
        finite: whether it is known to end, as a file does.
        fps: frames a second, as requested for a file or as the source reports; 0 if unknown.

    Raises:
        VideoError: the source cannot be opened; the message states what was tried and what to do.
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
            raise VideoError(f"{described(source)} does not state how many frames a second it has; set 'fps' above 0")
        self._due_s = time.monotonic()

    def grab(self) -> bool:
        """Wait for the next frame and take it, not decoded yet; False if there are no more."""
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
        """Start to pace a stream of unknown length that comes much faster than its rate, as a file does."""
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
        """Wait until the time of the taken frame; after a standstill continue from there, and do not catch up."""
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
        """Return the next frame, or raise VideoError if there is none: to look at a source."""
        rgb = self.retrieve() if self.grab() else None
        if rgb is None:
            raise VideoError(f"{described(self._source)} was opened but gave no frame; {_ADVICE[self.kind]}")
        return rgb

    def close(self) -> None:
        """Close the source."""
        self._capture.release()

    def __enter__(self) -> "Video":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def described(source: str) -> str:
    """Return a source with its kind, for messages: only scheme and host of an address.

    A reference may by mistake name a secret that is no camera. So its content is shown only for a stream, and then like
    any other address.
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
    """Open the device, file or address `found` for a `source`."""
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
            options += [cv2.CAP_PROP_N_THREADS, 1]  # Each further thread holds a frame back.
            capture = cv2.VideoCapture(found, cv2.CAP_FFMPEG, options)
        else:
            capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise VideoError(f"{described(source)} cannot be opened by OpenCV {cv2.__version__}; {_ADVICE[kind]}")
    return capture


@contextlib.contextmanager
def _described_errors(source: str, found: str) -> Iterator[None]:
    """Raise OpenCV's error as an error that does not repeat the address."""
    try:
        yield
    except cv2.error as error:
        text = without_address(str(error), found)
        raise VideoError(f"{described(source)} cannot be opened by OpenCV {cv2.__version__}: {text}") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep OpenCV and FFmpeg from writing about a source: our error is enough, and their messages have the address.

    If one of FFmpeg's variables is set, FFmpeg writes its own messages.
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
