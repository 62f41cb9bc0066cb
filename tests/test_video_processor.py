"""Our preprocessing equals the real VJEPA2VideoProcessor, bit for bit.

transformers' processor needs torchvision, which `make test` installs apart (see requirements/torchvision.in).
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TORCHVISION = ROOT / ".vjepa" / "torchvision"
TESTS = ROOT / "ros2_ws/src/vjepa_perception/test/test_preprocessing.py"


@pytest.mark.slow
@pytest.mark.skipif(
    not TORCHVISION.is_dir() and not os.environ.get("CI"), reason="torchvision is not there; run `make test`"
)
def test_preprocessing_equals_the_checkpoints_own_video_processor():
    assert TORCHVISION.is_dir(), "no torchvision in .vjepa; run `make test`, which installs it there"
    environment = {**os.environ, "PYTHONPATH": f"{TORCHVISION}{os.pathsep}{os.environ['PYTHONPATH']}"}
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "processor", str(TESTS)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"\d+ passed", result.stdout)
    assert "skipped" not in result.stdout, "with torchvision there, nothing may be skipped"
