"""The parts of a compiled MuJoCo model that a look may change, and their restoration."""

from typing import Any

import numpy as np

from sim_bridge.camera_view import CameraView

SKY_SIDE = 256
"""Side of a picture that replaces the sky, pixels: more than a frame can show, and quick to upload."""

_FLOOR_ALPHA = {"reacher": 0.0, "point_mass": 0.0, "walker": 1.0, "cheetah": 1.0}
"""Opacity of the floor before another sky, by domain, as in the Distracting Control Suite; otherwise 0.3."""

_ARRAYS = ("mat_rgba", "light_diffuse", "tex_width", "tex_height")


class Scene:
    """A model whose appearance a look changes.

    Attributes:
        model: dm_control's model.
        data: dm_control's data.
        camera_id: number of the camera.
        is_upright: whether the camera looks at the arm from the side and not from above.
        nominal: unchanged arrays of the model, by name.
    """

    def __init__(self, physics: Any, domain: str, view: CameraView, camera_id: int, is_upright: bool):
        """Store the present state of the model as nominal.

        Args:
            physics: the model's physics, of dm_control.
            domain: dm_control's domain of the task.
            view: renders the frames, and uploads changed textures.
            camera_id: number of the camera.
            is_upright: whether the camera looks at the arm from the side and not from above.
        """
        self.model, self.data, self.camera_id, self.is_upright = physics.model, physics.data, camera_id, is_upright
        self._view, self._floor_alpha = view, _FLOOR_ALPHA.get(domain, 0.3)
        self.nominal = {name: getattr(self.model, name).copy() for name in _ARRAYS}
        self._headlight = {part: getattr(self.model.vis.headlight, part).copy() for part in ("ambient", "diffuse")}
        self._textures: dict[int, np.ndarray] = {}  # Original pixels of replaced textures.
        self._shown: dict[int, np.ndarray] = {}  # Pictures in their places.

    def restore(self) -> None:
        """Restore the nominal model."""
        for name, array in self.nominal.items():
            getattr(self.model, name)[:] = array
        for part, value in self._headlight.items():
            getattr(self.model.vis.headlight, part)[:] = value
        for texture, pixels in self._textures.items():
            start = int(self.model.tex_adr[texture])
            self.model.tex_data[start : start + len(pixels)] = pixels
            self._view.upload(texture)
        self._textures.clear()
        self._shown.clear()
        self._view.set_flags(None, None)

    def set_flags(self, shadows: bool, reflections: bool) -> None:
        """Switch shadows and reflections on or off, until `restore`."""
        self._view.set_flags(shadows, reflections)

    def look_at(self) -> np.ndarray:
        """Return the point (3,) in m on the line of sight that is as far away as the arm's centre of mass."""
        position = self.data.cam_xpos[self.camera_id]
        distance = np.linalg.norm(position - self.data.subtree_com[1])
        return position - distance * self.data.cam_xmat[self.camera_id].reshape(3, 3)[:, 2]

    def place_camera(self, position: np.ndarray, pose: np.ndarray) -> None:
        """Move the camera to `position`, (3,) m, with the columns of `pose`, (3, 3), as its axes."""
        self.data.cam_xpos[self.camera_id] = position
        self.data.cam_xmat[self.camera_id] = pose.ravel()

    def light(self, shift: np.ndarray, factor: np.ndarray) -> None:
        """Move all lamps by `shift`, (3,) m, and multiply their light and the headlight by `factor`, (3,)."""
        position = self.data.xpos[self.model.light_bodyid] + self.model.light_pos + shift
        self.data.light_xpos[:] = position
        toward = self.model.light_dir - shift  # A distant lamp turns instead of moving.
        self.data.light_xdir[:] = toward / np.linalg.norm(toward, axis=1, keepdims=True)
        self.model.light_diffuse[:] = np.clip(self.nominal["light_diffuse"] * factor, 0, 1)
        self.model.vis.headlight.ambient[:] = np.clip(self._headlight["ambient"] * factor, 0, 1)
        self.model.vis.headlight.diffuse[:] = np.clip(self._headlight["diffuse"] * factor, 0, 1)

    def set_sky(self, picture: np.ndarray) -> None:
        """Show `picture`, (height, width, 3) uint8, on each side of the sky, and set the floor's opacity."""
        self.model.mat_rgba[self.model.name2id("grid", "material"), 3] = self._floor_alpha
        sky = self.model.name2id("skybox", "texture")
        if self._shown.get(sky) is picture:
            return
        self._keep(sky)
        self.model.tex_width[sky] = self.model.tex_height[sky] = SKY_SIDE
        self._replace(sky, picture)

    def set_floor(self, picture: np.ndarray) -> None:
        """Show `picture`, (height, width, 3) uint8, on the floor."""
        floor = self.model.name2id("grid", "texture")
        self._keep(floor)
        self._replace(floor, picture)

    def _keep(self, texture: int) -> None:
        if texture not in self._textures:
            start = int(self.model.tex_adr[texture])
            size = int(self.model.tex_height[texture] * self.model.tex_width[texture] * 3)
            self._textures[texture] = self.model.tex_data[start : start + size].copy()

    def _replace(self, texture: int, picture: np.ndarray) -> None:
        import cv2

        size = int(self.model.tex_width[texture]), int(self.model.tex_height[texture])
        pixels = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).ravel()
        start = int(self.model.tex_adr[texture])
        self.model.tex_data[start : start + len(pixels)] = pixels
        self._shown[texture] = picture
        self._view.upload(texture)


def orbit_pose(direction: np.ndarray, roll: float, upright: bool) -> np.ndarray:
    """Return the axes of a camera that looks along `direction`, as the columns of a (3, 3) matrix.

    Args:
        direction: (3,), of any length.
        roll: angle about the line of sight, rad.
        upright: whether the frame's sides are level, so that an upright object is upright in the frame. Otherwise the
            pose is the shortest turn of a camera that looks straight down.
    """
    z = -direction / np.linalg.norm(direction)
    if upright:
        x = np.cross((0.0, 0.0, 1.0), z)
        x /= np.linalg.norm(x)
        pose = np.stack((x, np.cross(z, x), z), axis=1)
    else:
        axis = np.array([-z[1], z[0], 0.0])  # Rodrigues' formula, from (0, 0, 1) to z.
        cross = np.array([[0, 0, axis[1]], [0, 0, -axis[0]], [-axis[1], axis[0], 0]])
        pose = np.eye(3) + cross + cross @ cross / (1 + z[2])
    cosine, sine = np.cos(roll), np.sin(roll)
    return pose @ np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
