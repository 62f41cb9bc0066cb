"""What a camera of a MuJoCo model sees, as frames."""

import atexit
import os
import threading
import weakref
from typing import Any

import numpy as np

from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.forked import mark_initialised, refuse_fork

OPENGL = "OpenGL"


class CameraView:
    """One camera of a model, rendered without shadows and reflections.

    These cost most of the time and show nothing the planner needs.

    Attributes:
        renderer: MuJoCo's own; None until the first frame.
    """

    def __init__(self, physics: Any, camera_id: int, size: tuple[int, int]):
        """Keep what to render; nothing is started yet.

        Args:
            physics: dm_control's physics of the model.
            camera_id: number of the camera.
            size: frames' width and height, pixels.
        """
        self.renderer: Any = None
        self._physics, self._camera_id, self._size = physics, camera_id, size
        self._thread: int | None = None

    def render(self) -> np.ndarray:
        """Return the view of the present state: (height, width, 3) uint8 RGB, contiguous, a new array.

        The OpenGL context belongs to the thread of the first call: call this and `close` from that thread alone. The
        first call takes some 0.2 s to start the renderer.

        Raises:
            ForkedError: this process was forked after its parent had rendered.
            VjepaError: called from another thread, rendering is disabled by `MUJOCO_GL`, or its backend does not work.
        """
        refuse_fork(OPENGL)
        if self.renderer is None:
            self.renderer = self._make_renderer()
            self._thread = threading.get_ident()
        if threading.get_ident() != self._thread:
            raise VjepaError("render() was called from a second thread; an OpenGL context serves one thread only")
        self.renderer.update_scene(self._physics.data.ptr, self._camera_id)
        return self.renderer.render()

    def close(self) -> None:
        """Free the renderer; harmless when called again."""
        if self.renderer is not None:
            self.renderer.close()
            self.renderer = None

    def _make_renderer(self) -> Any:
        import mujoco

        if not hasattr(mujoco, "GLContext"):
            raise VjepaError("rendering is disabled by MUJOCO_GL; set it to egl or osmesa, or unset it")
        mark_initialised(OPENGL)
        width, height = self._size
        model = self._physics.model.ptr
        model.vis.global_.offwidth, model.vis.global_.offheight = width, height
        try:
            renderer = mujoco.Renderer(model, height=height, width=width)
        except Exception as error:  # mujoco's, PyOpenGL's and the language's own, by backend.
            backend = os.environ.get("MUJOCO_GL", "")
            raise VjepaError(
                f"MuJoCo's renderer of {width} x {height} pixels does not start with MUJOCO_GL='{backend}': "
                f"{type(error).__name__}: {error}; unset MUJOCO_GL, or set it to egl or osmesa"
            ) from error
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        _renderers.add(renderer)
        atexit.unregister(_close_renderers)
        atexit.register(_close_renderers)
        return renderer


_renderers: weakref.WeakSet[Any] = weakref.WeakSet()


def _close_renderers() -> None:
    """Close the renderers still open when Python exits, before mujoco.egl's own exit handler ends EGL under them."""
    for renderer in list(_renderers):
        renderer.close()
