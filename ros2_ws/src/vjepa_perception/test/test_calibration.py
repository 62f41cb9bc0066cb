"""Calibration files, and what a crop does to them."""

import numpy as np
import pytest
import yaml

from vjepa_perception.calibration import CalibrationError, read_calibration

K = [500.0, 0.0, 320.5, 0.0, 510.0, 240.5, 0.0, 0.0, 1.0]
P = [490.0, 0.0, 321.0, 0.0, 0.0, 505.0, 241.0, 0.0, 0.0, 0.0, 1.0, 0.0]
FIELDS = {
    "image_width": 640,
    "image_height": 480,
    "camera_name": "camera",
    "camera_matrix": {"rows": 3, "cols": 3, "data": K},
    "distortion_model": "plumb_bob",
    "distortion_coefficients": {"rows": 1, "cols": 5, "data": [0.1, -0.2, 0.0, 0.0, 0]},
    "rectification_matrix": {"rows": 3, "cols": 3, "data": [1, 0, 0, 0, 1, 0, 0, 0, 1]},
    "projection_matrix": {"rows": 3, "cols": 4, "data": P},
}


def write(folder, **fields):
    path = folder / "camera.yaml"
    path.write_text(yaml.safe_dump(FIELDS | fields))
    return str(path)


def test_a_file_as_ros_writes_it_is_read(tmp_path):
    calibration = read_calibration(write(tmp_path), 640, 480)
    assert (calibration.width, calibration.height, calibration.distortion_model) == (640, 480, "plumb_bob")
    assert list(calibration.k) == K
    assert list(calibration.p) == P
    assert calibration.d == (0.1, -0.2, 0.0, 0.0, 0.0)
    assert calibration.cropped(()) is calibration


def test_a_crop_moves_the_principal_point_so_that_rays_hit_the_same_pixels(tmp_path):
    whole = read_calibration(write(tmp_path), 640, 480)
    part = whole.cropped((100, 50, 320, 240))
    assert (part.width, part.height, part.d, part.r) == (320, 240, whole.d, whole.r)
    ray = np.array([0.1, 0.2, 1.0])
    before, after = (np.reshape(c.k, (3, 3)) @ ray for c in (whole, part))
    np.testing.assert_allclose(before - after, [100, 50, 0])
    before, after = (np.reshape(c.p, (3, 4)) @ [*ray, 1.0] for c in (whole, part))
    np.testing.assert_allclose(before - after, [100, 50, 0])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"image_width": 1280}, "is of pictures of 1280 x 480 pixels, but the camera's have 640 x 480; calibrate"),
        ({"camera_matrix": {"data": [1.0]}}, "has camera_matrix .*; expected 'data' with 9 finite numbers"),
        ({"projection_matrix": None}, "has projection_matrix None"),
        ({"distortion_coefficients": {"data": ["a"]}}, "expected 'data' with finite numbers"),
    ],
)
def test_another_file_is_refused_with_what_was_expected(tmp_path, fields, words):
    with pytest.raises(CalibrationError, match=words):
        read_calibration(write(tmp_path, **fields), 640, 480)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(CalibrationError, match=r"there is no calibration .*none\.yaml; see that the path is right"):
        read_calibration(str(tmp_path / "none.yaml"), 640, 480)
