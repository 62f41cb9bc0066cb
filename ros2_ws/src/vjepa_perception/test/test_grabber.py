"""Capturing: the newest frame, rising stamps, sources that go and come back. On files, and on a scripted source."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from vjepa_interfaces.errors import VjepaError
from vjepa_perception.grabber import Grabber
from vjepa_perception.video import DEVICE, FILE, STREAM, Video, VideoError, described, kind_of

DEADLINE_S = 20.0
STEP = 8
"""Levels of grey between two frames: more than JPEG loses."""


def write_video(path: Path, frames: int = 10, fps: float = 50.0) -> Path:
    """Write a Motion JPEG file of 64 x 48 pixels whose frame i is grey of level i * STEP, and red at the left top."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), fps, (64, 48))
    for number in range(frames):
        bgr = np.full((48, 64, 3), number * STEP, np.uint8)
        bgr[:24, :32] = (0, 0, 255)
        writer.write(bgr)
    writer.release()
    return path


def number_of(rgb: np.ndarray) -> int:
    """Say which frame of such a file a picture is."""
    return round(float(rgb[-8:, -8:].mean()) / STEP)


class Scripted:
    """A source that gives frames as the test lets it: one picture for each permit, until it is unplugged."""

    def __init__(self):
        self.permits = threading.Semaphore(0)
        self.plugged = True
        self.opened = self.closed = 0

    def open(self) -> "Scripted":
        if not self.plugged:
            raise VjepaError("nothing there")
        self.opened += 1
        return self

    def grab(self) -> bool:
        self.permits.acquire()
        return self.plugged

    def retrieve(self) -> np.ndarray:
        return np.zeros((2, 2, 3), np.uint8)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def grabbing():
    """Return a function that starts a grabber, which is stopped with the test."""
    started = []

    def start(open_source, name="/dev/video7", now_ns=time.time_ns, **options) -> Grabber:
        grabber = Grabber(open_source, name, now_ns, **{"reconnect_s": 0.05, **options})
        started.append(grabber)
        grabber.start()
        return grabber

    yield start
    for grabber in started:
        grabber.stop()


def playing(grabbing, path: Path, **options) -> Grabber:
    return grabbing(lambda: Video(str(path)), str(path), **options)


def wait_for(condition, what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.002)


# Sources.


def test_what_a_source_is_shows_in_its_name():
    assert [kind_of(s) for s in ("0", "/dev/video0", "clip.mp4", "rtsp://host/a")] == [DEVICE, DEVICE, FILE, STREAM]
    assert described("2") == "video device /dev/video2"
    assert described("rtsp://me:secret@host/a") == "video stream rtsp://***@host/a"


def test_a_file_is_played_in_order_in_colour_and_at_its_own_rate(tmp_path):
    with Video(str(write_video(tmp_path / "a.avi", frames=11, fps=20.0))) as video:
        pictures, started = [video.first_frame()], time.monotonic()
        while video.grab():
            pictures.append(video.retrieve())
        elapsed = time.monotonic() - started
    assert [number_of(picture) for picture in pictures] == list(range(11))
    assert pictures[0].shape == (48, 64, 3)
    np.testing.assert_allclose(pictures[0][4, 4], [255, 0, 0], atol=8, err_msg="red comes first")
    assert 0.45 <= elapsed < 5.0, "ten distances of 50 ms, to which a busy machine may add"


def test_a_file_is_played_at_the_rate_asked_for(tmp_path):
    path = write_video(tmp_path / "a.avi", frames=6, fps=1.0)
    started = time.monotonic()
    with Video(str(path), fps=100.0) as video:
        assert video.fps == 100.0
        while video.grab():
            pass
    assert time.monotonic() - started < 3.0


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", "no source; expected a device such as /dev/video0, a video file or"),
        ("none.mp4", "no video file none.mp4; see that the path is right"),
        ("/dev/video99", "video device /dev/video99 cannot be opened by OpenCV .*; see that it is plugged in"),
        ("rtsp://127.0.0.1:9/a", "video stream rtsp://127.0.0.1:9/a cannot be opened .*; see that the address is"),
    ],
)
def test_what_cannot_be_opened_is_refused_with_what_was_tried_and_what_to_do(source, words):
    with pytest.raises(VideoError, match=words):
        Video(source)


def test_a_file_that_is_no_video_is_refused(tmp_path):
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(VideoError, match=r"a.mp4 cannot be opened by OpenCV .*; see that the path is right and"):
        Video(str(tmp_path / "a.mp4"))


def test_the_camera_needs_no_torch():
    code = "import sys, vjepa_perception.camera_node; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# Capturing.


def test_only_the_newest_frame_is_kept_and_the_others_are_counted(grabbing):
    source = Scripted()
    grabber = grabbing(source.open)
    source.permits.release(5)
    wait_for(lambda: grabber.counts["frames"] == 5, "five frames")
    assert grabber.newest(DEADLINE_S) is not None
    assert grabber.counts["dropped_frames"] == 4
    assert grabber.newest(0.0) is None, "each frame is given once"


def test_stamps_rise_strictly_even_where_the_clock_does_not(grabbing):
    source, times = Scripted(), iter([100, 200, 200, 50, 60, 300])
    grabber = grabbing(source.open, now_ns=lambda: next(times))
    stamps = []
    for _ in range(6):
        source.permits.release()
        stamps.append(grabber.newest(DEADLINE_S).stamp_ns)
    assert stamps == [100, 200, 201, 202, 203, 300]


def test_a_source_that_is_unplugged_is_opened_again_when_it_is_back(grabbing):
    source = Scripted()
    grabber = grabbing(source.open)
    source.permits.release()
    assert grabber.newest(DEADLINE_S) is not None
    source.plugged = False
    source.permits.release()
    wait_for(lambda: grabber.failure == "nothing there", "the reason")
    assert (source.opened, source.closed) == (1, 1)
    source.plugged = True
    source.permits.release()
    assert grabber.newest(DEADLINE_S) is not None
    assert (source.opened, grabber.failure, grabber.counts["reconnects"]) == (2, "", 1)


def test_an_error_while_capturing_is_a_reason_and_the_source_is_opened_again(grabbing, monkeypatch):
    source = Scripted()
    grabber = grabbing(source.open)
    with monkeypatch.context() as broken:
        broken.setattr(source, "retrieve", lambda: 1 / 0)
        source.permits.release()
        wait_for(lambda: "failed: ZeroDivisionError" in grabber.failure, "the reason")
    source.permits.release()
    assert grabber.newest(DEADLINE_S) is not None
    assert (source.closed, grabber.failure) == (1, "")


def test_stopping_wakes_who_waits_and_lets_the_source_go(grabbing):
    source = Scripted()
    grabber = grabbing(source.open)
    threading.Timer(0.05, grabber.stop).start()
    threading.Timer(0.1, source.permits.release).start()
    assert grabber.newest(DEADLINE_S) is None
    wait_for(lambda: source.closed == 1, "the source let go")


def test_a_file_in_a_loop_vanishes_comes_back_and_goes_on(grabbing, tmp_path):
    path, away = write_video(tmp_path / "a.avi", frames=5), tmp_path / "away.avi"
    grabber = playing(grabbing, path, loop=True)
    wait_for(lambda: grabber.counts["frames"] > 12, "three rounds")
    assert (grabber.failure, grabber.counts["reconnects"]) == ("", 0), "a round is no repair"
    path.rename(away)
    wait_for(lambda: "no video file" in grabber.failure, "the reason")
    away.rename(path)
    frames = grabber.counts["frames"]
    wait_for(lambda: grabber.counts["frames"] > frames and not grabber.failure, "more frames")
    assert grabber.counts["reconnects"] == 1


def test_a_file_that_has_ended_is_over_until_another_has_its_name(grabbing, tmp_path):
    path = write_video(tmp_path / "a.avi", frames=5)
    grabber = playing(grabbing, path)
    wait_for(lambda: "has ended after 5 frames; set 'loop'" in grabber.failure, "the reason")
    write_video(tmp_path / "b.avi", frames=3).rename(path)
    wait_for(lambda: "has ended after 3 frames" in grabber.failure, "the end of the other")
    assert grabber.counts["frames"] == 8
