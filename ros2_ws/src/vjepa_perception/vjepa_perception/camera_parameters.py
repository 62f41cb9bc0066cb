"""The parameters of the node `camera`, without ROS."""

from dataclasses import dataclass
from typing import Annotated

from vjepa_interfaces import topics
from vjepa_interfaces.parameters import Range


@dataclass(frozen=True)
class CameraParameters:
    """Parameters of `camera`.

    Attributes:
        source: a device (`0` or `/dev/video0`), a video file, or an address such as `rtsp://HOST/PATH`. Or a reference
            to one of these: `env:NAME` for an environment variable, `@PATH` for a file. The stack sets it.
        fps: frames a second, asked of a device, or a file's in place of its own; 0 asks for nothing.
        crop: x, y, width and height in pixels of the camera's picture; empty for all of it.
        rotate: then turn it by so many degrees clockwise: 0, 90, 180 or 270.
        flip: then mirror it: `horizontal` (left and right), `vertical`, `both` or, empty, neither.
        frame_id: the frame in the messages' headers.
        loop: play a file again and again, as one take.
        calibration: YAML file as ROS's camera calibration writes it, of pictures of the camera's size; empty for an
            uncalibrated camera.
        reconnect_s: seconds between attempts to open a source that was lost.
        expected_rate_hz: a measured rate that differs from it by more than a tenth is a warning; 0 expects nothing. The
            stack sets the inverse of the planner's `control_period_s`, where a parameter file gives that.
    """

    source: str = ""
    fps: Annotated[float, Range(low=0.0)] = 0.0
    crop: tuple[int, ...] = ()
    rotate: int = 0
    flip: str = ""
    frame_id: str = topics.CAMERA_FRAME
    loop: bool = False
    calibration: str = ""
    reconnect_s: Annotated[float, Range(low=0.01)] = 1.0
    expected_rate_hz: Annotated[float, Range(low=0.0)] = 0.0
