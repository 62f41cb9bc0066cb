"""The choice of MuJoCo's OpenGL backend: EGL if it works, else OSMesa. Neither needs a display.

MuJoCo, dm_control and PyOpenGL each read `MUJOCO_GL` and `PYOPENGL_PLATFORM` once, at their first import. So the choice
comes before these imports and uses ctypes alone. Like `mujoco.egl`, it enumerates EGL's devices and initialises one.
"""

import ctypes
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

from vjepa_interfaces.errors import VjepaError, unknown_name

EGL_PACKAGES = "libegl1 libgl1 libgl1-mesa-dri"
OSMESA_PACKAGES = "libosmesa6"
"""Packages of Debian 12 and Ubuntu 24.04 for each backend, with Mesa's software driver."""

UNCHECKED_BACKENDS = ("disable", "disabled", "off", "false", "0")
"""Values of `MUJOCO_GL` that disable rendering; used only on request."""
DISPLAY_BACKEND = "glfw"
"""The backend for a machine with a display; used only on request."""

_PLATFORM_DEVICE_EXT = 0x313F
_MAX_DEVICES = 10


class GLSettingError(VjepaError):
    """An environment variable names a backend, device or display that does not exist. No package provides it."""


LoadLibrary = Callable[[str], ctypes.CDLL]


def choose_gl_backend(load_library: LoadLibrary = ctypes.CDLL) -> str:
    """Choose an OpenGL backend and set `MUJOCO_GL` and `PYOPENGL_PLATFORM` accordingly.

    Call it before the first import of mujoco, dm_control or OpenGL; further calls are harmless. It takes some
    20 milliseconds, mostly to start the graphics driver, which the renderer need not start again.

    Args:
        load_library: opens a shared library by name, or raises OSError.

    Returns:
        The value of `MUJOCO_GL`: the user's value if it is set, else `egl` or `osmesa`.

    Raises:
        GLSettingError: the backend or display of `MUJOCO_GL`, or the device of `MUJOCO_EGL_DEVICE_ID`, does not exist.
        VjepaError: no backend works, the backend of `MUJOCO_GL` does not work, or mujoco was imported too early.
    """
    asked = os.environ.get("MUJOCO_GL", "").lower().strip()
    if "mujoco" in sys.modules:
        if not asked:
            raise VjepaError(
                "mujoco was imported before an OpenGL backend was chosen; call choose_gl_backend() first, "
                "or set MUJOCO_GL to egl or osmesa before starting Python"
            )
        return asked
    if asked in UNCHECKED_BACKENDS:
        return asked
    if asked == DISPLAY_BACKEND:
        _check_display()
        return asked
    if asked and asked not in _CHECKS:
        valid = (*_CHECKS, DISPLAY_BACKEND, *UNCHECKED_BACKENDS)
        raise GLSettingError(str(unknown_name("OpenGL backend in MUJOCO_GL", asked, valid)))
    reasons = []
    for name in (asked,) if asked else _CHECKS:
        try:
            _CHECKS[name](load_library)
        except OSError as error:
            reasons.append(f"{name}: {error}")
        else:
            os.environ["MUJOCO_GL"] = os.environ["PYOPENGL_PLATFORM"] = name
            return name
    raise VjepaError(
        f"MuJoCo cannot render here ({'; '.join(reasons)}). On Debian or Ubuntu install EGL with "
        f"'apt-get install {EGL_PACKAGES}', or OSMesa with 'apt-get install {OSMESA_PACKAGES}'"
        + (f"; or unset MUJOCO_GL, which asks for {asked}" if asked else "")
    )


def _check_egl(load_library: LoadLibrary) -> None:
    """Raise OSError if `mujoco.egl` cannot initialise any EGL device."""
    egl = load_library("libEGL.so.1")
    # PyOpenGL needs one of these libraries, the entry points of desktop OpenGL, and its own error hides the cause.
    _load_any(load_library, "libOpenGL.so.0", "libGL.so.1")
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    query_devices = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
    get_display = egl.eglGetProcAddress(b"eglGetPlatformDisplayEXT")
    if not query_devices or not get_display:
        raise OSError("libEGL.so.1 cannot enumerate devices (EGL_EXT_device_enumeration, EGL_EXT_platform_device)")
    query_devices = ctypes.CFUNCTYPE(
        ctypes.c_uint, ctypes.c_int, ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_int)
    )(query_devices)
    get_display = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p)(get_display)
    egl.eglInitialize.argtypes = [ctypes.c_void_p] * 3
    egl.eglTerminate.argtypes = [ctypes.c_void_p]

    devices, count = (ctypes.c_void_p * _MAX_DEVICES)(), ctypes.c_int()
    query_devices(_MAX_DEVICES, devices, ctypes.byref(count))
    allowed = _allowed_devices(devices[: count.value])
    for device in allowed:
        display = get_display(_PLATFORM_DEVICE_EXT, device, None)
        if display and egl.eglInitialize(display, None, None):
            egl.eglTerminate(display)
            return
    raise OSError(f"none of {len(allowed)} EGL devices could be initialised, so a driver is missing")


def _allowed_devices(devices: list[Any]) -> list[Any]:
    """Return the EGL devices that mujoco will try: the device of `MUJOCO_EGL_DEVICE_ID`, or all."""
    selected = os.environ.get("MUJOCO_EGL_DEVICE_ID")
    if selected is None:
        return devices
    if devices and (not selected.isdecimal() or int(selected) >= len(devices)):
        raise GLSettingError(
            f"MUJOCO_EGL_DEVICE_ID is '{selected}', expected a whole number below {len(devices)}, the number of this "
            "machine's EGL devices; correct it, or unset it to try each of them"
        )
    return devices and [devices[int(selected)]]


def _check_display() -> None:
    """Raise GLSettingError if GLFW cannot open a window."""
    shown = next((name for name in ("WAYLAND_DISPLAY", "DISPLAY") if os.environ.get(name)), None)
    reason = "neither DISPLAY nor WAYLAND_DISPLAY is set"
    if shown:
        reason = f"the display of {shown}={os.environ[shown]} cannot be opened"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # GLFW's warning repeats the reason above.
                import glfw

                if glfw.init():
                    return
        except ImportError as error:
            reason = f"glfw is not importable: {error}"
    raise GLSettingError(
        f"MUJOCO_GL is '{DISPLAY_BACKEND}', which draws on a display, but {reason}; unset MUJOCO_GL to render without "
        "one, or set it to egl or osmesa"
    )


def _check_osmesa(load_library: LoadLibrary) -> None:
    """Raise OSError if OSMesa's library is missing."""
    _load_any(load_library, "libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so")


def _load_any(load_library: LoadLibrary, *names: str) -> None:
    """Load the first of `names` that exists, or raise OSError."""
    for name in names:
        try:
            load_library(name)
            return
        except OSError:
            continue
    raise OSError(f"found none of {', '.join(names)}")


_CHECKS = {"egl": _check_egl, "osmesa": _check_osmesa}
