"""A recorded run becomes one picture, whatever of it is there."""

from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest

from vjepa_cli.views.run_picture import FRAMES, MOST_FRAMES, _read, draw_run
from vjepa_interfaces import topics
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.image_codec import fill_image
from vjepa_interfaces.messages import FIRST, MID
from vjepa_interfaces.stamps import set_stamp

PERIOD_NS = 20_000_000


def stamped(number, **fields):
    message = SimpleNamespace(header=SimpleNamespace(stamp=SimpleNamespace()), **fields)
    set_stamp(message.header.stamp, 10**9 + number * PERIOD_NS)
    return message


def camera(frames):
    for number in range(frames):
        image = stamped(number)
        fill_image(image, np.full((8, 8, 3), (200, 0, 0), np.uint8))
        yield topics.IMAGE, image


def whole(frames):
    """A run with all that is drawn."""
    yield topics.ACTIVE_PLANNER, SimpleNamespace(data="bc")
    for number, (topic, image) in enumerate(camera(frames)):
        yield topic, image
        step_type = FIRST if number % 10 == 0 else MID
        yield topics.TIMESTEP, stamped(number, vector=SimpleNamespace(x=1.0, y=1.0, z=float(step_type)))
        for place in (topics.TARGET, topics.FINGERTIP):
            yield place, stamped(number, point=SimpleNamespace(x=0.1 * number, y=0.0, z=0.0))
        yield topics.JOINT_COMMAND, stamped(number, name=["shoulder", "wrist"], effort=[0.01, -0.01])


def test_a_run_is_drawn_with_its_frames_and_plots(tmp_path):
    draw_run(whole(30), str(tmp_path / "run.png"))
    picture = matplotlib.image.imread(tmp_path / "run.png")[..., :3]
    red = (picture[..., 0] > 0.7) & (picture[..., 1] < 0.1) & (picture[..., 2] < 0.1)
    assert red.sum() > FRAMES * 50 * 50, "the frames of the camera are in it"
    run = _read(whole(30))
    assert run.begins == [10**9 + number * PERIOD_NS for number in (0, 10, 20)]
    assert set(run.efforts) == {"shoulder", "wrist"}


def test_a_run_on_a_camera_has_frames_alone(tmp_path):
    draw_run(camera(3), str(tmp_path / "run.png"))
    assert matplotlib.image.imread(tmp_path / "run.png").size > 0


def test_of_a_long_run_few_frames_are_held_and_they_span_it():
    frames = _read(camera(20 * MOST_FRAMES)).frames
    assert FRAMES <= len(frames) <= MOST_FRAMES
    steps = np.diff([stamp_ns for stamp_ns, _ in frames])
    assert set(steps) == {steps[0]}
    assert frames[-1][0] > 10**9 + 18 * MOST_FRAMES * PERIOD_NS


def test_a_bag_without_frames_is_refused(tmp_path):
    with pytest.raises(VjepaError, match="no frame of the camera"):
        draw_run([(topics.ACTIVE_PLANNER, SimpleNamespace(data="bc"))], str(tmp_path / "run.png"))
