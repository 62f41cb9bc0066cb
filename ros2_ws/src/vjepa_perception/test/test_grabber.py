"""Capturing: the newest frame, rising stamps, sources that go and come back.

On files, on a scripted source, and on a camera of the tests' own that speaks RTSP over a real socket to OpenCV.
"""

import base64
import contextlib
import http.server
import os
import socket
import struct
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
STEP = 16
"""Levels of grey between two frames: more than JPEG and MPEG-4 lose."""
RATE_HZ, FRAMES = 20.0, 12
"""Of the network camera, which begins anew after so many frames, with a whole picture."""
USER, PASSWORD = "operator", "a-secret"


def write_video(path: Path, frames: int = 10, fps: float = 50.0, codec: str = "MJPG") -> Path:
    """Write a file of 64 x 48 pixels whose frame i is grey of level i * STEP, and red at the left top."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, (64, 48))
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

    finite = False

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


def encoded_frames(folder: Path) -> list[bytes]:
    """Return the frames as MPEG-4 (part 2), taken out of an AVI file that OpenCV wrote."""
    data, frames = write_video(folder / "stream.avi", FRAMES, RATE_HZ, "XVID").read_bytes(), []
    at = data.index(b"movi") + 4
    while data[at : at + 4] == b"00dc":
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        frames.append(data[at + 8 : at + 8 + size])
        at += 8 + size + size % 2
    assert len(frames) == FRAMES
    return frames


class RtspCamera:
    """A network camera: RTSP (RFC 2326) with its RTP in the same connection, MPEG-4 as RFC 6416 packs it.

    Attributes:
        sent: how many frames it has sent to its newest client.
        sent_ns: when it sent the last one, ns since the epoch.
        flowing: cleared, the camera hangs: its connections stay open and nothing more comes.
    """

    def __init__(self, frames: list[bytes], port: int = 0, password: str = ""):
        self._frames = frames
        self._authorization = base64.b64encode(f"{USER}:{password}".encode()).decode() if password else ""
        self._listening = socket.create_server(("127.0.0.1", port))
        self.port = self._listening.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}/arm"
        self.sent = self.sent_ns = 0
        self.flowing = threading.Event()
        self.flowing.set()
        self._closed = threading.Event()
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Be switched off: nothing listens, and every connection is gone."""
        self._closed.set()
        for open_socket in (self._listening, *self._connections):
            with contextlib.suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)
            open_socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as requests:
            try:
                while line := requests.readline():
                    if line[:1] == b"$":  # A report of the client's, in RTCP: its length may hold a line's end.
                        while len(line) < 4:
                            line += requests.read(1)
                        requests.read(4 + struct.unpack(">H", line[2:4])[0] - len(line))
                        continue
                    method = line.split()[0].decode()
                    headers = {}
                    while (header := requests.readline().decode().strip()) != "":
                        name, _, value = header.partition(":")
                        headers[name.lower()] = value.strip()
                    connection.sendall(self._answer(method, headers).encode())
                    if method == "PLAY":
                        threading.Thread(target=self._play, args=(connection,), daemon=True).start()
            except OSError:
                return

    def _answer(self, method: str, headers: dict[str, str]) -> str:
        lines = [f"CSeq: {headers['cseq']}", "Session: 1"]
        if self._authorization and headers.get("authorization") != f"Basic {self._authorization}":
            return "\r\n".join(["RTSP/1.0 401 Unauthorized", *lines, 'WWW-Authenticate: Basic realm="arm"', "", ""])
        body = ""
        if method == "OPTIONS":
            lines.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
        elif method == "DESCRIBE":
            media = ["m=video 0 RTP/AVP 96", "a=rtpmap:96 MP4V-ES/90000", "a=control:track"]
            body = "\r\n".join(["v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=arm", "c=IN IP4 0.0.0.0", "t=0 0", *media, ""])
            lines += ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
        elif method == "SETUP":
            lines.append("Transport: RTP/AVP/TCP;unicast;interleaved=0-1")
        return "\r\n".join(["RTSP/1.0 200 OK", *lines, "", body])

    def _play(self, connection: socket.socket) -> None:
        sequence = self.sent = 0
        while not self._closed.wait(1.0 / RATE_HZ):
            self.flowing.wait()
            frame = self._frames[self.sent % FRAMES]
            self.sent, self.sent_ns = self.sent + 1, time.time_ns()
            pieces = [frame[at : at + 1400] for at in range(0, len(frame), 1400)]
            for number, piece in enumerate(pieces):
                last = number == len(pieces) - 1
                stamp = int(self.sent * 90000 / RATE_HZ)
                header = struct.pack(">BBHII", 0x80, last << 7 | 96, sequence % 2**16, stamp, 1)
                sequence += 1
                packet = header + piece
                try:
                    connection.sendall(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
                except OSError:
                    return


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> list[bytes]:
    return encoded_frames(tmp_path_factory.mktemp("stream"))


@pytest.fixture
def camera(frames):
    """Return a function that switches on a camera."""
    on = []

    def switch_on(**options) -> RtspCamera:
        on.append(RtspCamera(frames, **options))
        return on[-1]

    yield switch_on
    for one in on:
        one.close()


@pytest.fixture
def grabbing():
    """Return a function that starts a grabber, which is stopped with the test."""
    started = []
    scripted = []

    def start(open_source, name="/dev/video7", now_ns=time.time_ns, **options) -> Grabber:
        if isinstance(source := getattr(open_source, "__self__", None), Scripted):
            scripted.append(source)
        grabber = Grabber(open_source, name, now_ns, **{"reconnect_s": 0.05, **options})
        started.append(grabber)
        grabber.start()
        return grabber

    yield start
    for source in scripted:  # A grabber that waits for a permit would not stop.
        source.plugged = False
        source.permits.release()
    for grabber in started:
        grabber.stop()


def playing(grabbing, source: Path | str, **options) -> Grabber:
    return grabbing(lambda: Video(str(source)), str(source), **options)


def wait_for(condition, what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.002)


# Sources.


def test_what_a_source_is_shows_in_its_name():
    assert [kind_of(s) for s in ("0", "/dev/video0", "clip.mp4", "rtsp://host/a")] == [DEVICE, DEVICE, FILE, STREAM]
    assert [kind_of(s) for s in ("file:///a.mp4", "FILE://localhost/a.mp4", "file://host/a")] == [FILE, FILE, STREAM]
    assert described("2") == "video device /dev/video2"
    assert described("rtsp://me:secret@host/a?token=secret") == "video stream rtsp://host"


def test_a_file_is_played_in_order_in_colour_and_at_its_own_rate(tmp_path):
    path = write_video(tmp_path / "a.avi", frames=11, fps=20.0)
    started = time.monotonic()  # Before the opening, which a busy machine may stretch and playing then makes up for.
    with Video(str(path)) as video:
        pictures = [video.first_frame()]
        while video.grab():
            pictures.append(video.retrieve())
        elapsed = time.monotonic() - started
    assert [number_of(picture) for picture in pictures] == list(range(11))
    assert pictures[0].shape == (48, 64, 3)
    np.testing.assert_allclose(pictures[0][4, 4], [255, 0, 0], atol=8, err_msg="red comes first")
    assert 0.45 <= elapsed < 5.0, "eleven frames of 50 ms, to which a busy machine may add"


class WebServer(http.server.BaseHTTPRequestHandler):
    """A server of files, from byte 0 on alone, and of a camera at /live, which sends a JPEG every 10 ms."""

    folder: Path

    def do_GET(self) -> None:
        self.send_response(200)
        if self.path == "/live":
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            picture = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n")
                    self.wfile.write(b"Content-Length: %d\r\n\r\n%s\r\n" % (len(picture), picture))
                    time.sleep(0.01)
        body = (self.folder / self.path[1:]).read_bytes()
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def log_message(self, *_) -> None:
        """Log nothing."""


@pytest.fixture
def web(tmp_path):
    """The address of a server of the files in `tmp_path`."""
    handler = type("Served", (WebServer,), {"folder": tmp_path})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("where", ["file://{}/a b.avi", "file://localhost{}/a%20b.avi", "{}/a%20b.avi"])
@pytest.mark.parametrize("fps", [0.0, 25.0])
def test_a_file_is_played_at_its_rate_wherever_it_lies(tmp_path, web, where, fps):
    write_video(tmp_path / "a b.avi", frames=11, fps=20.0)
    (tmp_path / "a%20b.avi").write_bytes((tmp_path / "a b.avi").read_bytes())
    address = where.format(tmp_path if where.startswith("file") else web)
    started = time.monotonic()
    with Video(address, fps=fps) as video:
        assert (video.finite, video.fps) == (True, fps or 20.0)
        frames = 0
        while video.grab():
            frames += 1
    assert frames == 11
    assert time.monotonic() - started >= 10 / (fps or 20.0)


def test_a_file_of_unknown_length_is_paced_once_it_runs_ahead(tmp_path, web):
    pictures = [cv2.imencode(".jpg", np.full((48, 64, 3), i, np.uint8))[1].tobytes() for i in range(90)]
    (tmp_path / "a.mjpeg").write_bytes(b"".join(pictures))
    started = time.monotonic()
    with Video(f"{web}/a.mjpeg") as video:
        assert (video.finite, video.fps) == (False, 25.0)
        frames = 0
        while video.grab():
            frames += 1
    assert frames == 90
    assert time.monotonic() - started >= (90 - 3 * 25 - 2) / 25.0


def test_a_camera_over_http_is_never_slowed_down(web):
    with Video(f"{web}/live") as video:
        assert (video.finite, video.fps) == (False, 25.0)
        started = time.monotonic()
        for _ in range(90):
            assert video.grab()
        assert time.monotonic() - started < 90 / 25.0, "its real rate is about four times the one that FFmpeg assumes"


@pytest.mark.parametrize("loop", [False, True])
def test_a_file_of_a_web_server_ends_or_begins_again_as_any_other(tmp_path, web, grabbing, loop):
    write_video(tmp_path / "a.avi", frames=4, fps=100.0)
    address = f"{web}/a.avi"
    grabber = playing(grabbing, address, loop=loop)
    if loop:
        wait_for(lambda: grabber.counts["frames"] > 8, "three rounds")
        assert grabber.failure == ""
    else:
        wait_for(lambda: "has ended after 4 frames" in grabber.failure, "the end")
        assert grabber.counts["frames"] == 4


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
        ("/dev/video99", "no video device /dev/video99, devices here: .*; see that it is plugged in"),
        ("99", "no video device /dev/video99, devices here: .*; see that it is plugged in"),
        ("/dev/null", "video device /dev/null cannot be opened by OpenCV .*; see that it is plugged in"),
        ("/usr", "video file /usr is a folder; expected a file; pictures become a video with: ffmpeg "),
        (
            "rtsp://127.0.0.1:9/a",
            "video stream rtsp://127.0.0.1 cannot be opened .*; see that the address with its user and password is",
        ),
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
    wait_for(lambda: grabber.ended, "the end")
    write_video(tmp_path / "b.avi", frames=3).rename(path)
    wait_for(lambda: "has ended after 3 frames" in grabber.failure, "the end of the other")
    assert grabber.counts["frames"] == 8


# A network camera.


def test_a_stream_gives_its_frames_in_order_and_in_colour(camera):
    with Video(f"rtsp://{camera().address}") as video:
        pictures = [video.first_frame()]
        while len(pictures) < 2 * FRAMES:
            assert video.grab()
            pictures.append(video.retrieve())
    numbers = [number_of(picture) for picture in pictures]
    assert set(np.diff(numbers) % FRAMES) == {1}, "one after the other"
    np.testing.assert_allclose(pictures[0][4, 4], [255, 0, 0], atol=24, err_msg="red comes first")


def test_a_frame_is_not_kept_back_by_frames_that_are_decoded_beside_it(camera):
    """Decoding in threads hands a frame out only once each further thread has one too: at 16 cores, 15 frames later."""
    camera = camera()
    with Video(f"rtsp://{camera.address}") as video:
        behind = []
        for _ in range(60):
            assert video.grab()
            behind.append((camera.sent - 1 - number_of(video.retrieve())) % FRAMES)
    assert min(behind) <= 1, "a frame's end shows in the beginning of the next one; for more there is no reason"


def test_a_stream_is_opened_with_the_password_of_its_address_alone(camera):
    camera = camera(password=PASSWORD)
    with Video(f"rtsp://{USER}:{PASSWORD}@{camera.address}") as video:
        assert video.first_frame().shape == (48, 64, 3)
    with pytest.raises(VideoError, match=r"video stream rtsp://127.0.0.1 cannot be opened") as refused:
        Video(f"rtsp://{USER}:another@{camera.address}")
    assert "another" not in str(refused.value)


@pytest.mark.parametrize("reference", ["env:ARM_CAMERA", "@{}/camera"])
def test_a_stream_whose_address_is_named_elsewhere_is_opened_and_follows_it(camera, tmp_path, monkeypatch, reference):
    source = reference.format(tmp_path)

    def name(address: str) -> None:
        monkeypatch.setenv("ARM_CAMERA", address)
        (tmp_path / "camera").write_text(f"{address}\n")

    camera = camera(password=PASSWORD)
    name(f"rtsp://{USER}:another@{camera.address}")
    with pytest.raises(VideoError, match=rf"^video stream rtsp://127.0.0.1 of {source} cannot be opened"):
        Video(source)
    name(f"rtsp://{USER}:{PASSWORD}@{camera.address}")
    with Video(source) as video:
        assert (video.kind, video.first_frame().shape) == (STREAM, (48, 64, 3))
    name(str(write_video(tmp_path / "a.avi")))
    with Video(source) as video:
        assert video.kind == FILE


@pytest.mark.parametrize("content", ["another-secret", "4711", "me:another-secret@host", "/etc/another-secret"])
def test_what_a_reference_leads_to_is_not_shown_unless_it_is_the_address_of_a_stream(content, monkeypatch):
    """Whoever may set the parameter could else read any variable or file of the node's on /diagnostics."""
    monkeypatch.setenv("ANOTHER_SECRET", content)
    kind = DEVICE if content.isdigit() else FILE
    assert described("env:ANOTHER_SECRET") == f"video {kind} of env:ANOTHER_SECRET"
    with pytest.raises(VideoError, match=f"video {kind} of env:ANOTHER_SECRET") as refused:
        Video("env:ANOTHER_SECRET")
    assert content not in str(refused.value)
    monkeypatch.delenv("ANOTHER_SECRET")
    assert described("env:ANOTHER_SECRET") == "video source env:ANOTHER_SECRET"


def test_a_file_that_is_named_elsewhere_is_played_again_and_again(grabbing, tmp_path):
    (tmp_path / "camera").write_text(str(write_video(tmp_path / "a.avi", frames=5)))
    grabber = playing(grabbing, f"@{tmp_path}/camera", loop=True)
    wait_for(lambda: grabber.counts["frames"] > 12, "three rounds")
    assert grabber.failure == ""


@pytest.mark.parametrize("error", [cv2.error("no /arm?token=a-secret"), ValueError("operator")])
def test_an_error_of_opencvs_that_repeats_the_address_is_a_reason_without_it(grabbing, monkeypatch, error):
    source, address = Scripted(), f"rtsp://{USER}:{PASSWORD}@host/arm?token=a-secret"

    def broken():
        raise error

    monkeypatch.setattr(source, "retrieve", broken)
    grabber = grabbing(source.open, address)
    source.permits.release()
    wait_for(
        lambda: f"failed: {type(error).__name__}: its message repeats the address" in grabber.failure, "the reason"
    )
    assert grabber.failure.startswith("video stream rtsp://host failed")
    assert not [word for word in ("secret", USER, "arm") if word in grabber.failure]


class Playlist(http.server.BaseHTTPRequestHandler):
    """A stream in pieces (HLS) whose first piece is not there: FFmpeg's own message has its address, and so a token."""

    def do_GET(self) -> None:
        body = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\npiece.ts?token={PASSWORD}\n#EXT-X-ENDLIST\n".encode()
        self.send_response(200 if self.path.startswith("/arm.m3u8") else 404)
        self.send_header("Content-Type", "application/vnd.apple.mpegurl")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        """Log nothing."""


@pytest.mark.parametrize("asked", [{}, {"OPENCV_FFMPEG_LOGLEVEL": "16"}])
def test_ffmpeg_writes_no_address_unless_it_is_asked_to(asked):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Playlist) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        code = (
            "import sys\nfrom vjepa_perception.video import Video, VideoError\n"
            "try: Video(sys.argv[1])\nexcept VideoError as error: print(error)"
        )
        address = f"http://{USER}:{PASSWORD}@127.0.0.1:{server.server_port}/arm.m3u8?token={PASSWORD}"
        variables = {name: value for name, value in os.environ.items() if not name.startswith("OPENCV_")} | asked
        run = [sys.executable, "-c", code, address]
        done = subprocess.run(run, env=variables, capture_output=True, text=True, check=True, timeout=DEADLINE_S)
        server.shutdown()
    assert "video stream http://127.0.0.1 cannot be opened" in done.stdout
    assert (PASSWORD in done.stdout + done.stderr) == bool(asked), done.stdout + done.stderr


def test_a_camera_that_is_switched_off_is_opened_again_when_it_is_back(camera, grabbing):
    first = camera()
    grabber = playing(grabbing, f"rtsp://{first.address}")
    wait_for(lambda: grabber.counts["frames"] > 5, "frames")
    first.close()
    wait_for(lambda: "cannot be opened" in grabber.failure, "the reason")
    frames = grabber.counts["frames"]
    camera(port=first.port)
    wait_for(lambda: grabber.counts["frames"] > frames, "more frames")
    assert (grabber.failure, grabber.counts["reconnects"]) == ("", 1)


def test_a_camera_that_hangs_is_given_up_and_found_again_when_it_answers(camera, grabbing):
    hung = camera()
    grabber = playing(grabbing, f"rtsp://{hung.address}")
    wait_for(lambda: grabber.counts["frames"] > 5, "frames")
    hung.flowing.clear()
    wait_for(lambda: "gives no more frames" in grabber.failure, "the reason")
    newest = grabber.newest(0.0)
    assert newest.stamp_ns - hung.sent_ns < 1e9, "what the decoder still holds is old, whatever the time"
    frames = grabber.counts["frames"]
    hung.flowing.set()
    wait_for(lambda: grabber.counts["frames"] > frames, "more frames")
    assert grabber.failure == ""
