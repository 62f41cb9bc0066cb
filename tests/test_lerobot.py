"""LeRobot's own reader opens what `vjepa dataset export` writes, row by row.

lerobot and torchvision are what `make test` installs apart (see requirements/lerobot.in).
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
APART = [ROOT / ".vjepa" / name for name in ("lerobot", "torchvision")]
TESTS = ROOT / "ros2_ws/src/training/test/test_lerobot_export.py"


@pytest.mark.slow
@pytest.mark.skipif(
    not all(folder.is_dir() for folder in APART) and not os.environ.get("CI"),
    reason="lerobot is not there; run `make test`",
)
def test_lerobots_own_reader_opens_an_export(tmp_path):
    for folder in APART:
        assert folder.is_dir(), f"no {folder.name} in .vjepa; run `make test`, which installs it there"
    path = os.pathsep.join([*map(str, APART), os.environ["PYTHONPATH"]])
    environment = {**os.environ, "PYTHONPATH": path, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n0", "-k", "reader", str(TESTS)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"\d+ passed", result.stdout)
    assert "skipped" not in result.stdout, "with lerobot there, nothing may be skipped"
