"""ROS's own command-line tools on a running stack, where they are installed; there are no wheels of them."""

import json
import os
import signal
import subprocess
import sys

import pytest

from vjepa_cli.cli import main

pytest.importorskip("ros2cli", reason="the ros2 command comes with an installed ROS 2; there is no wheel of it")
ROS2 = [sys.executable, "-c", "import sys; from ros2cli.cli import main; sys.exit(main())"]
ANSWER_S = 60.0
LOOK_S = "10"
"""For discovery: without its daemon `ros2` sees nothing of a graph at first."""


@pytest.fixture
def ros2(start_stack):
    """Return a function that starts a stack, and one that runs `ros2` in its domain while the stack is listened to."""

    def start(**options):
        stack = start_stack(**{"lockstep": True, "episode_steps": 1000, **options})
        stack.wait_for_steps(1)

        def run(*arguments: str) -> tuple[int, str]:
            environment = os.environ | {"ROS_DOMAIN_ID": str(stack.domain)}
            pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
            with subprocess.Popen([*ROS2, *arguments], env=environment, **pipe) as process:
                stack.wait_for(lambda: process.poll() is not None, f"ros2 {arguments[0]}", ANSWER_S)
                return process.returncode, process.stdout.read()

        return stack, run

    return start


def test_ros2_param_set_swaps_the_planner_and_refuses_an_unknown_one(ros2):
    pytest.importorskip("ros2param", reason="ros2 param comes with an installed ROS 2")
    stack, run = ros2(planner="expert")
    direct = ("--no-daemon", "--spin-time", LOOK_S)
    status, said = run("param", "set", *direct, "/vjepa_planner", "planner", "expert-p")
    assert status == 0, said
    stack.wait_for(lambda: stack.driver == "expert-p", "expert-p to drive")
    _, said = run("param", "set", *direct, "/vjepa_planner", "planner", "teleport")
    assert "unknown planner 'teleport'" in said
    stack.wait_for_steps(5)
    assert stack.driver == "expert-p"


def test_ros2_lifecycle_shows_every_node_active_and_takes_the_planner_down_and_up(ros2):
    pytest.importorskip("ros2lifecycle", reason="ros2 lifecycle comes with an installed ROS 2")
    stack, run = ros2(planner="expert")
    direct = ("--no-daemon", "--spin-time", LOOK_S)
    for node in ("sim_bridge", "vjepa_perception", "vjepa_planner", "episode_recorder"):
        assert run("lifecycle", "get", *direct, f"/{node}") == (0, "active [3]\n")
    assert run("lifecycle", "set", *direct, "/vjepa_planner", "deactivate")[0] == 0
    assert run("lifecycle", "get", *direct, "/vjepa_planner") == (0, "inactive [2]\n")
    assert run("service", "call", "/stack_manager/resume", "std_srvs/srv/Trigger")[0] == 0
    stack.wait_for_steps(5)


def test_a_bag_of_ros2_bag_record_becomes_a_dataset(ros2, tmp_path, capsys):
    pytest.importorskip("rosbag2_py", reason="ros2 bag comes with an installed ROS 2")
    stack, _ = ros2(planner="expert", episode_steps=30)
    bag = tmp_path / "bag"
    recorded = ["/camera/image_raw", "/joint_states", "/joint_command", "/sim_bridge/timestep"]
    environment = os.environ | {"ROS_DOMAIN_ID": str(stack.domain)}
    with subprocess.Popen([*ROS2, "bag", "record", "--output", str(bag), *recorded], env=environment) as process:
        stack.wait_for(lambda: stack.node.count_subscribers("/sim_bridge/timestep") > 1, "the recorder")
        stack.wait_for_episodes(len(stack.scores.finished) + 3)
        process.send_signal(signal.SIGINT)
        stack.wait_for(lambda: process.poll() is not None, "the end of the bag")
    with pytest.raises(SystemExit) as ended:
        main(["dataset", "build", str(bag), "--task", "reacher-easy", "--out", str(tmp_path / "data")])
    assert ended.value.code == 0, capsys.readouterr().err
    assert json.loads((tmp_path / "data" / "info.json").read_text())["rows"] >= 60
