"""What a camera gives, and what the encoder sees of it: for `vjepa camera check`. No ROS."""

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
    """What came of a look at a source.

    Attributes:
        raw: the last frame as it comes, uint8 of shape (height, width, 3), red first.
        seen: what the encoder sees of it, uint8 of shape (side, side, 3), red first.
        view_size: width and height of the view, before the encoder's resize.
        encoder: name of the encoder.
        frames: grabbed.
        rate_hz: frames a second between the first and the last; 0 of a single one.
    """

    raw: np.ndarray
    seen: np.ndarray
    view_size: tuple[int, int]
    encoder: str
    frames: int
    rate_hz: float


def check_camera(source: str, view: View, encoder: str, fps: float = 0.0, seconds: float = 1.0) -> CameraCheck:
    """Open `source`, grab frames for so many `seconds`, and return what there is to see.

    Args:
        source: a device, a video file or an address.
        view: crop, rotation and flip.
        encoder: bundle, folder or hub id, of which the preprocessing is read.
        fps: frames a second, asked of a device, or a file's in place of its own; 0 asks for nothing.
        seconds: how long to look, from the first frame on.

    Raises:
        VjepaError: no such source, no frames from it, no such encoder, or a crop beyond the picture.
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
    """Write the raw frame and, right of it and as high, what the encoder sees, as a picture file.

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
