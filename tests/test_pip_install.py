"""What `pip install --no-deps ros2_ws/src/*/` gives a server that only trains: no colcon, and no running ROS."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "ros2_ws" / "src"

pytestmark = pytest.mark.slow


def run(*command: str | Path, folder: Path) -> str:
    """Run a command without the workspace's installation, and return its output."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "AMENT_PREFIX_PATH", "ROS_DISTRO")
    }
    done = subprocess.run(command, env=clean, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Path:
    """Return the `bin` of an environment with the packages and, from this one, what they need."""
    folder = tmp_path_factory.mktemp("server")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "env", folder=folder)
    python = folder / "env" / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run(python, "-c", code, folder=folder).strip())
    (site / "of_the_tests.pth").write_text(sysconfig.get_path("purelib"))
    # A build leaves files beside the sources.
    packages = [shutil.copytree(path, folder / path.name) for path in sorted(SOURCES.iterdir()) if path.is_dir()]
    pip = [sys.executable, "-m", "pip", f"--python={python}", "--disable-pip-version-check", "install", "--quiet"]
    run(*pip, "--no-deps", "--no-index", "--no-build-isolation", *packages, folder=folder)
    return python.parent


def test_it_collects_trains_and_evaluates(server, tmp_path):
    vjepa = server / "vjepa"
    run(vjepa, "collect", "--out", "data", "--episodes", "4", "--episode-steps", "10", folder=tmp_path)
    run(vjepa, "train", "bc", "--data", "data", "--out", "policy", "--epochs", "1", folder=tmp_path)
    command = [
        vjepa,
        "eval",
        "--through",
        "process",
        "--planner",
        "bc",
        "--bc-bundle",
        "policy",
        "--json",
        "result.json",
    ]
    run(*command, "--protocol", "baseline", "--episodes", "1", folder=tmp_path)
    assert json.loads((tmp_path / "result.json").read_text())["episodes"] == 1
    code = "import vjepa_training; print(vjepa_training.__file__)"
    assert run(server / "python", "-c", code, folder=tmp_path).startswith(str(server.parent))


def test_shipped_bundles_and_experiments_are_there(server, tmp_path):
    assert "bc" in run(server / "vjepa", "reproduce", "--list", folder=tmp_path)
    code = "from vjepa_interfaces.bundle import shipped_bundles; print(shipped_bundles('policy'))"
    assert "bc-small" in run(server / "python", "-c", code, folder=tmp_path)
