"""A camera's calibration, read from the YAML file that ROS's camera calibration writes. No ROS, no torch."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.yaml_file import read_yaml


class CalibrationError(VjepaError):
    """A file that is no calibration, or a calibration for another picture."""


@dataclass(frozen=True)
class Calibration:
    """The fields of `sensor_msgs/CameraInfo` by their names there, matrices row by row.

    Attributes:
        width: width of the picture, pixels.
        height: height of the picture, pixels.
        distortion_model: such as `plumb_bob`.
        d: the model's coefficients.
        k: 3 x 3, the camera matrix: focal lengths and principal point, pixels.
        r: 3 x 3, the rotation that rectifies.
        p: 3 x 4, the projection of the rectified picture, pixels.
    """

    width: int
    height: int
    distortion_model: str
    d: tuple[float, ...]
    k: tuple[float, ...]
    r: tuple[float, ...]
    p: tuple[float, ...]

    def cropped(self, crop: tuple[int, ...]) -> "Calibration":
        """Return the calibration of the part `crop` (x, y, width, height) of the picture; empty means all of it.

        A crop moves only the principal point, because distortion belongs to rays and not to pixels.
        """
        if not crop:
            return self
        x, y, width, height = crop
        k, p = list(self.k), list(self.p)
        for matrix, row_length in ((k, 3), (p, 4)):
            matrix[2] -= x
            matrix[row_length + 2] -= y
        return dataclasses.replace(self, width=width, height=height, k=tuple(k), p=tuple(p))


def read_calibration(path: str, width: int, height: int) -> Calibration:
    """Return the calibration in the file `path`, as camera_calibration_parsers writes it.

    Args:
        path: YAML with `image_width`, `image_height`, `camera_matrix`, `distortion_model`, `distortion_coefficients`,
            `rectification_matrix` and `projection_matrix`.
        width: width of the camera's picture, before any crop, pixels.
        height: height of the camera's picture, before any crop, pixels.

    Raises:
        CalibrationError: the file does not exist, a field is missing or has another size, or the calibration is for
            another picture size.
    """
    fields = read_yaml(path, "calibration", CalibrationError)
    if not isinstance(fields, dict):
        raise CalibrationError(f"calibration {path} has no fields; expected a file as ROS's camera_calibration writes")
    size = (fields.get("image_width"), fields.get("image_height"))
    if size != (width, height):
        raise CalibrationError(
            f"calibration {path} is of pictures of {size[0]} x {size[1]} pixels, but the camera's have "
            f"{width} x {height}; calibrate at that size, or leave 'calibration' empty"
        )
    return Calibration(
        width=width,
        height=height,
        distortion_model=str(fields.get("distortion_model", "plumb_bob")),
        d=_matrix(path, fields, "distortion_coefficients", None),
        k=_matrix(path, fields, "camera_matrix", 9),
        r=_matrix(path, fields, "rectification_matrix", 9),
        p=_matrix(path, fields, "projection_matrix", 12),
    )


def _matrix(path: str, fields: dict[str, Any], name: str, size: int | None) -> tuple[float, ...]:
    data = fields[name].get("data") if isinstance(fields.get(name), dict) else None
    numbers = data if isinstance(data, list) else []
    finite = all(type(v) in (int, float) and math.isfinite(v) for v in numbers)
    if not isinstance(data, list) or not finite or (size is not None and len(numbers) != size):
        expected = "finite numbers" if size is None else f"{size} finite numbers"
        raise CalibrationError(f"calibration {path} has {name} {fields.get(name)}; expected 'data' with {expected}")
    return tuple(float(v) for v in numbers)
