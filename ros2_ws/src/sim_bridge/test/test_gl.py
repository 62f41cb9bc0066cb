import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from sim_bridge.gl import choose_gl_backend
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


def test_osmesa_is_chosen_where_egl_is_missing():
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
