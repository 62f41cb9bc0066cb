"""What `./vjepa` does and when, observed on a copy of the script whose Python, pip, colcon, apt and sudo are stand-ins.

Every stand-in writes its arguments to one file of calls; nothing is downloaded or built.
"""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GL_COMMAND = "sudo apt-get install -y libegl1 libgl1 libgl1-mesa-dri"

# Plays the system's Python and, copied into the virtual environment, the one there.
PYTHON = r"""#!/bin/bash
echo "python $*" >>"$CALLS"
case "$*" in
  '-c import sys; print('*) [[ -n $FAKE_VERSION ]] && echo "$FAKE_VERSION" ;;
  '-c import ensurepip, venv') [[ ! -e $FAKES/no_ensurepip ]] ;;
  --version) echo "Python $FAKE_VERSION.0" ;;
  '-m venv '*)
    mkdir -p "${!#}/bin" "${!#}/lib/python$FAKE_VERSION/site-packages/ros_rcl.libs"
    cp "$0" "${!#}/bin/python" ;;
  '-m pip install '*)
    [[ ! -e $FAKES/kill_setup ]] || kill -KILL $PPID
    while [[ -e $FAKES/hold_pip ]]; do sleep 0.02; done
    [[ ! -e $FAKES/no_network ]] || { echo 'Could not fetch URL'; exit 1; } ;;
  *mujoco.GLContext*) [[ ! -e $FAKES/no_gl ]] ;;
  '-m colcon build '*)
    [[ ! -e install/unfit ]] || exit 1
    mkdir -p install/vjepa_bringup/lib/vjepa_bringup
    touch install/vjepa_bringup/lib/vjepa_bringup/vjepa
    echo 'export AMENT_PREFIX_PATH=/workspace/prefix PYTHONPATH=/workspace/python' >install/local_setup.bash ;;
  '-c import rclpy'*) [[ ! -e $FAKES/no_ros_packages ]] ;;
  '-P -m vjepa_bringup.cli'*) shift 3; printf 'command line: %s\n' "$*" ;;
esac
"""
APT = r"""#!/bin/bash
echo "apt-get $*" >>"$CALLS"
[[ $1 != install ]] || rm -f "$FAKES/no_gl" "$FAKES/no_ensurepip"
"""


class Checkout:
    """A copy of the script in a small checkout, and the stand-ins that it finds on its PATH."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "checkout"
        self.fakes = folder / "fakes"
        self.bin = folder / "bin"
        self.calls_file = folder / "calls"
        package = self.root / "ros2_ws" / "src" / "vjepa_bringup"
        for path in (self.fakes, self.bin, package / "vjepa_bringup", package / "launch"):
            path.mkdir(parents=True)
        for name in (
            "vjepa",
            "requirements.txt",
            "requirements-common.txt",
            "requirements-ros.txt",
            "requirements.lock",
        ):
            shutil.copy(ROOT / name, self.root / name)
        for name in ("package.xml", "setup.py", "setup.cfg", "vjepa_bringup/cli.py"):
            (package / name).write_text("")
        self.package = package
        for name in ("python3", "python3.11", "python3.12"):
            self.stand_in(name, PYTHON)
        self.stand_in("apt-get", APT)
        self.stand_in("uname", '#!/bin/bash\necho "Linux x86_64"\n')
        self.be_user(root=False)
        self.environment = {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "HOME": str(folder),
            "CALLS": str(self.calls_file),
            "FAKES": str(self.fakes),
            "FAKE_VERSION": "3.11",
        }

    def stand_in(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def be_user(self, *, root: bool) -> None:
        self.stand_in("id", f"#!/bin/bash\necho {0 if root else 1000}\n")
        self.stand_in("sudo", "#!/bin/bash\nexit 1\n")

    def set(self, flag: str) -> None:
        (self.fakes / flag).touch()

    def clear(self, flag: str) -> None:
        (self.fakes / flag).unlink()

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            [self.root / "vjepa", *arguments],
            cwd=self.root,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=30)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def calls(self) -> str:
        return self.calls_file.read_text() if self.calls_file.exists() else ""

    def steps(self) -> list[str]:
        """The costly steps since the last look, in order."""
        names = {"-m venv": "venv", "-m pip": "pip", "-m colcon": "colcon", "apt-get install": "apt"}
        found = [names[key] for line in self.calls().splitlines() for key in names if key in line]
        self.calls_file.write_text("")
        return found


@pytest.fixture
def checkout(tmp_path) -> Checkout:
    return Checkout(tmp_path)


@pytest.fixture
def ready(checkout) -> Checkout:
    assert checkout.run("--setup-only").returncode == 0
    checkout.steps()
    return checkout


def wait_until(condition, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.02)


def test_the_first_start_sets_up_and_runs_the_command_line(checkout):
    result = checkout.run("run", "--planner", "two words")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "command line: run --planner two words\n"
    assert "-r " + str(checkout.root / "requirements.txt") in checkout.calls()
    assert "-c " + str(checkout.root / "requirements.lock") in checkout.calls()
    assert checkout.steps() == ["venv", "pip", "colcon"]


def test_a_second_start_does_none_of_the_steps_again(ready):
    result = ready.run("run")
    assert (result.stdout, result.stderr) == ("command line: run\n", "")
    assert ready.steps() == []


def test_commands_run_in_the_environment(ready):
    show = 'echo "$LD_LIBRARY_PATH|$AMENT_PREFIX_PATH|$PYTHONPATH|$PATH|$_ROS_WHEELS_BOOTSTRAP_COMPLETE"'
    result = ready.run("--exec", "bash", "-c", show, PYTHONPATH="/mine")
    venv = ready.root / ".venv"
    libraries, prefixes, python, path, bootstrapped = result.stdout.strip().split("|")
    assert libraries == f"{venv}/lib:{venv}/lib/python3.11/site-packages/ros_rcl.libs"
    assert prefixes == f"/workspace/prefix:{venv}"
    assert python == "/workspace/python:/mine"
    assert path.startswith(f"{venv}/bin:")
    assert bootstrapped == "1"


def test_a_command_in_a_command_finds_the_same_environment(ready):
    nested = ready.run("--exec", "./vjepa", "--exec", "bash", "-c", 'echo "$PATH|$LD_LIBRARY_PATH|$AMENT_PREFIX_PATH"')
    plain = ready.run("--exec", "bash", "-c", 'echo "$PATH|$LD_LIBRARY_PATH|$AMENT_PREFIX_PATH"')
    assert nested.stdout == plain.stdout


@pytest.mark.parametrize(("version", "shown"), [("3.10", "python3 is 3.10"), ("", "found: none")])
def test_an_unsuitable_python_is_refused(checkout, version, shown):
    result = checkout.run("run", FAKE_VERSION=version)
    assert result.returncode == 1
    assert "Python 3.11 or 3.12 is needed" in result.stderr
    assert shown in result.stderr
    assert checkout.steps() == []


def test_a_python_without_ensurepip_gets_the_command_to_run(checkout):
    checkout.set("no_ensurepip")
    result = checkout.run("run")
    assert result.returncode == 1
    assert "sudo apt-get install -y python3-venv" in result.stderr
    assert checkout.steps() == []


def test_missing_opengl_gets_the_command_to_run(checkout):
    checkout.set("no_gl")
    result = checkout.run("run")
    assert result.returncode == 1
    assert GL_COMMAND in result.stderr
    checkout.clear("no_gl")
    checkout.steps()
    assert checkout.run("run").returncode == 0
    assert checkout.steps() == ["colcon"]


def test_missing_opengl_is_installed_where_no_password_is_needed(checkout):
    checkout.set("no_gl")
    checkout.be_user(root=True)
    result = checkout.run("run")
    assert result.returncode == 0, result.stderr
    assert "apt-get install -y --no-install-recommends libegl1 libgl1 libgl1-mesa-dri" in checkout.calls()


def test_opengl_is_not_asked_for_where_rendering_is_disabled(checkout):
    checkout.set("no_gl")
    assert checkout.run("run", MUJOCO_GL="disabled").returncode == 0


def test_a_failed_installation_shows_why_and_begins_anew(checkout):
    checkout.set("no_network")
    result = checkout.run("run")
    assert result.returncode == 1
    assert "pip install failed" in result.stderr
    assert "Could not fetch URL" in result.stderr
    checkout.clear("no_network")
    checkout.steps()
    assert checkout.run("run").returncode == 0
    assert checkout.steps() == ["venv", "pip", "colcon"]


def test_a_set_up_killed_in_pip_recovers(checkout):
    checkout.set("kill_setup")
    assert checkout.run("run").returncode == -9
    checkout.clear("kill_setup")
    checkout.steps()
    assert checkout.run("run").stdout == "command line: run\n"
    assert checkout.steps() == ["venv", "pip", "colcon"]


def test_an_interrupted_set_up_says_so_and_recovers(checkout):
    checkout.set("hold_pip")
    process = checkout.start("run")
    wait_until(lambda: "-m pip" in checkout.calls())
    process.send_signal(signal.SIGINT)
    checkout.set("no_network")
    checkout.clear("hold_pip")
    assert "set-up interrupted" in process.communicate(timeout=30)[1]
    assert process.returncode == 1
    checkout.clear("no_network")
    assert checkout.run("run").stdout == "command line: run\n"


def test_two_at_once_set_up_once(checkout):
    checkout.set("hold_pip")
    first = checkout.start("run", "first")
    wait_until(lambda: "-m pip" in checkout.calls())
    second = checkout.start("run", "second")
    assert "another ./vjepa is setting up" in second.stderr.readline()
    checkout.clear("hold_pip")
    assert first.communicate(timeout=30)[0] == "command line: run first\n"
    assert second.communicate(timeout=30)[0] == "command line: run second\n"
    assert checkout.steps() == ["venv", "pip", "colcon"]


@pytest.mark.parametrize(
    ("file", "steps"),
    [
        ("requirements-common.txt", ["pip"]),
        ("requirements.lock", ["pip"]),
        ("ros2_ws/src/vjepa_bringup/setup.py", ["colcon"]),
        ("ros2_ws/src/vjepa_bringup/launch/new.launch.py", ["colcon"]),
        ("ros2_ws/src/vjepa_bringup/config/new.yaml", ["colcon"]),
        ("ros2_ws/src/vjepa_bringup/vjepa_bringup/cli.py", []),
        ("ros2_ws/src/vjepa_bringup/vjepa_bringup/new_module.py", []),
    ],
)
def test_only_what_a_change_calls_for_is_done_again(ready, file, steps):
    path = ready.root / file
    path.parent.mkdir(exist_ok=True)
    path.write_text((path.read_text() if path.exists() else "") + "# changed\n")
    assert ready.run("run").returncode == 0
    assert ready.steps() == steps


def test_a_build_by_hand_is_followed_by_one_of_ours(ready):
    executable = ready.root / "ros2_ws/install/vjepa_bringup/lib/vjepa_bringup/vjepa"
    os.utime(executable, ns=(time.time_ns() + 10**9,) * 2)
    assert ready.run("run").returncode == 0
    assert ready.steps() == ["colcon"]


def test_a_build_that_cannot_be_built_over_is_made_anew(ready):
    (ready.root / "ros2_ws/install/unfit").touch()
    (ready.package / "setup.py").write_text("# changed\n")
    result = ready.run("run")
    assert (result.stdout, ready.steps()) == ("command line: run\n", ["colcon", "colcon"])
    assert not (ready.root / "ros2_ws/install/unfit").exists()


def test_a_moved_checkout_gets_a_new_environment(ready, tmp_path):
    ready.root = ready.root.rename(tmp_path / "moved")
    assert ready.run("run").returncode == 0
    assert ready.steps() == ["venv", "pip", "colcon"]


def test_a_folder_of_somebody_else_is_never_removed(checkout, tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.tex").write_text("")
    result = checkout.run("run", VJEPA_VENV=str(tmp_path / "theirs"))
    assert result.returncode == 1
    assert "was not made by this script" in result.stderr
    assert (tmp_path / "theirs" / "thesis.tex").exists()


def test_a_sourced_jazzy_lends_its_packages(checkout):
    result = checkout.run("run", ROS_DISTRO="jazzy", FAKE_VERSION="3.12", AMENT_PREFIX_PATH="/opt/ros/jazzy")
    assert result.returncode == 0, result.stderr
    assert "-m venv --system-site-packages " + str(checkout.root / ".venv-ros") in checkout.calls()
    assert "requirements-ros.txt" in checkout.calls()
    show = 'echo "$AMENT_PREFIX_PATH|${LD_LIBRARY_PATH-unset}|$PYTEST_PLUGINS"'
    result = checkout.run(
        "--exec", "bash", "-c", show, ROS_DISTRO="jazzy", FAKE_VERSION="3.12", AMENT_PREFIX_PATH="/opt/ros/jazzy"
    )
    assert result.stdout == "/workspace/prefix:/opt/ros/jazzy|unset|pytest_timeout,xdist.plugin\n"


def test_a_sourced_jazzy_without_the_needed_packages_names_rosdep(checkout):
    checkout.set("no_ros_packages")
    result = checkout.run("run", ROS_DISTRO="jazzy", FAKE_VERSION="3.12")
    assert result.returncode == 1
    assert f"rosdep install --from-paths {checkout.root}/ros2_ws/src --ignore-src -y" in result.stderr
    assert checkout.steps() == []


@pytest.mark.parametrize(("distribution", "words"), [("humble", "sourced ROS 2 'humble'"), ("noetic", "'noetic'")])
def test_another_distribution_is_refused(checkout, distribution, words):
    result = checkout.run("run", ROS_DISTRO=distribution)
    assert result.returncode == 1
    assert words in result.stderr
    assert checkout.steps() == []


def test_another_architecture_is_shown_the_other_ways(checkout):
    checkout.stand_in("uname", '#!/bin/bash\necho "Linux aarch64"\n')
    result = checkout.run("run")
    assert result.returncode == 1
    assert "docker compose -f docker/compose.yaml up" in result.stderr
