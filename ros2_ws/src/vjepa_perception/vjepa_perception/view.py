"""Crop, rotation and flip of a camera's picture, before all other uses. NumPy alone: no ROS, no torch."""

from dataclasses import dataclass

import numpy as np

from vjepa_interfaces.errors import VjepaError, unknown_name

ROTATIONS = (0, 90, 180, 270)
FLIPS = ("", "horizontal", "vertical", "both")


class ViewError(VjepaError):
    """A view with invalid values, or one beyond the camera's picture."""


@dataclass(frozen=True)
class View:
    """Crop, then rotate, then flip.

    Attributes:
        crop: x and y of the top left corner, width and height, in pixels of the camera's picture; empty for all of it.
        rotate: degrees clockwise: 0, 90, 180 or 270.
        flip: `horizontal` swaps left and right, `vertical` top and bottom, `both` does both; empty for neither.

    Raises:
        ViewError: a value is invalid.
    """

    crop: tuple[int, ...] = ()
    rotate: int = 0
    flip: str = ""

    def __post_init__(self) -> None:
        if self.crop and (len(self.crop) != 4 or min(self.crop) < 0 or min(self.crop[2:]) < 1):
            raise ViewError(
                f"crop is {list(self.crop)}; expected [x, y, width, height] in pixels, x and y at least 0, "
                "width and height at least 1, or nothing for the whole picture"
            )
        if self.rotate not in ROTATIONS:
            raise ViewError(f"rotate is {self.rotate}; expected 0, 90, 180 or 270 degrees clockwise")
        if self.flip not in FLIPS:
            raise ViewError(f"{unknown_name('flip', self.flip, FLIPS[1:])}, or nothing for none")

    @property
    def turned(self) -> bool:
        """Whether the picture is rotated or flipped."""
        return bool(self.rotate or self.flip)

    def apply(self, rgb: np.ndarray) -> np.ndarray:
        """Return the view of a picture, uint8 of shape (height, width, 3), as an array of its own rows.

        Raises:
            ViewError: the crop reaches beyond the picture.
        """
        if self.crop:
            x, y, width, height = self.crop
            if y + height > rgb.shape[0] or x + width > rgb.shape[1]:
                raise ViewError(
                    f"crop {list(self.crop)} reaches to ({x + width}, {y + height}), beyond the picture of "
                    f"{rgb.shape[1]} x {rgb.shape[0]} pixels; expected a crop that lies inside"
                )
            rgb = rgb[y : y + height, x : x + width]
        rgb = np.rot90(rgb, -self.rotate // 90)
        if self.flip in ("horizontal", "both"):
            rgb = rgb[:, ::-1]
        if self.flip in ("vertical", "both"):
            rgb = rgb[::-1]
        return np.ascontiguousarray(rgb)
