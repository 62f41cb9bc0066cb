"""Frames from a camera of a MuJoCo model."""

import atexit
import os
import threading
import weakref
from typing import Any

import numpy as np

from vjepa_interfaces.errors import VjepaError, unknown_name
from vjepa_interfaces.forked import mark_initialised, refuse_fork

OPENGL = "OpenGL"


DM_CONTROL, EXACT, PLAIN = RENDERINGS = ("dm_control", "exact", "plain")
"""Three renderings: nearly as dm_control renders, exactly as it renders, or without shadows."""

SHADOW_SIZE = 256
"""Side of the shadow map, pixels. With dm_control's 2048, a frame costs four times as much."""


def refuse_unknown_rendering(name: object) -> None:
    """Refuse a name that is not in `RENDERINGS`.

    Raises:
        VjepaError: there is no such rendering; the message lists all renderings.
    """
    if name not in RENDERINGS:
        raise unknown_name("render", str(name), RENDERINGS)


class CameraView:
    """One camera of a model.

    `exact` is dm_control's own `physics.render`, pixel for pixel. `dm_control` has a small shadow map and no
    reflections: it differs from `exact` by two grey levels on average and costs a third. `plain` has no shadows either
    and costs half of `dm_control`. MuJoCo then drops the light's share too, so frames are some 25 levels darker.

    Attributes:
        renderer: MuJoCo's renderer; None until the first frame, and with `exact`.
    """

    def __init__(self, physics: Any, camera_id: int, size: tuple[int, int], rendering: str = DM_CONTROL):
        """Store the settings. The first `render` starts the renderer.

        Args:
            physics: dm_control's physics of the model.
            camera_id: number of the camera.
            size: width and height of a frame, pixels.
            rendering: one of `RENDERINGS`.

        Raises:
            VjepaError: there is no such rendering.
        """
        refuse_unknown_rendering(rendering)
        self.renderer: Any = None
        self._physics, self._camera_id, self._size, self._rendering = physics, camera_id, size, rendering
        self._thread: int | None = None
        self._flags: tuple[bool | None, bool | None] = (None, None)
        self._stale: set[int] = set()

    def render(self) -> np.ndarray:
        """Return a frame of the present state: (height, width, 3) uint8 RGB, contiguous, a new array.

        The OpenGL context belongs to the thread of the first call. Call `render` and `close` from that thread alone.
        The first call takes some 0.2 s to start the renderer.

        Raises:
            ForkedError: this process was forked after its parent had rendered.
            VjepaError: another thread called it, `MUJOCO_GL` disables rendering, or its backend does not work.
        """
        refuse_fork(OPENGL)
        if self._thread is None:
            self._start()
            self._thread = threading.get_ident()
        if threading.get_ident() != self._thread:
            raise VjepaError("render() was called from a second thread; an OpenGL context serves one thread only")
        self._upload_stale()
        if self._rendering == EXACT:
            width, height = self._size
            return self._physics.render(height, width, self._camera_id)
        self.renderer.update_scene(self._physics.data.ptr, self._camera_id)
        return self.renderer.render()

    def set_flags(self, shadows: bool | None, reflections: bool | None) -> None:
        """Switch shadows and reflections on or off, except with `exact`. None stands for the rendering's own choice."""
        self._flags = shadows, reflections
        if self.renderer is not None:
            self._apply_flags()

    def upload(self, texture: int) -> None:
        """Upload the texture of that number from the model before the next frame."""
        self._stale.add(texture)

    def _upload_stale(self) -> None:
        import mujoco

        if not self._stale:
            return
        model = self._physics.model.ptr
        if self._rendering == EXACT:
            contexts = self._physics.contexts
            with contexts.gl.make_current() as context:
                for texture in self._stale:
                    context.call(mujoco.mjr_uploadTexture, model, contexts.mujoco.ptr, texture)
        else:
            self.renderer._gl_context.make_current()
            for texture in self._stale:
                mujoco.mjr_uploadTexture(model, self.renderer._mjr_context, texture)
        self._stale.clear()

    def _apply_flags(self) -> None:
        import mujoco

        shadows, reflections = self._flags
        flags = self.renderer.scene.flags
        flags[mujoco.mjtRndFlag.mjRND_SHADOW] = self._rendering == DM_CONTROL if shadows is None else shadows
        flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = bool(reflections)

    def close(self) -> None:
        """Free the renderer. A second call does nothing."""
        if self.renderer is not None:
            self.renderer.close()
            self.renderer = None
        self._thread = None

    def _start(self) -> None:
        import mujoco

        if not hasattr(mujoco, "GLContext"):
            raise VjepaError("rendering is disabled by MUJOCO_GL; set it to egl or osmesa, or unset it")
        mark_initialised(OPENGL)
        width, height = self._size
        model = self._physics.model.ptr
        model.vis.global_.offwidth, model.vis.global_.offheight = width, height
        if self._rendering == DM_CONTROL:
            model.vis.quality.shadowsize = SHADOW_SIZE  # The new context reads it.
        try:
            if self._rendering == EXACT:
                self._physics.render(height, width, self._camera_id)
                return
            renderer = mujoco.Renderer(model, height=height, width=width)
        except Exception as error:  # Each backend raises errors of its own: of mujoco, of PyOpenGL or of Python.
            backend = os.environ.get("MUJOCO_GL", "")
            raise VjepaError(
                f"MuJoCo's renderer of {width} x {height} pixels does not start with MUJOCO_GL='{backend}': "
                f"{type(error).__name__}: {error}; unset MUJOCO_GL, or set it to egl or osmesa"
            ) from error
        _renderers.add(renderer)
        atexit.unregister(_close_renderers)
        atexit.register(_close_renderers)
        self.renderer = renderer
        self._apply_flags()


_renderers: weakref.WeakSet[Any] = weakref.WeakSet()


def _close_renderers() -> None:
    """Close open renderers when Python exits, before the exit handler of mujoco.egl ends EGL."""
    for renderer in list(_renderers):
        renderer.close()
