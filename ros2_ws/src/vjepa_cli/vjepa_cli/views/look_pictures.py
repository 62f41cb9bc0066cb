"""A picture of the looks: the same state of a task under each look, at each level."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from sim_bridge.camera_view import RENDERINGS
from sim_bridge.env import SimConfig, SimEnv
from sim_bridge.looks import ALL, EFFECTS, NOMINAL, SCALES
from vjepa_training.evaluation.appearance import Appearance

SHOWN = (*EFFECTS, ALL)
STEPS = 15
"""Control steps of random efforts before a frame, so that the look `latency` shows another state."""

_MARGIN, _LINE = 96, 18
"""Pixels of the margin left of the frames, and of a line of text above them."""


def look_frame(appearance: Appearance, **sim: Any) -> np.ndarray:
    """Return a frame of the first episode under a look, (height, width, 3) uint8, with the same state for each look.

    Args:
        appearance: the look and the rendering.
        sim: other fields of `SimConfig`.

    Raises:
        VjepaError: the simulation refuses a value.
    """
    with SimEnv(SimConfig(**sim, look=appearance.look, render=appearance.render)) as env:
        rng = np.random.default_rng(0)
        env.reset()
        frame = env.render()
        for _ in range(STEPS):
            env.step(env.limits.effort_of(rng.uniform(-1, 1, len(env.limits.joint_names))))
            frame = env.render()
        return frame


def draw_looks(
    tasks: Sequence[str], side: int, seed: int, render: str | None, backgrounds: str, looks: Sequence[str] = SHOWN
) -> np.ndarray:
    """Return the picture, (height, width, 3) uint8: a row for the renderings and for each look, tasks side by side.

    Args:
        tasks: names of dm_control tasks, each with three columns: the renderings, and below them the levels.
        side: side of a frame, pixels.
        seed: seed of the episode in the picture.
        render: rendering under the looks; None for `dm_control`.
        backgrounds: folder of backgrounds; none draws them.
        looks: names of looks.

    Raises:
        VjepaError: a task or a rendering is unknown, or the folder has no backgrounds.
    """
    rows = [(NOMINAL, RENDERINGS), *((look, tuple(f"{look}:{level}" for level in SCALES)) for look in looks)]
    columns = len(SCALES) * len(tasks)
    height = 3 * _LINE + len(rows) * side + _LINE
    picture = np.full((height, _MARGIN + columns * side, 3), 255, np.uint8)
    sim = {"image_size": (side, side), "seed": seed, "backgrounds": backgrounds}
    for number, task in enumerate(tasks):
        left = _MARGIN + number * len(SCALES) * side
        _write(picture, task, left, _LINE)
        _write_columns(picture, RENDERINGS, left, 2 * _LINE, side)
        _write_columns(picture, SCALES, left, 3 * _LINE + side, side)
        for row, (name, texts) in enumerate(rows):
            top = 2 * _LINE + 4 + row * side + (_LINE if row else 0)
            _write(picture, name, 4, top + side // 2)
            for column, text in enumerate(texts):
                frame = look_frame(Appearance.of(text, render), task=task, **sim)
                picture[top : top + side, left + column * side : left + (column + 1) * side] = frame
    return picture


def _write_columns(picture: np.ndarray, names: Sequence[str] | dict[str, float], left: int, at: int, side: int) -> None:
    for column, name in enumerate(names):
        _write(picture, name, left + column * side, at)


def _write(picture: np.ndarray, text: str, left: int, at: int) -> None:
    cv2.putText(picture, text, (left + 2, at - 2), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (0, 0, 0), 1, cv2.LINE_AA)
