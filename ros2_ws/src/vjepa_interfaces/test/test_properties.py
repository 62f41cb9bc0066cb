"""What holds for any message, not only for those somebody thought of: drawn by hypothesis."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from vjepa_interfaces.alignment import StampRing
from vjepa_interfaces.effort import CommandRefusedError, EffortLimits
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.image_codec import LAYOUTS, compressed_to_rgb, fill_image, image_to_rgb
from vjepa_interfaces.messages import Timestep, fill_latent, fill_timestep, goal_of, latent_of, timestep_of
from vjepa_interfaces.parameters import read_parameters

UINT32 = st.integers(0, 2**32 - 1)
SMALL = st.integers(0, 9)
STAMPS = st.integers(-(2**31), 2**62)
TEXT = st.text(max_size=20)
DOUBLES = st.floats(allow_nan=True, allow_infinity=True)
LIMITS = EffortLimits.of(("shoulder", "wrist"), (0.05, 0.02))
INFO = {"fingerprint": "abc", "shape": [2, 3]}


def check_words(error: VjepaError, *names: str) -> None:
    """Hold a refusal to saying something, of one of `names` where there are any."""
    assert len(str(error)) > 20
    assert not names or any(name in str(error) for name in names)


@st.composite
def images(draw, encodings=None):
    """An image message of any fields, mostly such as nearly fit each other."""
    height, width = draw(SMALL | UINT32), draw(SMALL | UINT32)
    encoding = draw(st.sampled_from(encodings or [*LAYOUTS, "32FC1", "rgb"]) | TEXT)
    kind, channels = LAYOUTS.get(encoding, (np.uint8, 4))
    row = width * channels * np.dtype(kind).itemsize
    step = draw(st.sampled_from([row, row + 1, max(row - 1, 0)]) | UINT32)
    sizes = st.sampled_from([height * step, max(height * step - 1, 0), height * step + 1])
    size = draw(sizes.filter(lambda size: size < 4096) | st.integers(0, 64)) if height * step < 4096 else draw(SMALL)
    header = SimpleNamespace(frame_id=draw(st.sampled_from(["abc", ""])))
    fields = {"height": height, "width": width, "encoding": encoding, "step": step, "header": header}
    return SimpleNamespace(
        is_bigendian=draw(st.integers(0, 255)), data=draw(st.binary(min_size=size, max_size=size)), **fields
    )


@given(images())
def test_any_image_is_a_picture_or_refused_in_words(message):
    try:
        rgb = image_to_rgb(message)
    except VjepaError as error:
        check_words(error)
    else:
        assert rgb.shape == (message.height, message.width, 3)
        assert rgb.dtype == np.uint8


@given(arrays(np.uint8, st.tuples(st.integers(1, 8), st.integers(1, 8), st.just(3))))
def test_a_picture_is_the_same_after_the_way_through_a_message(rgb):
    message = SimpleNamespace()
    fill_image(message, rgb)
    np.testing.assert_array_equal(image_to_rgb(message), rgb)


@given(st.sampled_from(["jpeg", "png", "rgb8; jpeg compressed bgr8", "16UC1; png"]) | TEXT, st.binary(max_size=200))
def test_any_compressed_image_is_a_picture_or_refused_in_words(form, data):
    with pytest.raises(VjepaError, match=r".{20}"):
        compressed_to_rgb(SimpleNamespace(format=form, data=data))


@given(images(["32FC1"]))
def test_any_latent_and_any_goal_has_its_shape_or_is_refused_in_words(message):
    try:
        latent = latent_of(message)
    except VjepaError as error:
        check_words(error)
    else:
        assert latent.shape == (message.height, message.width)
        assert latent.dtype == np.float32
    try:
        goal = goal_of(message, INFO)
    except VjepaError as error:
        check_words(error)
    else:
        assert goal.shape == (2, 3)
        assert np.isfinite(goal).all()


@given(arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_a_latent_is_the_same_to_the_bit_after_the_way_through_a_message(latent):
    message = SimpleNamespace()
    fill_latent(message, latent)
    np.testing.assert_array_equal(latent_of(message).view(np.uint32), latent.view(np.uint32))


@given(DOUBLES, DOUBLES, st.sampled_from([0.0, 1.0, 2.0]) | DOUBLES)
def test_any_timestep_is_one_of_three_kinds_or_refused(reward, discount, kind):
    message = SimpleNamespace(vector=SimpleNamespace(x=reward, y=discount, z=kind))
    if kind not in (0.0, 1.0, 2.0):
        with pytest.raises(VjepaError, match="step type"):
            timestep_of(message)
        return
    again = SimpleNamespace(vector=SimpleNamespace())
    fill_timestep(again, Timestep(reward, discount, int(kind)))
    np.testing.assert_array_equal([again.vector.x, again.vector.y, again.vector.z], [reward, discount, kind])


@given(
    st.none()
    | st.permutations(LIMITS.joint_names)
    | st.lists(st.sampled_from(["shoulder", "wrist", "elbow"]) | TEXT, max_size=4),
    st.lists(DOUBLES, min_size=2, max_size=2) | st.lists(DOUBLES, max_size=4),
)
def test_whatever_is_commanded_no_joint_gets_more_than_its_limit_or_another_joints_effort(names, efforts):
    try:
        applied, clamped = LIMITS.checked(names, efforts)
    except CommandRefusedError:
        named = names is None or sorted(names) == sorted(LIMITS.joint_names)
        assert len(efforts) != 2 or not named or not np.isfinite(efforts).all(), "a sane command was refused"
        return
    assert (np.abs(applied) <= LIMITS.limits).all()
    wanted = dict(zip(names or LIMITS.joint_names, efforts, strict=True))
    for name, limit, effort in zip(LIMITS.joint_names, LIMITS.limits, applied, strict=True):
        assert effort == wanted[name] or (clamped and abs(wanted[name]) > limit)


# Joins, against the plainest thing that says what they mean.


@given(st.lists(st.integers(0, 40), max_size=30), st.integers(1, 6), st.integers(-1, 45), st.integers(0, 20))
def test_the_ring_holds_the_newest_of_the_present_time_line(stamps, size, asked, max_age):
    ring, held = StampRing(size=2 * size), []
    for number, stamp in enumerate(stamps):
        ring.add(stamp, number)
        if stamp in [s for s, _ in held]:
            continue
        if held and stamp < held[-1][0]:
            held = []
        held = [*held, (stamp, number)]
        assert min(len(held), size) <= len(ring) <= 2 * size
        held = held[-len(ring) :]
    assert ring.stamps() == [stamp for stamp, _ in held]
    assert ring.at(asked) == dict(held).get(asked)
    sane = [number for stamp, number in held if 0 <= asked - stamp <= max_age]
    assert ring.at_or_before(asked, max_age) == (sane[-1] if sane else None)


# Parameters.

VALUES = (
    st.none() | st.booleans() | st.integers() | DOUBLES | TEXT | st.lists(st.integers() | TEXT | DOUBLES, max_size=3)
)


@dataclass(frozen=True)
class Arm:
    limit: float
    joint_names: tuple[str, ...]


@example({"limit": 10**400})
@given(st.dictionaries(st.sampled_from(["limit", "joint_names"]), VALUES))
def test_any_value_of_a_parameter_is_of_its_type_or_refused_in_words(values):
    try:
        parameters = read_parameters(Arm, {"limit": 0.05, "joint_names": ["a"], **values})
    except VjepaError as error:
        check_words(error, *values)
    else:
        assert type(parameters.limit) is float
        assert all(type(name) is str for name in parameters.joint_names)
