"""One suite for the image codec, run on each converter that is importable here."""

import array
import os
import struct
import subprocess
import sys
import zlib
from types import SimpleNamespace

import numpy as np
import pytest

from vjepa_interfaces import image_codec
from vjepa_interfaces.image_codec import BACKENDS, LAYOUTS, compressed_to_rgb, fill_image, image_to_rgb
from vjepa_interfaces.jpeg_damage import jpeg_warnings

HEIGHT, WIDTH = 6, 8


def image(encoding: str, samples: np.ndarray, padding: int = 0, is_bigendian: bool = False) -> SimpleNamespace:
    """An Image message's fields, with `padding` bytes of 0xEE after each row."""
    samples = samples.astype(samples.dtype.newbyteorder(">" if is_bigendian else "<"))
    rows = np.frombuffer(samples.tobytes(), np.uint8).reshape(len(samples), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=0xEE)
    return SimpleNamespace(
        height=len(samples),
        width=samples.shape[1],
        encoding=encoding,
        is_bigendian=int(is_bigendian),
        step=rows.shape[1],
        data=array.array("B", rows.tobytes()),
    )


def flat(encoding: str, *pixel: int) -> np.ndarray:
    """Samples of an image whose every pixel is `pixel`."""
    return np.broadcast_to(np.array(pixel, LAYOUTS[encoding][0]), (HEIGHT, WIDTH, len(pixel)))


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


@pytest.fixture(params=BACKENDS)
def backend(request) -> str:
    try:
        BACKENDS[request.param]()
    except ImportError as error:
        pytest.skip(f"{request.param} is not importable here: {str(error).splitlines()[0]}")
    return request.param


def test_rgb8_is_a_view_of_the_bytes_of_the_message(picture):
    message = image("rgb8", picture)
    rgb = image_to_rgb(message)
    np.testing.assert_array_equal(rgb, picture)
    message.data[0] ^= 255
    assert rgb[0, 0, 0] == picture[0, 0, 0] ^ 255


def test_rgb8_leaves_row_padding_out(picture):
    rgb = image_to_rgb(image("rgb8", picture, padding=5))
    np.testing.assert_array_equal(rgb, picture)
    assert rgb.strides[0] == WIDTH * 3 + 5


def test_rgb8_imports_neither_a_converter_nor_opencv_nor_ros():
    code = (
        "import sys, types, vjepa_interfaces.image_codec as codec\n"
        "m = types.SimpleNamespace(height=1, width=1, encoding='rgb8', is_bigendian=0, step=3, data=b'abc')\n"
        "assert codec.image_to_rgb(m).tobytes() == b'abc'\n"
        "found = {'cv2', 'cv_bridge', 'rosbags', 'rclpy', 'torch'} & set(sys.modules)\n"
        "assert not found, found\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=60)


def test_a_filled_message_reads_back_as_the_same_picture(picture):
    message = SimpleNamespace()
    fill_image(message, picture[:, ::-1])
    assert (message.encoding, message.step, message.height, message.width) == ("rgb8", WIDTH * 3, HEIGHT, WIDTH)
    np.testing.assert_array_equal(image_to_rgb(message), picture[:, ::-1])


def test_a_filled_message_of_rclpy_and_of_rosbags_reads_back_as_the_same_picture(picture):
    classes = []
    try:
        from sensor_msgs.msg import Image

        classes.append(Image)
    except ImportError:
        pass
    try:
        from rosbags.typesys import Stores, get_typestore

        types = get_typestore(Stores.ROS2_JAZZY).types
        header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](0, 0), "")
        classes.append(lambda: types["sensor_msgs/msg/Image"](header, 0, 0, "", 0, 0, np.zeros(0, np.uint8)))
    except ImportError:
        pass
    if not classes:
        pytest.skip("neither rclpy's nor rosbags' sensor_msgs is importable here")
    for make in classes:
        message = make()
        fill_image(message, picture)
        np.testing.assert_array_equal(image_to_rgb(message), picture)


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)]
)
def test_a_picture_of_another_shape_or_type_is_not_written(wrong):
    with pytest.raises(image_codec.ImageCodecError, match=r"expected \(height, width, 3\), not empty, and uint8"):
        fill_image(SimpleNamespace(), wrong)


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize(
    ("encoding", "order"), [("bgr8", [2, 1, 0]), ("rgba8", [0, 1, 2, 0]), ("bgra8", [2, 1, 0, 0]), ("rgb8", [0, 1, 2])]
)
def test_channels_come_out_red_first_and_without_alpha(backend, picture, encoding, order, padding):
    rgb = image_to_rgb(image(encoding, picture[..., order], padding), backend)
    np.testing.assert_array_equal(rgb, picture)


def test_mono_is_grey(backend, picture):
    rgb = image_to_rgb(image("mono8", picture[..., :1], padding=4), backend)
    np.testing.assert_array_equal(rgb, np.repeat(picture[..., :1], 3, axis=2))


@pytest.mark.parametrize("is_bigendian", [False, True])
@pytest.mark.parametrize(
    ("encoding", "order"),
    [
        ("mono16", [0]),
        ("rgb16", [0, 1, 2]),
        ("bgr16", [2, 1, 0]),
        ("rgba16", [0, 1, 2, 0]),
        ("bgra16", [2, 1, 0, 0]),
    ],
)
def test_sixteen_bits_are_scaled_to_eight_in_either_byte_order(backend, picture, encoding, order, is_bigendian):
    samples = picture[..., order].astype(np.uint16) * 257
    rgb = image_to_rgb(image(encoding, samples, 2, is_bigendian), backend)
    expected = np.repeat(picture[..., :1], 3, axis=2) if encoding == "mono16" else picture
    assert rgb.dtype == np.uint8
    # One converter rounds and the other truncates.
    assert np.abs(rgb.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("encoding", ["uyvy", "yuv422", "yuyv", "yuv422_yuy2"])
def test_yuv_422_comes_out_as_the_colour_it_encodes(backend, encoding):
    luma, blue, red = 81, 90, 240  # pure red in BT.601, video range
    uyvy = np.tile(np.array([blue, luma, red, luma], np.uint8), (HEIGHT, WIDTH // 2)).reshape(HEIGHT, WIDTH, 2)
    samples = uyvy if encoding in ("uyvy", "yuv422") else uyvy[..., ::-1]
    rgb = image_to_rgb(image(encoding, samples, padding=4), backend)
    assert np.abs(rgb.astype(int) - (254, 0, 0)).max() <= 2


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_come_out_as_the_colour_they_sample(backend, pattern, depth):
    colour = {"r": 200, "g": 120, "b": 40}
    tile = np.array([colour[letter] for letter in pattern], np.uint16).reshape(2, 2)
    samples = np.tile(tile, (HEIGHT // 2, WIDTH // 2))[..., None] * (257 if depth == 16 else 1)
    encoding = f"bayer_{pattern}{depth}"
    rgb = image_to_rgb(image(encoding, samples.astype(LAYOUTS[encoding][0]), padding=2), backend)
    assert np.abs(rgb.astype(int) - (200, 120, 40)).max() <= 1


@pytest.mark.parametrize("encoding", LAYOUTS)
def test_every_listed_encoding_gives_an_rgb_picture(backend, encoding):
    rgb = image_to_rgb(image(encoding, flat(encoding, *[7] * LAYOUTS[encoding][1])), backend)
    assert rgb.shape == (HEIGHT, WIDTH, 3)
    assert rgb.dtype == np.uint8


@pytest.mark.parametrize("encoding", ["32FC1", "8UC3", "16UC1", "nv21", "", "RGB8"])
def test_an_encoding_without_known_colours_is_refused_with_the_valid_ones(encoding):
    message = SimpleNamespace(height=1, width=1, encoding=encoding, is_bigendian=0, step=3, data=b"abc")
    with pytest.raises(image_codec.ImageCodecError, match=f"unknown image encoding '{encoding}'.*rgb8.*yuyv"):
        image_to_rgb(message)


@pytest.mark.parametrize(
    "change", [{"data": b"short"}, {"data": b""}, {"step": 3}, {"height": 0}, {"width": 0}, {"width": 2**31}]
)
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "mono16"])
def test_bytes_that_do_not_match_the_size_are_refused(encoding, change):
    message = image(encoding, flat(encoding, *[7] * LAYOUTS[encoding][1]))
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(image_codec.ImageCodecError, match=f"encoding '{encoding}' has step .* bytes; expected"):
        image_to_rgb(message)


def test_a_missing_converter_is_named_with_what_to_install(monkeypatch, picture):
    def missing():
        raise ImportError("No module named 'converter'")

    monkeypatch.setattr(image_codec, "BACKENDS", {"cv_bridge": missing, "rosbags": missing})
    monkeypatch.setattr(image_codec, "_converter", image_codec._converter.__wrapped__)
    with pytest.raises(image_codec.ImageCodecError, match=r"cv_bridge: No module.*rosbags: No module.*pip install"):
        image_to_rgb(image("bgr8", picture))
    np.testing.assert_array_equal(image_to_rgb(image("rgb8", picture)), picture)


def test_an_image_that_the_converter_fails_on_is_refused(monkeypatch, picture):
    def convert(message):
        raise RuntimeError("cvtColor failed")

    monkeypatch.setattr(image_codec, "_converter", lambda backend: convert)
    with pytest.raises(image_codec.ImageCodecError, match=r"8 x 6 image of encoding 'bgr8'.*cvtColor failed"):
        image_to_rgb(image("bgr8", picture))


@pytest.fixture
def cv2():
    return pytest.importorskip("cv2", reason="OpenCV is not importable here")


@pytest.mark.parametrize(("extension", "tolerance"), [(".png", 0), (".jpg", 6)])
@pytest.mark.parametrize("format", ["jpeg", "rgb8; jpeg compressed bgr8"])
def test_compressed_pictures_come_out_red_first(cv2, extension, tolerance, format):
    rgb = np.zeros((16, 16, 3), np.uint8)
    rgb[:, :] = (200, 100, 30)
    _, data = cv2.imencode(extension, rgb[..., ::-1])
    decoded = compressed_to_rgb(SimpleNamespace(format=format, data=array.array("B", data.tobytes())))
    assert np.abs(decoded.astype(int) - rgb).max() <= tolerance


def test_a_grey_compressed_picture_has_three_channels(cv2):
    _, data = cv2.imencode(".png", np.full((4, 5), 77, np.uint8))
    decoded = compressed_to_rgb(SimpleNamespace(format="mono8; png compressed", data=data.tobytes()))
    np.testing.assert_array_equal(decoded, np.full((4, 5, 3), 77))


@pytest.mark.parametrize("data", [b"", b"no picture", b"\xff\xd8\xff\xe0 cut"])
def test_compressed_bytes_that_are_no_picture_are_refused(cv2, data):
    with pytest.raises(image_codec.ImageCodecError, match=f"'jpeg' has {len(data)} bytes that are no picture"):
        compressed_to_rgb(SimpleNamespace(format="jpeg", data=data))


def jpeg(cv2, *options: int) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    return cv2.imencode(".jpg", cv2.resize(noise, (64, 48)), options)[1].tobytes()


@pytest.mark.parametrize("label", ["jpeg", "", "rgb8; jpeg compressed bgr8"])
@pytest.mark.parametrize("options", [(), ("IMWRITE_JPEG_PROGRESSIVE", 1), ("IMWRITE_JPEG_RST_INTERVAL", 4)])
@pytest.mark.parametrize("what", ["rest is missing", "cut short", "zeros inside"])
def test_a_damaged_jpeg_is_no_picture_with_a_grey_rest(cv2, what, options, label, capfd):
    data = jpeg(cv2, *(getattr(cv2, entry) if isinstance(entry, str) else entry for entry in options))
    half = len(data) // 2
    damaged = {
        "rest is missing": data[:half] + b"\xff\xd9",
        "cut short": data[:half],
        "zeros inside": data[:half] + bytes(200) + data[half + 200 :],
    }[what]
    with pytest.raises(image_codec.ImageCodecError, match=r"expected a whole"):
        compressed_to_rgb(SimpleNamespace(format=label, data=damaged))
    assert "JPEG" not in capfd.readouterr().err, "the error has it"


def test_zeros_with_which_a_camera_fills_a_jpeg_up_are_no_damage(cv2):
    data = jpeg(cv2)
    expected = compressed_to_rgb(SimpleNamespace(format="jpeg", data=data))
    for padded in (data[:-2] + bytes(300) + data[-2:], data + bytes(300)):
        np.testing.assert_array_equal(compressed_to_rgb(SimpleNamespace(format="jpeg", data=padded)), expected)


def test_what_others_write_while_a_picture_is_decoded_is_passed_on(capfd):
    with jpeg_warnings() as warnings:
        os.write(2, b"a line of somebody else\nCorrupt JPEG data: bad Huffman code\n")
    assert warnings == ["Corrupt JPEG data: bad Huffman code"]
    assert capfd.readouterr().err == "a line of somebody else\n"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("label", ["jpeg", "", "rgb8; jpeg compressed bgr8", "png", "bgr8; png compressed bgr8"])
def test_an_orientation_in_the_file_is_not_applied_whatever_the_label(cv2, label, orientation):
    """The raw topic has the pixels as the sensor has them."""
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + bytes([orientation, 0, 0, 0]) + bytes(4)
    if "png" in label:
        rgb = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
        data = cv2.imencode(".png", rgb[..., ::-1])[1].tobytes()
        chunk = b"eXIf" + exif[6:]
        data = data[:33] + struct.pack(">I", len(exif) - 6) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
    else:
        data = jpeg(cv2)
        rgb = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]
    np.testing.assert_array_equal(compressed_to_rgb(SimpleNamespace(format=label, data=data)), rgb)


def test_a_compressed_depth_image_is_refused():
    with pytest.raises(image_codec.ImageCodecError, match="unknown image encoding '16UC1'"):
        compressed_to_rgb(SimpleNamespace(format="16UC1; png compressed", data=b""))


def test_a_cv_bridge_that_kills_the_process_is_passed_over(monkeypatch, tmp_path):
    (tmp_path / "cv_bridge.py").write_text("import os\nos.abort()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cv_bridge", raising=False)
    monkeypatch.setattr(image_codec, "_cv_bridge_exit_code", image_codec._cv_bridge_exit_code.__wrapped__)
    with pytest.raises(ImportError, match="installed, but fails beside numpy"):
        BACKENDS["cv_bridge"]()
