"""Random appearance of episodes: the camera's pose and lens, colours, lights and the target's size.

Draws use random streams of their own, so dm_control's initial states do not change. The images of textures are on the
graphics card and remain; the draws tint their materials instead.
"""

from typing import Any

import numpy as np

CAMERA_SHIFT_M = 0.02
CAMERA_TILT_RAD = np.deg2rad(3.0)
FIELD_OF_VIEW_DEG = 2.0
"""Largest changes of the camera's position along each axis, its orientation and its vertical field of view."""

TINT = 0.35
LIGHT = 0.3
LIGHT_SHIFT_M = 0.2
"""Largest relative changes of colours and of light, and largest move of a light along each axis."""

TARGET_SCALE = (0.6, 1.4)
"""Smallest and largest radius of a target, relative to the task's own."""

_CAMERA_STREAM, _APPEARANCE_STREAM, _TARGET_STREAM = 1, 2, 4


class Randomizer:
    """Draws the camera and the appearance of episodes in one compiled model.

    Every draw starts from the nominal model, so draws do not add up and an episode's look depends on its seed alone.
    """

    def __init__(self, model: Any, camera_id: int, camera: bool, appearance: bool) -> None:
        """Store the present state of the model as nominal.

        Args:
            model: the `mujoco.MjModel`, which `draw` changes in place.
            camera_id: the camera that `draw` moves.
            camera: whether to draw the camera.
            appearance: whether to draw the appearance.
        """
        self._model = model
        self._camera_id = camera_id
        self._camera = camera
        self._appearance = appearance
        self._nominal = [array.copy() for array in self._arrays()]

    def draw(self, seed: int) -> None:
        """Draw the look of an episode by its `seed`. It takes effect at the next forward pass of the physics."""
        for array, nominal in zip(self._arrays(), self._nominal, strict=True):
            array[:] = nominal
        if self._camera:
            randomize_camera(self._model, self._camera_id, np.random.default_rng((seed, _CAMERA_STREAM)))
        if self._appearance:
            randomize_appearance(self._model, np.random.default_rng((seed, _APPEARANCE_STREAM)))

    def _arrays(self) -> list[np.ndarray]:
        """Return views of all arrays that the draws change."""
        model = self._model
        headlight = model.vis.headlight
        return [
            *(model.cam_pos, model.cam_quat, model.cam_fovy),
            *(model.mat_rgba, model.light_pos, model.light_diffuse, headlight.ambient, headlight.diffuse),
        ]


def randomize_camera(model: Any, camera_id: int, rng: np.random.Generator) -> None:
    """Change position, orientation and vertical field of view of a camera, uniformly within the limits."""
    import mujoco

    model.cam_pos[camera_id] += rng.uniform(-CAMERA_SHIFT_M, CAMERA_SHIFT_M, 3)
    axis = rng.normal(size=3)
    turn = np.empty(4)
    mujoco.mju_axisAngle2Quat(turn, axis / np.linalg.norm(axis), rng.uniform(-CAMERA_TILT_RAD, CAMERA_TILT_RAD))
    turned = np.empty(4)
    mujoco.mju_mulQuat(turned, model.cam_quat[camera_id], turn)
    model.cam_quat[camera_id] = turned
    model.cam_fovy[camera_id] += rng.uniform(-FIELD_OF_VIEW_DEG, FIELD_OF_VIEW_DEG)


def randomize_appearance(model: Any, rng: np.random.Generator) -> None:
    """Tint all materials of `model`, but not their opacity, and change brightness and positions of its lights."""
    model.mat_rgba[:, :3] = np.clip(model.mat_rgba[:, :3] * rng.uniform(1 - TINT, 1 + TINT, (model.nmat, 3)), 0, 1)
    model.light_diffuse[:] *= rng.uniform(1 - LIGHT, 1 + LIGHT, (model.nlight, 1))
    model.light_pos[:] += rng.uniform(-LIGHT_SHIFT_M, LIGHT_SHIFT_M, (model.nlight, 3))
    brightness = rng.uniform(1 - LIGHT, 1 + LIGHT)
    model.vis.headlight.ambient[:] *= brightness
    model.vis.headlight.diffuse[:] *= brightness


def randomize_target_size(model: Any, geom_id: int, seed: int) -> None:
    """Scale the radius of a target uniformly within `TARGET_SCALE`, after the task has set it."""
    rng = np.random.default_rng((seed, _TARGET_STREAM))
    model.geom_size[geom_id, 0] *= rng.uniform(*TARGET_SCALE)
