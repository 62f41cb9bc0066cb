"""What a camera of a MuJoCo model sees, as frames."""

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
"""How frames are rendered: nearly as dm_control does, exactly as it does, or without shadows."""

SHADOW_SIZE = 256
"""Pixels along a side of the shadow map; dm_control's has 2048, which costs four times the frame."""


def refuse_unknown_rendering(name: object) -> None:
    """Refuse what is not one of `RENDERINGS`.

    Raises:
        VjepaError: naming it, and those there are.
    """
    if name not in RENDERINGS:
        raise unknown_name("render", str(name), RENDERINGS)


class CameraView:
    """One camera of a model.

    `exact` is dm_control's own `physics.render`, pixel for pixel. `dm_control` differs from it by two grey levels on
    average and costs a third: a small shadow map, no reflections. `plain` has no shadows either, which costs half of
    that again; MuJoCo then drops the light's share too, so it is some 25 levels darker.

    Attributes:
        renderer: MuJoCo's own; None until the first frame, and with `exact`.
    """

    def __init__(self, physics: Any, camera_id: int, size: tuple[int, int], rendering: str = DM_CONTROL):
        """Keep what to render; nothing is started yet.

        Args:
            physics: dm_control's physics of the model.
            camera_id: number of the camera.
            size: frames' width and height, pixels.
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
        """Return the view of the present state: (height, width, 3) uint8 RGB, contiguous, a new array.

        The OpenGL context belongs to the thread of the first call: call this and `close` from that thread alone. The
        first call takes some 0.2 s to start the renderer.

        Raises:
            ForkedError: this process was forked after its parent had rendered.
            VjepaError: called from another thread, rendering is disabled by `MUJOCO_GL`, or its backend does not work.
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
        """Render with these or without from now on, except with `exact`; None is as the rendering has it."""
        self._flags = shadows, reflections
        if self.renderer is not None:
            self._apply_flags()

    def upload(self, texture: int) -> None:
        """Have the texture of that number read anew from the model before the next frame."""
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
        """Free the renderer; harmless when called again."""
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
            model.vis.quality.shadowsize = SHADOW_SIZE  # Read when the context is made.
        try:
            if self._rendering == EXACT:
                self._physics.render(height, width, self._camera_id)
                return
            renderer = mujoco.Renderer(model, height=height, width=width)
        except Exception as error:  # mujoco's, PyOpenGL's and the language's own, by backend.
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
    """Close the renderers still open when Python exits, before mujoco.egl's own exit handler ends EGL under them."""
    for renderer in list(_renderers):
        renderer.close()
