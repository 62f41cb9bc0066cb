"""Codec of colour images: `sensor_msgs/Image` and `CompressedImage` to RGB arrays, and RGB arrays to `Image`.

The simulator and the camera node publish rgb8, which is read as a view and needs neither OpenCV nor ROS. Other
encodings are converted by cv_bridge if it works (a sourced ROS 2), else by rosbags-image. Both need OpenCV, which is
imported only when such an image arrives. The message classes may be rclpy's or rosbags'.
"""

import functools
import importlib.util
import struct
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from vjepa_interfaces.errors import VjepaError, unknown_name
from vjepa_interfaces.jpeg_damage import damage, jpeg_warnings
from vjepa_interfaces.messages import as_message_bytes
from vjepa_interfaces.transport_label import ImageCodecError as ImageCodecError
from vjepa_interfaces.transport_label import ImageLabelError, decoded_encoding, raw_encoding

LAYOUTS: dict[str, tuple[type[np.unsignedinteger], int]] = {
    "rgb8": (np.uint8, 3),
    "bgr8": (np.uint8, 3),
    "rgba8": (np.uint8, 4),
    "bgra8": (np.uint8, 4),
    "mono8": (np.uint8, 1),
    "rgb16": (np.uint16, 3),
    "bgr16": (np.uint16, 3),
    "rgba16": (np.uint16, 4),
    "bgra16": (np.uint16, 4),
    "mono16": (np.uint16, 1),
    "uyvy": (np.uint8, 2),
    "yuyv": (np.uint8, 2),
    "yuv422": (np.uint8, 2),
    "yuv422_yuy2": (np.uint8, 2),
}
"""Sample type, and samples for each pixel, of every encoding that defines its colours."""
for _pattern in ("rggb", "bggr", "gbrg", "grbg"):
    LAYOUTS[f"bayer_{_pattern}8"] = (np.uint8, 1)
    LAYOUTS[f"bayer_{_pattern}16"] = (np.uint16, 1)


class DamagedJpegError(ImageCodecError):
    """A JPEG of which only a part can be decoded; the rest of the picture would be grey."""


MAX_PIXELS = 2**26
"""The most pixels of a compressed image, twice those of 8K: its number of bytes does not bound its memory."""
_JPEG_FRAMES = {0xC0 + kind for kind in range(16)} - {0xC4, 0xC8, 0xCC}
"""Markers of the segment that contains a JPEG's size."""


def image_to_rgb(message: Any, backend: str | None = None) -> np.ndarray:
    """Return the picture in a `sensor_msgs/Image`: uint8, shape (height, width, 3), red first.

    An rgb8 image is returned as a view of the message's bytes, rows `step` bytes apart; do not write into it. 16-bit
    samples are scaled to 8 bits. 4:2:2 chroma and Bayer patterns are interpolated by OpenCV.

    Args:
        message: the image, of rclpy's class, rosbags' class or one with the same fields.
        backend: the converter for encodings other than rgb8, one of `BACKENDS`; None takes the first that works.

    Raises:
        ImageCodecError: the encoding is not in `LAYOUTS`, the size is zero, the bytes do not match height x step, or no
            converter is installed.
    """
    samples = _samples(message)
    if message.encoding == "rgb8":
        return samples
    # Backends treat row padding and foreign byte order differently, so they get neither.
    encoding = message.encoding
    if encoding in ("uyvy", "yuyv", "yuv422_yuy2"):
        # The only name for 4:2:2 that every release of cv_bridge knows is yuv422, which has the chroma first.
        samples = samples if encoding == "uyvy" else samples[..., ::-1]
        encoding = "yuv422"
    samples = np.ascontiguousarray(samples, samples.dtype.newbyteorder("="))
    tight = SimpleNamespace(
        height=message.height,
        width=message.width,
        encoding=encoding,
        is_bigendian=sys.byteorder == "big",
        step=samples.strides[0],
        data=samples.reshape(-1).view(np.uint8),
    )
    try:
        rgb = _converter(backend)(tight)
    except VjepaError:
        raise
    except Exception as error:
        # OpenCV and both converters raise classes of their own, which must not be imported here.
        raise ImageCodecError(
            f"{message.width} x {message.height} image of encoding '{message.encoding}' was not converted: {error}"
        ) from error
    return np.ascontiguousarray(rgb, np.uint8)


def compressed_to_rgb(message: Any) -> np.ndarray:
    """Return the picture in a `sensor_msgs/CompressedImage` (JPEG, PNG): uint8, shape (height, width, 3), red first.

    The label, `format`, defines the content of the file, as `transport_label` explains. A Bayer pattern is interpolated
    like that of the raw topic. An orientation in the file (EXIF) is not applied, whatever the label: the raw topic has
    the sensor's pixels, and camera_info describes these. The function needs OpenCV, whose decoder cv_bridge and
    rosbags-image use too.

    Args:
        message: the image, of rclpy's class, rosbags' class or one with the same fields.

    Raises:
        DamagedJpegError: a part of the picture is missing.
        ImageLabelError: the label names an encoding without known colours (such as a depth image's), contradicts the
            picture, or leaves its colours open.
        ImageCodecError: the bytes are no picture, or OpenCV is not installed.
    """
    source = raw_encoding(message.format)
    if source is not None and source not in LAYOUTS:
        raise ImageLabelError(
            f"compressed image has the label '{message.format}': {unknown_name('image encoding', source, LAYOUTS)}"
        )
    try:
        import cv2
    except ImportError as error:
        raise ImageCodecError(f"compressed images need OpenCV, which is not importable: {error}; {_INSTALL}") from error
    data = np.frombuffer(message.data, np.uint8)
    size = stated_size(data.tobytes())
    if size is not None and size[0] * size[1] > MAX_PIXELS:
        raise ImageCodecError(
            f"compressed image of {data.size} bytes states {size[0]} x {size[1]} pixels; expected at most {MAX_PIXELS}"
        )
    try:
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION if source is None else cv2.IMREAD_UNCHANGED
        with jpeg_warnings() as warnings:
            decoded = cv2.imdecode(data, flags) if size is not None else None
    except cv2.error as error:
        raise ImageCodecError(f"compressed image of format '{message.format}' was not decoded: {error}") from error
    if missing := damage(warnings, data.tobytes()):
        raise DamagedJpegError(
            f"compressed image of format '{message.format}' is a damaged JPEG, of which a part alone can be decoded "
            f"({missing}); expected a whole file"
        )
    if decoded is None:
        raise ImageCodecError(
            f"compressed image of format '{message.format}' has {data.size} bytes that are no picture; "
            "expected a whole JPEG or PNG file"
        )
    samples = np.atleast_3d(decoded)
    height, width, channels = samples.shape
    encoding = "bgr8" if source is None else decoded_encoding(message.format, channels, 8 * samples.itemsize)
    if encoding == "bgr8":
        return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    raw = SimpleNamespace(
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=sys.byteorder == "big",
        step=samples.strides[0],
        data=samples.reshape(-1).view(np.uint8),
    )
    return image_to_rgb(raw)


def fill_image(message: Any, rgb: np.ndarray) -> None:
    """Write a picture, uint8 of shape (height, width, 3), into a `sensor_msgs/Image` as rgb8.

    Raises:
        ImageCodecError: the array has another shape or type.
    """
    rgb = np.asarray(rgb)
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or not rgb.size:
        raise ImageCodecError(
            f"picture has shape {rgb.shape} and type {rgb.dtype}; expected (height, width, 3), not empty, and uint8"
        )
    message.height, message.width = rgb.shape[:2]
    message.encoding = "rgb8"
    message.is_bigendian = 0
    message.step = rgb.shape[1] * 3
    message.data = as_message_bytes(rgb)


def stated_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height from the header of a JPEG or PNG file; None if there is no such header."""
    if data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) >= 24:
        return struct.unpack(">II", data[16:24])
    if data[:2] != b"\xff\xd8":
        return None
    position = 2
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, position + 5)
            return width, height
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:  # Padding, and markers without a segment.
            position += 1 if marker == 0xFF else 2
        else:
            position += 2 + struct.unpack_from(">H", data, position + 2)[0]
    return None


def _samples(message: Any) -> np.ndarray:
    """Return the message's samples, (height, width, channels), as a view in the message's byte order."""
    if message.encoding not in LAYOUTS:
        raise ImageCodecError(str(unknown_name("image encoding", message.encoding, LAYOUTS)))
    kind, channels = LAYOUTS[message.encoding]
    dtype = np.dtype(kind).newbyteorder(">" if message.is_bigendian else "<")
    height, width, step = message.height, message.width, message.step
    row = width * channels * dtype.itemsize
    data = np.frombuffer(message.data, np.uint8)
    if height < 1 or width < 1 or step < row or data.size != height * step:
        raise ImageCodecError(
            f"{width} x {height} image of encoding '{message.encoding}' has step {step} and {data.size} bytes; "
            f"expected a size above zero, a step of at least {row} and height x step = {height * step} bytes"
        )
    strides = (step, channels * dtype.itemsize, dtype.itemsize)
    return np.ndarray((height, width, channels), dtype, data, strides=strides)


_CV_BRIDGE_PROBE = """
import numpy
from types import SimpleNamespace
from cv_bridge import CvBridge
image = SimpleNamespace(height=1, width=1, encoding="bgr8", is_bigendian=0, step=3, data=numpy.zeros(3, numpy.uint8))
CvBridge().imgmsg_to_cv2(image, "rgb8")
"""


@functools.cache
def _cv_bridge_exit_code() -> int:
    # A cv_bridge compiled for numpy 1 (Jazzy's is) imports under numpy 2 and then kills the process: try it in another.
    return subprocess.run([sys.executable, "-c", _CV_BRIDGE_PROBE], capture_output=True, check=False).returncode


def _load_cv_bridge() -> Callable[..., Any]:
    if importlib.util.find_spec("cv_bridge") is None:
        raise ImportError("no module of that name")
    if code := _cv_bridge_exit_code():
        raise ImportError(f"installed, but fails beside numpy {np.__version__} (exit code {code})")
    from cv_bridge import CvBridge

    return functools.partial(CvBridge().imgmsg_to_cv2, desired_encoding="rgb8")


def _load_rosbags() -> Callable[..., Any]:
    from rosbags.image import image_to_cvimage

    return functools.partial(image_to_cvimage, color_space="rgb8")


BACKENDS: dict[str, Callable[[], Callable[..., Any]]] = {"cv_bridge": _load_cv_bridge, "rosbags": _load_rosbags}
"""Converters by name, in order of preference; each value imports a converter and returns its function of a message."""

_INSTALL = "install ROS 2's cv_bridge, or: pip install 'rosbags-image[opencv-headless]'"


@functools.cache
def _converter(backend: str | None) -> Callable[..., Any]:
    reasons = []
    for name in BACKENDS if backend is None else (backend,):
        try:
            return BACKENDS[name]()
        except ImportError as error:
            reasons.append(f"{name}: {str(error).splitlines()[0]}")
    raise ImageCodecError(
        f"encodings other than rgb8 need cv_bridge or rosbags-image; neither can be used "
        f"({'; '.join(reasons)}); {_INSTALL}"
    )
