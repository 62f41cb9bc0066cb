"""Compressed pictures by the label that image_transport gives them: what the raw topic gives, or a refusal."""

from types import SimpleNamespace

import numpy as np
import pytest

from vjepa_interfaces.image_codec import LAYOUTS, compressed_to_rgb, image_to_rgb
from vjepa_interfaces.transport_label import ImageCodecError, ImageLabelError

cv2 = pytest.importorskip("cv2", reason="OpenCV is not importable here")

SIZE = 16
COLOUR = {"r": 220, "g": 30, "b": 10}
COLOURED = [f"{order}{bits}" for order in ("rgb", "bgr", "rgba", "bgra") for bits in (8, 16)]
GREY = [name for name in LAYOUTS if name.startswith(("mono", "bayer_"))]
YUV = [name for name in LAYOUTS if "yuv" in name or "yuyv" in name or "uyvy" in name]


def raw_image(encoding: str) -> SimpleNamespace:
    """An image of one colour, as a driver publishes it raw."""
    kind, _ = LAYOUTS[encoding]
    scale = 257 if kind is np.uint16 else 1
    if encoding.startswith("bayer_"):
        tile = np.array([COLOUR[letter] for letter in encoding[6:10]]).reshape(2, 2)
        samples = np.tile(tile, (SIZE // 2, SIZE // 2))[..., None]
    else:
        letters = "g" if encoding.startswith("mono") else encoding.rstrip("0123456789")
        samples = np.broadcast_to([COLOUR.get(letter, 255) for letter in letters], (SIZE, SIZE, len(letters)))
    samples = np.ascontiguousarray(samples * scale, kind)
    data = samples.view(np.uint8).reshape(-1)
    step = data.size // SIZE
    return SimpleNamespace(height=SIZE, width=SIZE, encoding=encoding, is_bigendian=0, step=step, data=data)


def transported(encoding: str, codec: str) -> SimpleNamespace:
    """What compressed_image_transport makes of that image: colours become blue first, all else stays as it is."""
    raw = raw_image(encoding)
    kind, channels = LAYOUTS[encoding]
    samples = raw.data.view(kind).reshape(SIZE, SIZE, channels)
    label = f"{encoding}; {codec} compressed "
    if encoding in COLOURED:
        samples = samples[..., :3] if encoding.startswith("bgr") else samples[..., 2::-1]
        bits = 8 if codec == "jpeg" else 8 * samples.itemsize
        samples = (samples // 257).astype(np.uint8) if bits < 8 * samples.itemsize else samples
        label += f"bgr{bits}"
    extension, quality = (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 99]) if codec == "jpeg" else (".png", [])
    if codec == "jpeg" and samples.dtype == np.uint16:
        samples = np.minimum(samples, 255).astype(np.uint8)  # As cv::imencode does with what a codec does not take.
    _, data = cv2.imencode(extension, np.ascontiguousarray(samples), quality)
    return SimpleNamespace(format=label, data=data.tobytes())


@pytest.mark.parametrize("codec", ["jpeg", "png"])
@pytest.mark.parametrize("encoding", COLOURED + GREY)
def test_a_transported_picture_is_that_of_the_raw_topic_or_refused(encoding, codec):
    message = transported(encoding, codec)
    if codec == "jpeg" and encoding in GREY and encoding.endswith("16"):
        with pytest.raises(ImageLabelError, match=f"label '{message.format}' .*16 bits were cut to 8"):
            compressed_to_rgb(message)
        return
    expected = image_to_rgb(raw_image(encoding)).astype(int)
    assert np.abs(compressed_to_rgb(message).astype(int) - expected).max() <= (12 if codec == "jpeg" else 1)


@pytest.mark.parametrize("encoding", [*YUV, "bayer_rggb8"])
def test_a_picture_that_was_converted_to_colours_needs_no_raw_encoding(encoding):
    _, data = cv2.imencode(".png", np.full((SIZE, SIZE, 3), (10, 30, 220), np.uint8))
    message = SimpleNamespace(format=f"{encoding}; png compressed bgr8", data=data.tobytes())
    np.testing.assert_array_equal(compressed_to_rgb(message), np.full((SIZE, SIZE, 3), (220, 30, 10)))


@pytest.mark.parametrize(
    ("label", "channels", "kind"),
    [
        *((f"{name}; {codec} compressed ", 3, np.uint8) for name in COLOURED[::2] + YUV for codec in ("jpeg", "png")),
        ("rgb8; jpeg", 3, np.uint8),
        ("rgb8;png compressed rgb8", 3, np.uint8),
        ("mono8; png compressed ", 3, np.uint8),
        ("mono8; png compressed", 1, np.uint16),
        ("mono16; png compressed ", 1, np.uint8),
        ("bayer_rggb8; png compressed ", 3, np.uint8),
        ("bayer_rggb8; png compressed bgr8", 1, np.uint8),
        ("bayer_grbg16; png compressed ", 1, np.uint8),
        ("rgb16; png compressed bgr16", 3, np.uint8),
        ("bgr8; png compressed bgr8", 3, np.uint16),
        ("bayer_rggb8", 1, np.uint8),
        ("16UC1", 1, np.uint16),
        ("16UC1; png compressed ", 1, np.uint16),
        ("8UC3; png compressed ", 3, np.uint8),
        ("32FC1; compressedDepth png", 1, np.uint16),
        ("mono16; compressedDepth", 1, np.uint16),
        ("16UC1; compressedDepth rvl", 1, np.uint16),
        ("bayer_xggb8; png compressed ", 1, np.uint8),
    ],
)
def test_a_label_that_leaves_the_colours_open_is_refused_by_name(label, channels, kind):
    _, data = cv2.imencode(".png", np.full((SIZE, SIZE, channels), 77, kind))
    with pytest.raises(ImageLabelError) as refusal:
        compressed_to_rgb(SimpleNamespace(format=label, data=data.tobytes()))
    assert f"label '{label}'" in str(refusal.value)
    assert isinstance(refusal.value, ImageCodecError)


@pytest.mark.parametrize("label", ["", "jpeg", "jpg", "png", "mono8", "bgr8", "rgb8"])
@pytest.mark.parametrize("bits", [8, 16])
def test_the_codec_alone_gives_the_pictures_own_colours(label, bits):
    picture = np.full((SIZE, SIZE, 3), (10, 30, 220), np.uint8)
    samples = picture if bits == 8 else picture.astype(np.uint16) * 257
    _, data = cv2.imencode(".png", samples)
    decoded = compressed_to_rgb(SimpleNamespace(format=label, data=data.tobytes()))
    assert np.abs(decoded.astype(int) - (220, 30, 10)).max() <= 1


@pytest.mark.parametrize(
    "label", ["rgb8; png compressed ", "rgb8; png compressed bgr8", "mono8; png", "mono8; png compressed mono8"]
)
def test_a_grey_picture_has_no_colours_to_confuse(label):
    _, data = cv2.imencode(".png", np.full((SIZE, SIZE), 77, np.uint8))
    decoded = compressed_to_rgb(SimpleNamespace(format=label, data=data.tobytes()))
    np.testing.assert_array_equal(decoded, np.full((SIZE, SIZE, 3), 77))
