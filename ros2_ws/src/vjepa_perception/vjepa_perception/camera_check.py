"""The frames of a camera, and the encoder's view of them: for `vjepa camera check`. No ROS."""

import time
from dataclasses import dataclass

import cv2
import numpy as np

from vjepa_perception.checkpoint import find_checkpoint
from vjepa_perception.video import Video, VideoError
from vjepa_perception.view import View

__all__ = ["CameraCheck", "View", "check_camera", "preview"]


@dataclass(frozen=True)
class CameraCheck:
    """The result of a camera check.

    Attributes:
        raw: the last frame of the source, uint8 of shape (height, width, 3), red first.
        seen: the encoder's view of that frame, uint8 of shape (side, side, 3), red first.
        view_size: width and height of the view, before the encoder's resize.
        encoder: name of the encoder.
        frames: number of grabbed frames.
        rate_hz: frames a second between the first and the last; 0 for a single frame.
    """

    raw: np.ndarray
    seen: np.ndarray
    view_size: tuple[int, int]
    encoder: str
    frames: int
    rate_hz: float


def check_camera(source: str, view: View, encoder: str, fps: float = 0.0, seconds: float = 1.0) -> CameraCheck:
    """Open `source`, grab frames for some `seconds`, and return the last frame and the encoder's view of it.

    Args:
        source: a device, a video file or an address.
        view: crop, rotation and flip.
        encoder: bundle, folder or hub id; only its preprocessing is read.
        fps: frames a second that a device is asked for, or that replace a file's own; 0 for none.
        seconds: how long to grab, from the first frame on.

    Raises:
        VjepaError: the source or the encoder does not exist, the source gives no frames, or the crop is beyond the
            picture.
    """
    checkpoint = find_checkpoint(encoder)
    with Video(source, fps) as video:
        raw = video.first_frame()
        started = last = time.monotonic()
        frames = 1
        while last - started < seconds and video.grab():
            last, decoded = time.monotonic(), video.retrieve()
            raw, frames = (raw, frames) if decoded is None else (decoded, frames + 1)
    picture = view.apply(raw)
    preprocessing = checkpoint.preprocessing
    return CameraCheck(
        raw=raw,
        seen=preprocessing.picture(preprocessing.apply(picture)),
        view_size=(picture.shape[1], picture.shape[0]),
        encoder=checkpoint.name,
        frames=frames,
        rate_hz=(frames - 1) / (last - started) if last > started else 0.0,
    )


def preview(check: CameraCheck, path: str) -> None:
    """Write a picture file with the raw frame, and the encoder's view on its right at the same height.

    Raises:
        VideoError: the file cannot be written.
    """
    height = check.raw.shape[0]
    seen = cv2.resize(check.seen, (height, height), interpolation=cv2.INTER_NEAREST)
    both = np.concatenate([check.raw, np.full((height, 8, 3), 255, np.uint8), seen], axis=1)
    try:
        written = cv2.imwrite(path, cv2.cvtColor(both, cv2.COLOR_RGB2BGR))
    except cv2.error:
        written = False
    if not written:
        raise VideoError(
            f"picture {path} cannot be written; expected a name such as preview.png in a folder that exists"
        )
