"""A network stream: a camera of the tests' own speaks RTSP over a real socket, and OpenCV is its client."""

import base64
import contextlib
import socket
import struct
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from vjepa_perception.grabber import Grabber
from vjepa_perception.video import Video, VideoError

DEADLINE_S = 30.0
RATE_HZ = 20.0
FRAMES, STEP = 12, 16
"""Frame i of FRAMES is grey of level i * STEP, with red at the left top; the next round begins with a whole picture."""
USER, PASSWORD = "operator", "a-secret"


def encoded_frames(folder: Path) -> list[bytes]:
    """Return the frames as MPEG-4 (part 2), taken out of an AVI file that OpenCV wrote."""
    path = folder / "stream.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"XVID"), RATE_HZ, (64, 48))
    for number in range(FRAMES):
        bgr = np.full((48, 64, 3), number * STEP, np.uint8)
        bgr[:24, :32] = (0, 0, 255)
        writer.write(bgr)
    writer.release()
    data, frames = path.read_bytes(), []
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
    """Return a function that starts to grab from an address; grabbing ends with the test."""
    started = []

    def start(address: str) -> Grabber:
        grabber = Grabber(lambda: Video(address), address, time.time_ns, reconnect_s=0.1)
        started.append(grabber)
        grabber.start()
        return grabber

    yield start
    for grabber in started:
        grabber.stop()


def number_of(rgb: np.ndarray) -> int:
    return round(float(rgb[-8:, -8:].mean()) / STEP)


def wait_for(condition, what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


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
    with pytest.raises(VideoError, match=r"video stream rtsp://\*\*\*@127.0.0.1:\d+/arm cannot be opened") as refused:
        Video(f"rtsp://{USER}:another@{camera.address}")
    assert "another" not in str(refused.value)


def test_a_camera_that_is_switched_off_is_opened_again_when_it_is_back(camera, grabbing):
    first = camera()
    grabber = grabbing(f"rtsp://{first.address}")
    wait_for(lambda: grabber.counts["frames"] > 5, "frames")
    first.close()
    wait_for(lambda: "cannot be opened" in grabber.failure, "the reason")
    frames = grabber.counts["frames"]
    camera(port=first.port)
    wait_for(lambda: grabber.counts["frames"] > frames, "more frames")
    assert (grabber.failure, grabber.counts["reconnects"]) == ("", 1)


def test_a_camera_that_hangs_is_given_up_and_found_again_when_it_answers(camera, grabbing):
    hung = camera()
    grabber = grabbing(f"rtsp://{hung.address}")
    wait_for(lambda: grabber.counts["frames"] > 5, "frames")
    hung.flowing.clear()
    wait_for(lambda: "gives no more frames" in grabber.failure, "the reason")
    newest = grabber.newest(0.0)
    assert newest.stamp_ns - hung.sent_ns < 1e9, "what the decoder still holds is old, whatever the time"
    frames = grabber.counts["frames"]
    hung.flowing.set()
    wait_for(lambda: grabber.counts["frames"] > frames, "more frames")
    assert grabber.failure == ""
