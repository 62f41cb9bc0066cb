"""Every command that needs no running stack runs where rclpy cannot be imported, as on a GPU server."""

import json
import re
import subprocess
import sys

import pytest

from vjepa_cli.commands import COMMANDS

WITH_A_STACK = {"run", "tour", "planner", "record", "status", "view", "goal", "node", "security"}
BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name == "rclpy" or name.startswith("rclpy.") or name.endswith(("_msgs", "_msgs.msg", "_srvs.srv")):
            raise ModuleNotFoundError(f"{name} is not here", name=name)

sys.meta_path.insert(0, Blocked())
from vjepa_cli.cli import main

def run(*words):
    try:
        main(words)
    except SystemExit as ended:
        assert not ended.code, (words, ended.code)
"""


def without_ros(code: str, folder) -> str:
    """Run Python in `folder`, where rclpy cannot be imported, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", BLOCKED + code], capture_output=True, text=True, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_its_options_are_known(tmp_path):
    offline = sorted(COMMANDS.keys() - WITH_A_STACK)
    assert len(offline) >= 10
    printed = without_ros(f"for name in {offline}:\n    run(name, '--help')\n", tmp_path)
    assert re.findall(r"^usage: vjepa (\w+)", printed, re.MULTILINE) == offline


@pytest.mark.timeout(120)
def test_data_is_collected_looked_into_and_a_planner_evaluated(tmp_path):
    output = without_ros(
        """
run("collect", "--out", "ds", "--episodes", "2", "--episode-steps", "4", "--no-latents", "--workers", "1")
run("dataset", "info", "ds")
run("eval", "--through", "process", "--planner", "random", "--episodes", "1", "--json", "random.json")
""",
        tmp_path,
    )
    assert json.loads((tmp_path / "random.json").read_text())["episodes"] == 1
    assert "ds" in output
