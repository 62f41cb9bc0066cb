"""Codecs of latents, goals and timesteps: arrays and named values on one side, standard messages on the other.

The functions read and fill message objects given to them and create none, so they serve rclpy's classes live and
rosbags' classes offline alike.
"""

import array
import sys
from typing import Any, NamedTuple

import numpy as np

from vjepa_interfaces.encoder_info import EncoderInfo
from vjepa_interfaces.errors import VjepaError

FIRST, MID, LAST = 0, 1, 2
"""Step types, as in dm_env."""


class Timestep(NamedTuple):
    """The output of the task at one stamp: `reward`, `discount`, and `step_type` (FIRST, MID or LAST)."""

    reward: float
    discount: float
    step_type: int


def timestep_of(message: Any) -> Timestep:
    """Return the timestep in a `geometry_msgs/Vector3Stamped`: x reward, y discount, z step type.

    Raises:
        VjepaError: the step type is none of FIRST, MID and LAST.
    """
    vector = message.vector
    if vector.z not in (FIRST, MID, LAST):
        raise VjepaError(f"timestep has step type {vector.z}; expected 0 (first), 1 (mid) or 2 (last)")
    return Timestep(vector.x, vector.y, int(vector.z))


def fill_timestep(message: Any, timestep: Timestep) -> None:
    """Write `timestep` into the vector of a `geometry_msgs/Vector3Stamped`."""
    vector = message.vector
    vector.x, vector.y, vector.z = float(timestep.reward), float(timestep.discount), float(timestep.step_type)


def latent_of(message: Any) -> np.ndarray:
    """Return the latent in a `sensor_msgs/Image` of encoding 32FC1: float32, shape (rows, dimension).

    The array is read-only: mostly a view of the message's bytes.

    Raises:
        VjepaError: the encoding differs, or the bytes are not height x width floats.
    """
    if message.encoding != "32FC1":
        raise VjepaError(f"latent has encoding '{message.encoding}'; expected 32FC1")
    rows, dimension = message.height, message.width
    data = np.frombuffer(message.data, np.uint8)
    if data.size != rows * dimension * 4 or message.step != dimension * 4 or data.size == 0:
        raise VjepaError(
            f"latent of {rows} x {dimension} has {data.size} bytes and step {message.step}; "
            f"expected {rows * dimension * 4} bytes (not zero) and step {dimension * 4}"
        )
    latent = data.view(">f4" if message.is_bigendian else "<f4").reshape(rows, dimension)
    latent = latent.astype(np.float32, copy=False)
    latent.flags.writeable = False
    return latent


def fill_latent(message: Any, latent: np.ndarray) -> None:
    """Write a `latent`, (rows, dimension) float32, into a `sensor_msgs/Image` as 32FC1."""
    latent = np.ascontiguousarray(latent, np.float32)
    message.height, message.width = latent.shape
    message.encoding = "32FC1"
    message.is_bigendian = sys.byteorder == "big"
    message.step = latent.shape[1] * 4
    message.data = as_message_bytes(latent)


def goal_of(message: Any, info: EncoderInfo) -> np.ndarray:
    """Return the goal latent in a `sensor_msgs/Image`: float32, shape (rows, dimension), finite.

    Args:
        message: a latent as `latent_of` reads it, whose header's `frame_id` is the fingerprint of its encoder.
        info: the latent info of the present encoder, with `fingerprint` and `shape` (rows, dimension).

    Raises:
        VjepaError: the latent is not readable, belongs to another encoder, has another shape, or is not finite.
    """
    if message.header.frame_id != info["fingerprint"]:
        raise VjepaError(
            f"goal is of encoder '{message.header.frame_id}'; expected the fingerprint of the one that runs, "
            f"'{info['fingerprint']}', in frame_id"
        )
    goal = latent_of(message)
    if list(goal.shape) != list(info["shape"]):
        raise VjepaError(f"goal has shape {list(goal.shape)}; expected that of the latents, {list(info['shape'])}")
    if not np.isfinite(goal).all():
        raise VjepaError("goal has values that are not finite")
    return goal


def fill_goal(message: Any, goal: np.ndarray, fingerprint: str) -> None:
    """Write a `goal` latent, (rows, dimension) float32, and its encoder's fingerprint into a `sensor_msgs/Image`."""
    fill_latent(message, goal)
    message.header.frame_id = fingerprint


def as_message_bytes(values: np.ndarray) -> "array.array[int]":
    """Return the bytes of an array as the `array.array` of type 'B' that rclpy's setters take fastest.

    Without rclpy's field checks, its default, `bytes` would cost the same: both are copied once. With the checks
    (`ROS_PYTHON_CHECK_FIELDS=1`) an `array.array` is used unchanged. Then Python would check `bytes` one by one, over a
    thousand times slower.
    """
    out = array.array("B")
    out.frombytes(np.ascontiguousarray(values).data.cast("B"))
    return out
