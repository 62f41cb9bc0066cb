"""Latents, goals and timesteps survive the way into a message and back, and what is no latent is refused."""

import array
from types import SimpleNamespace

import numpy as np
import pytest

from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.messages import (
    FIRST,
    LAST,
    MID,
    Timestep,
    as_message_bytes,
    fill_goal,
    fill_latent,
    fill_timestep,
    goal_of,
    latent_of,
    timestep_of,
)


def latent_message(latent: np.ndarray) -> SimpleNamespace:
    message = SimpleNamespace()
    fill_latent(message, latent)
    return message


@pytest.fixture
def latent() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(17, 8)).astype(np.float32)


def test_a_latent_survives_bit_for_bit(latent):
    message = latent_message(latent)
    assert (message.height, message.width, message.step, message.encoding) == (17, 8, 32, "32FC1")
    read = latent_of(message)
    assert read.dtype == np.float32
    assert np.array_equal(read, latent)


def test_a_latent_with_values_that_are_not_finite_survives_for_its_reader_to_refuse():
    latent = np.array([[np.nan, np.inf, -np.inf]], np.float32)
    assert np.array_equal(latent_of(latent_message(latent)), latent, equal_nan=True)


def test_strided_and_wider_latents_are_written_as_they_read(latent):
    assert np.array_equal(latent_of(latent_message(latent.T)), latent.T)
    assert np.array_equal(latent_of(latent_message(latent.astype(np.float64))), latent)


@pytest.mark.parametrize(
    "container", [bytes, lambda data: array.array("B", data), lambda data: np.frombuffer(data, np.uint8)]
)
def test_latents_are_read_only_whatever_holds_the_bytes(latent, container):
    message = latent_message(latent)
    message.data = container(latent.tobytes())
    read = latent_of(message)
    assert np.array_equal(read, latent)
    with pytest.raises(ValueError, match="read-only"):
        read[0, 0] = 1.0


def test_a_latent_of_the_other_byte_order_is_read(latent):
    message = latent_message(latent)
    message.data = latent.astype(latent.dtype.newbyteorder("S")).tobytes()
    message.is_bigendian = not message.is_bigendian
    read = latent_of(message)
    assert np.array_equal(read, latent)
    assert not read.flags.writeable


@pytest.mark.parametrize(
    "wrong",
    [
        {"encoding": "rgb8"},
        {"height": 16},
        {"width": 9},
        {"step": 36},
        {"data": b""},
        {"data": b"123"},
        {"height": 0, "data": b""},
        {"width": 0, "step": 0, "data": b""},
    ],
)
def test_an_image_that_is_no_latent_is_refused(latent, wrong):
    message = latent_message(latent)
    vars(message).update(wrong)
    with pytest.raises(VjepaError, match="latent"):
        latent_of(message)


@pytest.mark.parametrize("step_type", [FIRST, MID, LAST])
def test_a_timestep_survives(step_type):
    message = SimpleNamespace(vector=SimpleNamespace())
    fill_timestep(message, Timestep(np.float64(0.5), 1, np.int64(step_type)))
    assert {type(value) for value in vars(message.vector).values()} == {float}, "rclpy takes nothing else"
    assert timestep_of(message) == Timestep(0.5, 1.0, step_type)


@pytest.mark.parametrize("step_type", [-1.0, 0.5, 3.0, float("nan")])
def test_a_timestep_of_no_step_type_is_refused(step_type):
    with pytest.raises(VjepaError, match="step type"):
        timestep_of(SimpleNamespace(vector=SimpleNamespace(x=0.0, y=1.0, z=step_type)))


def test_message_bytes_are_the_arrays_own():
    values = np.arange(12, dtype=np.uint16).reshape(3, 4)
    assert as_message_bytes(values[:, ::2]).tobytes() == values[:, ::2].tobytes()
    assert as_message_bytes(values).typecode == "B"


def goal_message(latent: np.ndarray, fingerprint: str) -> SimpleNamespace:
    message = SimpleNamespace(header=SimpleNamespace(frame_id=""))
    fill_goal(message, latent, fingerprint)
    return message


def test_a_goal_says_whose_latent_it_is(latent):
    read = goal_of(goal_message(latent, "ours"), {"fingerprint": "ours", "shape": [17, 8]})
    assert np.array_equal(read, latent)


def test_a_goal_of_another_encoder_or_shape_or_not_finite_is_refused_with_what_was_expected(latent):
    info = {"fingerprint": "ours", "shape": [17, 8]}
    with pytest.raises(VjepaError, match=r"goal is of encoder 'theirs'; expected .* 'ours'"):
        goal_of(goal_message(latent, "theirs"), info)
    with pytest.raises(VjepaError, match=r"goal has shape \[16, 8\]; expected that of the latents, \[17, 8\]"):
        goal_of(goal_message(latent[1:], "ours"), info)
    latent[3, 2] = np.nan
    with pytest.raises(VjepaError, match="not finite"):
        goal_of(goal_message(latent, "ours"), info)
