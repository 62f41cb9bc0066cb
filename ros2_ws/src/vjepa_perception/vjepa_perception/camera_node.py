"""A camera, a video file or a network stream as ROS topics: the node that replaces the simulation.

One thread captures and stamps, and another publishes the newest frame. So neither a slow subscriber nor a broken cable
stops the node. OpenCV reads the source; torch is not needed.
"""

import threading
import time
from typing import Any

from sensor_msgs.msg import CameraInfo, Image

from vjepa_interfaces import topics
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.image_codec import fill_image
from vjepa_interfaces.managed_node import OK, WARN, ManagedNode, run
from vjepa_interfaces.stamps import set_stamp
from vjepa_perception.calibration import Calibration, read_calibration
from vjepa_perception.camera_parameters import CameraParameters
from vjepa_perception.grabber import Frame, Grabber
from vjepa_perception.video import Video, described
from vjepa_perception.view import View

RATE_TOLERANCE = 0.1
RATE_WINDOW_S, RATE_FRAMES = 5.0, 50
"""The rate is measured over this many seconds, and longer if these contain too few frames for ten per cent accuracy."""
SILENCE_S = 2.0


class CameraNode(ManagedNode):
    """`camera`: one source, one thread that captures, one that publishes."""

    Parameters = CameraParameters

    def __init__(self) -> None:
        super().__init__("camera")
        self._grabber: Grabber | None = None

    def setup(self) -> None:
        """Check that the source gives frames that fit view and calibration; then close it until activation."""
        parameters = self.parameters
        self._view = View(parameters.crop, parameters.rotate, parameters.flip)
        with self._open() as video:
            picture = video.first_frame()
        height, width = self._view.apply(picture).shape[:2]
        self._size, self._raw_shape = (width, height), picture.shape
        self._calibration, self._calibrated = self._read_calibration(picture.shape[1], picture.shape[0])
        self._image = self.publisher(topics.IMAGE)
        self._info = self.publisher(topics.CAMERA_INFO)

    def _open(self) -> Video:
        return Video(self.parameters.source, self.parameters.fps)

    def _read_calibration(self, width: int, height: int) -> tuple[Calibration | None, str]:
        """Return the calibration of the view, and a text about it for diagnostics."""
        if not self.parameters.calibration:
            return None, "none"
        whole = read_calibration(self.parameters.calibration, width, height)
        if self._view.turned:
            return None, "left out: it does not hold for a picture that is rotated or flipped"
        return whole.cropped(self._view.crop), self.parameters.calibration

    def start(self) -> None:
        """Open the source and publish its frames."""
        parameters = self.parameters
        self._refusal = ""
        self._started_s = time.monotonic()
        self._window_s = RATE_WINDOW_S
        if parameters.expected_rate_hz:
            self._window_s = max(RATE_WINDOW_S, RATE_FRAMES / parameters.expected_rate_hz)
        self._grabber = Grabber(
            self._open,
            parameters.source,
            lambda: self.get_clock().now().nanoseconds,
            loop=parameters.loop,
            reconnect_s=parameters.reconnect_s,
            rate_window_s=self._window_s,
        )
        self._grabber.start()
        self._publisher = threading.Thread(target=self._publish_newest, name="publish", daemon=True)
        self._publisher.start()

    def stop(self) -> None:
        """Close the source."""
        if self._grabber is not None:
            self._grabber.stop()
            self._publisher.join()
            self._grabber = None

    def _publish_newest(self) -> None:
        grabber = self._grabber
        while grabber is not None and (frame := grabber.newest()) is not None:
            try:
                self._publish(frame)
                self._refusal = ""
            except VjepaError as error:
                self._refusal = f"frame refused: {error}"
                grabber.counts["refused_frames"] += 1

    def _publish(self, frame: Frame) -> None:
        """Publish a frame's view and the camera's calibration under one stamp."""
        picture = self._view.apply(frame.rgb)
        height, width = picture.shape[:2]
        image = Image()
        image.header.frame_id = self.parameters.frame_id
        set_stamp(image.header.stamp, frame.stamp_ns)
        fill_image(image, picture)
        info = CameraInfo(header=image.header, height=height, width=width)
        self._size = (width, height)
        if self._calibration is not None and frame.rgb.shape != self._raw_shape:
            self._calibration, self._calibrated = None, "left out: the camera's picture has changed its size"
        if (calibration := self._calibration) is not None:
            info.distortion_model = calibration.distortion_model
            info.d, info.k, info.r, info.p = map(list, (calibration.d, calibration.k, calibration.r, calibration.p))
        self._image.publish(image)
        self._info.publish(info)

    def diagnose(self) -> tuple[bytes, str, dict[str, Any]]:
        """Return the number of frames, their rate, and the fault of the source."""
        values: dict[str, Any] = {"source": described(self.parameters.source), "calibration": self._calibrated}
        values["size"] = "{} x {}".format(*self._size)
        grabber = self._grabber
        if not self.active or grabber is None:
            return OK, "configured", values
        now = time.monotonic()
        rate_hz = grabber.rate.rate(now)
        names = ("frames", "dropped_frames", "undecoded_frames", "refused_frames", "reconnects")
        values |= {name: grabber.counts[name] for name in names}
        silence_s = now - (grabber.seen_s or self._started_s)
        values |= {"rate_hz": rate_hz, "frame_age_s": silence_s, "ended": grabber.ended}
        if grabber.failure or self._refusal:
            return WARN, grabber.failure or self._refusal, values
        if silence_s > SILENCE_S:
            return WARN, f"no frame for {silence_s:.0f} s from {values['source']}", values
        expected = self.parameters.expected_rate_hz
        measured = grabber.since_s and now - grabber.since_s > self._window_s
        if expected and measured and abs(rate_hz - expected) > RATE_TOLERANCE * expected:
            return WARN, f"{rate_hz:.1f} frames a second; expected_rate_hz is {expected:g}", values
        return OK, "capturing", values


def main() -> None:
    """Run `camera` until it is told to stop."""
    run(CameraNode)
