"""Frames and latents become an animation at the speed of their stamps."""

from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest

from vjepa_cli.views.animation import EVERY, animate
from vjepa_cli.views.latent_picture import Projection, latent_picture
from vjepa_interfaces import topics
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.image_codec import fill_image
from vjepa_interfaces.messages import fill_latent
from vjepa_interfaces.stamps import set_stamp

PERIOD_NS = 20_000_000


def stamped(stamp_ns):
    message = SimpleNamespace(header=SimpleNamespace(stamp=SimpleNamespace()))
    set_stamp(message.header.stamp, stamp_ns)
    return message


def run(frames):
    """A red picture that brightens, with a latent for each."""
    yield topics.ACTIVE_PLANNER, SimpleNamespace(data="bc")
    for number in range(frames):
        image, latent = stamped(10**9 + number * PERIOD_NS), stamped(10**9 + number * PERIOD_NS)
        fill_image(image, np.full((8, 8, 3), (100 + number, 0, 0), np.uint8))
        fill_latent(latent, np.random.default_rng(number).standard_normal((5, 16), np.float32))
        yield topics.IMAGE, image
        yield topics.LATENT, latent


def test_an_animation_has_every_fourth_frame_at_the_speed_of_the_stamps(tmp_path):
    assert animate(run(3 * EVERY), str(tmp_path / "run.gif")) == 3
    data = (tmp_path / "run.gif").read_bytes()
    assert data.startswith(b"GIF89a")
    delays = [
        int.from_bytes(data[i + 4 : i + 6], "little") for i in range(len(data)) if data[i : i + 3] == b"!\xf9\x04"
    ]
    assert delays == [EVERY * PERIOD_NS // 10_000_000] * 3
    first = matplotlib.image.imread(tmp_path / "run.gif")
    red = (first[..., 0] > 90) & (first[..., 1] < 20) & (first[..., 2] < 20)
    assert red.mean() > 0.2, "the camera's picture is in it, large"


def test_too_little_to_animate_is_refused(tmp_path):
    with pytest.raises(VjepaError, match="too few frames with a latent"):
        animate(run(2), str(tmp_path / "run.gif"))


def test_a_latent_is_grey_around_its_mean_whatever_its_scale():
    latent = np.random.default_rng(0).standard_normal((17, 128))
    picture = latent_picture(latent)
    assert picture.shape == latent.shape
    assert abs(float(picture.mean()) - 127.5) < 2
    assert np.array_equal(picture, latent_picture(50.0 * latent + 7.0))
    assert set(latent_picture(np.ones((2, 3))).ravel()) == {128}, "also where it is the same everywhere"


def test_the_projection_is_the_same_for_every_run_and_keeps_near_what_is_near():
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((20, 1, 128))
    points = np.array([Projection().point(latent) for latent in latents])
    assert np.array_equal(points, [Projection().point(latent) for latent in latents])
    near = [Projection().point(latent + 0.01 * rng.standard_normal(latent.shape)) for latent in latents]
    assert np.linalg.norm(near - points, axis=1).max() < 0.1 * np.std(points, axis=0).mean()
