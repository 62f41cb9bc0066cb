"""Crop, rotation and flip of a camera's picture."""

import numpy as np
import pytest

from vjepa_perception.view import View, ViewError

PICTURE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def test_a_view_of_everything_is_the_picture():
    np.testing.assert_array_equal(View().apply(PICTURE), PICTURE)


def test_a_crop_is_x_y_width_height():
    np.testing.assert_array_equal(View((1, 2, 3, 2)).apply(PICTURE), PICTURE[2:4, 1:4])


@pytest.mark.parametrize(("degrees", "corner"), [(0, (0, 0)), (90, (-1, 0)), (180, (-1, -1)), (270, (0, -1))])
def test_rotation_is_clockwise(degrees, corner):
    """The pixel that comes to the top left: after a quarter clockwise it is that of the bottom left."""
    view = View(rotate=degrees)
    rotated = view.apply(PICTURE)
    assert rotated.shape == ((4, 6, 3) if degrees in (0, 180) else (6, 4, 3))
    np.testing.assert_array_equal(rotated[0, 0], PICTURE[corner])
    assert rotated.flags.c_contiguous
    assert view.turned == bool(degrees)


@pytest.mark.parametrize(
    ("flip", "expected"),
    [("horizontal", PICTURE[:, ::-1]), ("vertical", PICTURE[::-1]), ("both", PICTURE[::-1, ::-1])],
)
def test_flips(flip, expected):
    np.testing.assert_array_equal(View(flip=flip).apply(PICTURE), expected)
    assert View(flip=flip).turned


def test_the_order_is_crop_then_rotate_then_flip():
    expected = np.rot90(PICTURE[0:2, 0:3], -1)[:, ::-1]
    np.testing.assert_array_equal(View((0, 0, 3, 2), 90, "horizontal").apply(PICTURE), expected)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"crop": (1, 2, 3)}, r"crop is \[1, 2, 3\]; expected \[x, y, width, height\]"),
        ({"crop": (0, 0, 0, 4)}, "width and height at least 1"),
        ({"crop": (-1, 0, 2, 2)}, "x and y at least 0"),
        ({"rotate": 45}, "rotate is 45; expected 0, 90, 180 or 270"),
        ({"flip": "sideways"}, "unknown flip 'sideways'; valid are: both, horizontal, vertical"),
    ],
)
def test_a_senseless_view_is_refused(fields, words):
    with pytest.raises(ViewError, match=words):
        View(**fields)


def test_a_crop_beyond_the_picture_is_refused_with_both_sizes():
    with pytest.raises(ViewError, match=r"reaches to \(7, 4\), beyond the picture of 6 x 4 pixels"):
        View((1, 0, 6, 4)).apply(PICTURE)
