"""Processes are started, restarted within limits, and gone when the supervisor has stopped, whatever they do."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml

from vjepa_bringup import supervisor as module
from vjepa_bringup.graph import NodeSpec
from vjepa_bringup.supervisor import MAX_RESTARTS, Supervisor
from vjepa_interfaces.errors import VjepaError

DEADLINE_S = 20.0

NODES = {
    "quiet": "trap 'say TERM; exit 0' TERM; say up; while :; do sleep 0.05; done",
    "stubborn": "trap 'say TERM' TERM INT HUP; say up; while :; do sleep 0.05; done",
    "parent": "sh -c 'trap : TERM; while :; do sleep 0.05; done' & echo $! > $LOG.child; say up; wait; wait; wait",
    "dying": "say up; exit 3",
    "refusing": "say up; exit 2",
    "arguments": 'printf "%s\\n" "$@" > $LOG; env > $LOG.env; cat $5 > $LOG.parameters; say up; exit 2',
}
"""Stand-ins for a package's executables, in shell; `say` writes a line into the node's own log."""


@pytest.fixture
def logs(tmp_path, monkeypatch) -> Path:
    """Install the package `fakes` whose executables are `NODES`; each logs into the folder returned."""
    folder = tmp_path / "fakes" / "lib" / "fakes"
    folder.mkdir(parents=True)
    logs = tmp_path / "logs"
    logs.mkdir()
    for name, script in NODES.items():
        file = folder / name
        file.write_text(f'#!/bin/sh\nLOG={logs}/{name}\nsay() {{ echo "$1 $(date +%s.%N)" >> $LOG; }}\n{script}\n')
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    index = tmp_path / "fakes" / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    (index / "fakes").write_text("")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path / "fakes"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(module, "RESTART_DELAY_S", 0.05)
    return logs


@pytest.fixture
def supervisor(logs):
    supervisor = Supervisor({"A_VARIABLE": "of the stack"}, "/left_arm/", "warn")
    yield supervisor
    supervisor.stop(hurry=lambda: True)


def node(executable: str, lifecycle: bool = True, **options) -> NodeSpec:
    return NodeSpec("fakes", executable, f"{executable}_node", lifecycle=lifecycle, **options)


def wait_for(condition, what: str):
    deadline = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {DEADLINE_S} s"
        time.sleep(0.01)
    return value


def said(logs: Path, executable: str) -> list[tuple[str, float]]:
    file = logs / executable
    lines = file.read_text().splitlines() if file.exists() else []
    return [(word, float(when)) for word, when in (line.split() for line in lines)]


def start(supervisor: Supervisor, logs: Path, *executables: str) -> None:
    supervisor.start([node(name, lifecycle=name != "stubborn") for name in executables])
    wait_for(lambda: all(said(logs, name) for name in executables), "all nodes to be up")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_node_gets_its_name_parameters_remappings_and_environment(supervisor, logs):
    parameters = {"planner": "expert", "gains": [1.0, 2.0], "expert.kp": 3.0}
    supervisor.start([node("arguments", parameters=parameters, remappings={"camera/image_raw": "webcam"})])
    wait_for(supervisor.poll, "the node to end")
    arguments = (logs / "arguments").read_text().splitlines()[:-1]
    assert arguments[0] == "--ros-args"
    assert "__node:=arguments_node" in arguments
    assert "__ns:=/left_arm" in arguments
    assert arguments[arguments.index("--enclave") + 1] == "/vjepa/left_arm/arguments_node"
    assert "camera/image_raw:=webcam" in arguments
    assert yaml.safe_load((logs / "arguments.parameters").read_text()) == {"/**": {"ros__parameters": parameters}}
    assert "A_VARIABLE=of the stack" in (logs / "arguments.env").read_text().splitlines()


def test_a_variable_of_one_node_is_in_its_environment_alone(supervisor, logs):
    secret = node("arguments", environment={"VJEPA_CAMERA_SOURCE": "rtsp://me:secret@cam"})
    supervisor.start([secret, node("quiet")])
    wait_for(lambda: supervisor.poll() and said(logs, "quiet"), "one node to end, the other to be up")
    assert "VJEPA_CAMERA_SOURCE=rtsp://me:secret@cam" in (logs / "arguments.env").read_text().splitlines()
    other = Path(f"/proc/{supervisor.pids()['quiet_node']}")
    assert b"secret" not in (other / "environ").read_bytes() + (other / "cmdline").read_bytes()
    assert "secret" not in (logs / "arguments").read_text() + (logs / "arguments.parameters").read_text()


def test_a_node_that_dies_is_started_again_within_limits_then_given_up_with_its_name(supervisor, logs):
    supervisor.start([node("dying")])
    (failure,) = wait_for(supervisor.poll, "the node to be given up")
    assert failure == f"dying_node ended {MAX_RESTARTS + 1} times, last with status 3"
    assert len(said(logs, "dying")) == MAX_RESTARTS + 1
    assert supervisor.restarts() == {"dying_node": MAX_RESTARTS}


def test_a_node_that_refuses_its_parameters_is_not_started_again(supervisor, logs):
    supervisor.start([node("refusing")])
    assert wait_for(supervisor.poll, "the node to be given up") == ["refusing_node refused its parameters"]
    assert len(said(logs, "refusing")) == 1


def test_a_node_that_was_killed_is_started_again(supervisor, logs):
    start(supervisor, logs, "quiet")
    pid = supervisor.pids()["quiet_node"]
    os.kill(pid, signal.SIGKILL)

    def again():
        assert supervisor.poll() == []
        return len(said(logs, "quiet")) == 2

    wait_for(again, "the node to be up again")
    assert supervisor.pids()["quiet_node"] != pid
    assert supervisor.restarts() == {"quiet_node": 1}


def test_stopping_ends_all_nodes_gently_the_stack_manager_before_the_others(supervisor, logs):
    supervisor.start([node("quiet"), NodeSpec("fakes", "arguments", "done"), node("stubborn", lifecycle=False)])
    wait_for(lambda: said(logs, "quiet") and said(logs, "stubborn"), "the nodes to be up")
    pids = list(supervisor.pids().values())
    manager = supervisor.children[2].process

    def hurry():
        if manager.poll() is None and len(said(logs, "stubborn")) == 2:
            manager.kill()
        return False

    supervisor.stop(hurry)
    assert [word for word, _ in said(logs, "quiet")] == ["up", "TERM"]
    assert said(logs, "stubborn")[1][1] < said(logs, "quiet")[1][1]
    assert not any(map(alive, pids))


def test_a_node_that_does_not_end_is_ended_by_force(supervisor, logs, monkeypatch):
    monkeypatch.setattr(supervisor, "manager_down_s", 0.3)
    monkeypatch.setattr(supervisor, "node_down_s", 0.3)
    start(supervisor, logs, "stubborn", "quiet")
    pids = list(supervisor.pids().values())
    supervisor.stop()
    assert [word for word, _ in said(logs, "quiet")] == ["up", "TERM"]
    assert not any(map(alive, pids))


def test_in_a_hurry_everything_is_ended_by_force_at_once(supervisor, logs):
    start(supervisor, logs, "stubborn", "quiet")
    pids = list(supervisor.pids().values())
    started = time.monotonic()
    supervisor.stop(hurry=lambda: True)
    assert time.monotonic() - started < supervisor.node_down_s
    assert not any(map(alive, pids))


@pytest.mark.parametrize("in_a_hurry", [True, False])
def test_what_a_node_started_itself_goes_with_it(supervisor, logs, in_a_hurry):
    start(supervisor, logs, "parent")
    child = int((logs / "parent.child").read_text())
    assert alive(child)
    supervisor.stop(hurry=lambda: in_a_hurry)
    wait_for(lambda: not alive(child), "the node's own child to end")


def test_stopping_leaves_no_files_and_starts_nothing_again(supervisor, logs, tmp_path):
    start(supervisor, logs, "quiet")
    assert len(list(tmp_path.glob("vjepa-run-*"))) == 1
    supervisor.stop()
    assert list(tmp_path.glob("vjepa-run-*")) == []
    assert supervisor.poll() == []
    assert supervisor.pids() == {}
    supervisor.stop()
    assert len([word for word, _ in said(logs, "quiet") if word == "up"]) == 1


def test_nodes_end_when_the_process_that_supervises_them_is_killed(logs, tmp_path):
    code = (
        "import sys, tempfile; tempfile.tempdir = sys.argv[1]\n"
        "from vjepa_bringup.graph import NodeSpec\n"
        "from vjepa_bringup.supervisor import Supervisor\n"
        "supervisor = Supervisor({})\n"
        "supervisor.start([NodeSpec('fakes', 'quiet', 'quiet')])\n"
        "print(supervisor.pids()['quiet'], flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with parent:
        pid = int(parent.stdout.readline())
        wait_for(lambda: said(logs, "quiet"), "the node to be up")
        parent.kill()
    wait_for(lambda: not alive(pid), "the node to end by itself")
    assert [word for word, _ in said(logs, "quiet")] == ["up", "TERM"]


@pytest.mark.parametrize(("package", "executable"), [("fakes", "missing"), ("no_such_package", "quiet")])
def test_what_is_not_built_is_refused_naming_it_and_what_to_do(supervisor, package, executable):
    with pytest.raises(VjepaError, match=rf"{package}.*build the workspace with: \./vjepa --setup-only"):
        supervisor.start([NodeSpec(package, executable, "node")])


def test_without_setpriv_nothing_is_started_nor_left(logs, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(VjepaError, match="setpriv is missing"):
        Supervisor({})
    assert list(tmp_path.glob("vjepa-run-*")) == []
