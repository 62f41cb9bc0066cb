import ctypes
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from sim_bridge.gl import GLSettingError, choose_gl_backend
from vjepa_interfaces.errors import VjepaError


@pytest.fixture(autouse=True)
def nothing_chosen_yet(monkeypatch):
    """As in a process that has not imported mujoco, whatever other tests did in this one."""
    monkeypatch.delitem(sys.modules, "mujoco", raising=False)
    monkeypatch.setenv("PYOPENGL_PLATFORM", "")
    monkeypatch.setenv("MUJOCO_GL", "")


def libraries(*present: str):
    """Return a loader that finds only these libraries, empty ones."""

    def load(name):
        if name not in present:
            raise OSError(f"{name}: cannot open shared object file")
        return SimpleNamespace()

    return load


def driver_of(*devices_work: bool):
    """Return a loader of an EGL with these devices, and the list of the displays it is made to initialise."""
    initialised = []

    @ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_int))
    def query_devices(_, devices, count):
        for index in range(len(devices_work)):
            devices[index] = index + 1
        count[0] = len(devices_work)
        return 1

    @ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p)
    def get_display(platform, device, attributes):
        return 100 + device

    functions = {b"eglQueryDevicesEXT": query_devices, b"eglGetPlatformDisplayEXT": get_display}

    def initialize(display, *_):
        initialised.append(display)
        return devices_work[display - 101]

    egl = SimpleNamespace(
        eglGetProcAddress=lambda name: ctypes.cast(functions[name], ctypes.c_void_p).value,
        eglInitialize=initialize,
        eglTerminate=lambda display: 1,
    )
    for function in vars(egl).values():
        function.argtypes = function.restype = None
    return lambda name: egl if name == "libEGL.so.1" else SimpleNamespace(), initialised


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess:
    kept = {key: value for key, value in os.environ.items() if key not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    return subprocess.run(
        [sys.executable, "-c", code], env=kept | environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_machine_without_libraries_is_told_the_packages():
    with pytest.raises(VjepaError) as refusal:
        choose_gl_backend(libraries())
    assert "apt-get install libegl1 libgl1 libgl1-mesa-dri" in str(refusal.value)
    assert "apt-get install libosmesa6" in str(refusal.value)
    assert "libEGL.so.1: cannot open shared object file" in str(refusal.value)
    assert os.environ["MUJOCO_GL"] == ""


def test_egl_without_desktop_opengl_is_not_chosen():
    with pytest.raises(VjepaError, match=r"egl: found none of libOpenGL\.so\.0, libGL\.so\.1"):
        choose_gl_backend(libraries("libEGL.so.1"))


def test_egl_is_chosen_by_the_first_device_that_starts():
    load, initialised = driver_of(False, True, True)
    assert choose_gl_backend(load) == "egl"
    assert initialised == [101, 102]
    assert os.environ["MUJOCO_GL"] == os.environ["PYOPENGL_PLATFORM"] == "egl"


def test_osmesa_is_chosen_where_no_egl_device_starts():
    load, initialised = driver_of(False, False)
    assert choose_gl_backend(load) == "osmesa"
    assert initialised == [101, 102]


def test_only_the_egl_device_asked_for_counts(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "1")
    load, initialised = driver_of(True, False)
    with pytest.raises(VjepaError, match="could be initialised"):
        choose_gl_backend(load)
    assert initialised == [102]
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "2")
    with pytest.raises(VjepaError, match="MUJOCO_EGL_DEVICE_ID is '2', expected a whole number below 2"):
        choose_gl_backend(load)


@pytest.mark.parametrize("backend", ["", "egl"])
@pytest.mark.parametrize("device", ["7", "-1", "", "gpu"])
def test_a_device_that_is_not_there_is_a_wrong_setting_that_no_package_mends(monkeypatch, backend, device):
    monkeypatch.setenv("MUJOCO_GL", backend)
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", device)
    load, initialised = driver_of(True)
    with pytest.raises(GLSettingError, match=f"MUJOCO_EGL_DEVICE_ID is '{device}', .*below 1.*unset it") as refusal:
        choose_gl_backend(load)
    assert "apt-get" not in str(refusal.value)
    assert not initialised


@pytest.mark.parametrize("display", [None, ":4711"])
def test_a_backend_that_needs_a_display_is_refused_where_there_is_none(monkeypatch, display):
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    if display:
        monkeypatch.setenv("DISPLAY", display)
    with pytest.raises(GLSettingError, match=r"MUJOCO_GL is 'glfw', .* display, but .*DISPLAY.*unset MUJOCO_GL"):
        choose_gl_backend()


def test_osmesa_is_chosen_where_egl_is_egl_is_missing():
    assert choose_gl_backend(libraries("libOSMesa.so.8")) == "osmesa"
    assert os.environ["MUJOCO_GL"] == os.environ["PYOPENGL_PLATFORM"] == "osmesa"


def test_the_backend_asked_for_is_never_replaced_by_another(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "egl")
    with pytest.raises(VjepaError, match="unset MUJOCO_GL, which asks for egl"):
        choose_gl_backend(libraries("libOSMesa.so.8"))


def test_the_backend_asked_for_brings_its_pyopengl_platform(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "OSMesa")
    monkeypatch.setenv("PYOPENGL_PLATFORM", "egl")
    assert choose_gl_backend(libraries("libEGL.so.1", "libOSMesa.so.8")) == "osmesa"
    assert os.environ["PYOPENGL_PLATFORM"] == "osmesa"


def test_rendering_may_be_disabled(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disable")
    assert choose_gl_backend(libraries()) == "disable"


def test_an_unknown_backend_is_refused_with_the_known_ones(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "vulkan")
    with pytest.raises(VjepaError, match=r"'vulkan'; valid are: .*egl.*osmesa"):
        choose_gl_backend()


def test_a_choice_after_mujoco_was_imported_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco", SimpleNamespace())
    with pytest.raises(VjepaError, match="imported before"):
        choose_gl_backend()


def test_libraries_without_a_driver_are_found_out():
    """The real libEGL.so.1, if there is one, with no vendor's driver to be found."""
    code = "from sim_bridge.gl import choose_gl_backend; choose_gl_backend()"
    run = run_python(code, MUJOCO_GL="egl", __EGL_VENDOR_LIBRARY_DIRS="/nonexistent")
    assert "VjepaError: MuJoCo cannot render here (egl: " in run.stderr


def test_importing_the_environment_imports_neither_mujoco_nor_opengl():
    code = (
        "import sys, sim_bridge.env; from sim_bridge.gl import choose_gl_backend; choose_gl_backend(); "
        "print({'mujoco', 'dm_control', 'OpenGL', 'torch', 'rclpy'} & set(sys.modules))"
    )
    run = run_python(code)
    assert run.stdout.strip() == "set()", run.stderr


def test_an_environment_left_open_ends_without_a_complaint():
    code = (
        "from sim_bridge.env import SimConfig, SimEnv; env = SimEnv(SimConfig()); env.reset(); "
        "print(env.render().shape)"
    )
    run = run_python(code)
    assert (run.stdout.strip(), run.stderr) == ("(64, 64, 3)", "")
