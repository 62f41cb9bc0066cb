"""What `./vjepa` does and when, observed on a copy of the script whose tools are stand-ins (see setup_checkout.py)."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.setup_checkout import GPU, ROOT, Checkout

GL_COMMAND = "sudo apt-get install -y libegl1 libgl1 libgl1-mesa-dri"
WHOLE = ["venv", "run", "torch-cpu jazzy", "colcon"]
"""The steps of a set-up with uv at hand."""


@pytest.fixture
def checkout(tmp_path) -> Checkout:
    return Checkout(tmp_path)


@pytest.fixture
def with_uv(checkout) -> Checkout:
    checkout.has_uv()
    return checkout


@pytest.fixture
def ready(with_uv) -> Checkout:
    assert with_uv.run("--setup-only").returncode == 0
    with_uv.steps()
    return with_uv


def wait_until(condition, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.02)


# The steps.


def test_the_first_start_sets_up_and_runs_the_command_line(checkout):
    result = checkout.run("run", "--planner", "two words")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "command line: run --planner two words\n"
    assert checkout.steps() == ["installer", *WHOLE]


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_before_the_set_up_installs_nothing_and_names_every_command(checkout, word):
    said = checkout.run(word)
    assert said.returncode == 0, said.stderr
    assert "./vjepa --setup-only" in said.stdout
    assert not checkout.calls()


def test_a_second_start_does_none_of_the_steps_again(ready):
    result = ready.run("run")
    assert (result.stdout, result.stderr) == ("command line: run\n", "")
    assert ready.steps() == []


def test_every_step_has_a_line_with_its_number(with_uv):
    lines = [line for line in with_uv.run("train", "sac").stderr.splitlines() if line.startswith("vjepa: [")]
    assert [line.split()[1] for line in lines] == [f"[{i}/7]" for i in range(1, 8)]
    again = with_uv.run("--with", "lint", "--setup-only").stderr
    assert "[1/1] installing the packages of the group 'lint'" in again


def test_what_will_be_downloaded_is_stated_with_its_size_before_it_is(with_uv):
    with_uv.set("failure", "cause: dns error")
    result = with_uv.run("run")
    assert "installing the packages of every run: at most 183 MB to download" in result.stderr


def test_every_installation_is_checked_against_hashes_and_takes_wheels_only(with_uv):
    with_uv.run("--with", "all,torchvision", "--setup-only")
    installations = [line for line in with_uv.calls().splitlines() if "pip install" in line]
    assert len(installations) >= 8
    assert all("--require-hashes" in line and "--no-deps" in line for line in installations)
    assert all("--only-binary :all:" in line for line in installations)


def test_uv_compiles_what_it_installs_as_an_environment_may_forbid_python_to_keep_what_it_compiled(with_uv):
    with_uv.run("--with", "all,torchvision", "--setup-only", PYTHONDONTWRITEBYTECODE="1")
    calls = [line for line in with_uv.calls().splitlines() if line.startswith("uv pip install")]
    installations = [line for line in calls if "--dry-run" not in line]
    assert len(installations) >= 7
    assert all("--compile-bytecode" in line for line in installations)


@pytest.fixture
def stack(ready, tmp_path):
    """A process as `./vjepa run` leaves it: the environment's Python with the command line, which goes on."""
    words = [ready.root / ".venv/bin/python", "-P", "-m", "vjepa_cli.cli", "run", "--planner", "cem"]
    (tmp_path / "plays/vjepa_cli").mkdir(parents=True)
    (tmp_path / "plays/vjepa_cli/cli.py").write_text("print('runs', flush=True), input()")
    variables = os.environ | {"PYTHONPATH": str(tmp_path / "plays")}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, executable=sys.executable, env=variables, **pipes) as process:
        assert process.stdout.readline() == b"runs\n"
        yield process
        process.kill()


def test_nothing_is_built_under_a_stack_that_runs(ready, stack):
    (ready.package / "setup.py").write_text("# changed\n")
    beside = ready.run("planner", "list")
    assert beside.stdout == "command line: planner list\n"
    assert f"vjepa run --planner cem (process {stack.pid}) runs from here" in beside.stderr
    assert ready.steps() == []
    stack.kill()
    stack.wait()
    assert ready.run("run").stdout == "command line: run\n"
    assert ready.steps() == ["colcon"]


def test_what_runs_has_to_end_before_packages_come_in(ready, stack):
    (ready.package / "setup.py").write_text("# changed\n")
    refused = ready.run("train", "sac")
    assert refused.returncode != 0
    assert f"vjepa run --planner cem (process {stack.pid}) runs from here" in refused.stderr
    assert "End it first." in refused.stderr
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


@pytest.mark.parametrize(
    ("typed", "seen"),
    [({}, "3000|"), ({"GOMP_SPINCOUNT": "9"}, "9|"), ({"OMP_WAIT_POLICY": "passive"}, "|passive")],
)
def test_threads_of_torch_do_not_wait_long_in_a_loop_unless_told(ready, typed, seen):
    show = 'echo "${GOMP_SPINCOUNT-}|${OMP_WAIT_POLICY-}"'
    assert ready.run("--exec", "bash", "-c", show, **typed).stdout.strip() == seen


def test_a_command_in_a_command_finds_the_same_environment(ready):
    nested = ready.run("--exec", "./vjepa", "--exec", "bash", "-c", 'echo "$PATH|$LD_LIBRARY_PATH|$AMENT_PREFIX_PATH"')
    plain = ready.run("--exec", "bash", "-c", 'echo "$PATH|$LD_LIBRARY_PATH|$AMENT_PREFIX_PATH"')
    assert nested.stdout == plain.stdout


@pytest.mark.parametrize(
    ("file", "steps"),
    [
        ("requirements/run.lock", ["run", "torch-cpu jazzy"]),
        ("requirements/jazzy.lock", ["run", "torch-cpu jazzy"]),
        ("requirements/train.lock", []),
        ("ros2_ws/src/vjepa_cli/setup.py", ["colcon"]),
        ("ros2_ws/src/vjepa_cli/launch/new.launch.py", ["colcon"]),
        ("ros2_ws/src/vjepa_cli/config/new.yaml", ["colcon"]),
        ("ros2_ws/src/vjepa_cli/vjepa_cli/cli.py", []),
        ("ros2_ws/src/vjepa_cli/vjepa_cli/new_module.py", []),
    ],
)
def test_only_what_a_change_calls_for_is_done_again(ready, file, steps):
    path = ready.root / file
    path.parent.mkdir(exist_ok=True)
    path.write_text((path.read_text() if path.exists() else "") + "# changed\n")
    assert ready.run("run").returncode == 0
    assert ready.steps() == steps


def test_a_build_by_hand_is_followed_by_one_of_ours(ready):
    executable = ready.root / "ros2_ws/install/vjepa_cli/lib/vjepa_cli/vjepa"
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
    assert ready.steps() == WHOLE


# Groups of packages.


@pytest.mark.parametrize(
    ("command", "groups"),
    [
        (["run"], []),
        (["status"], []),
        (["train", "sac"], ["plot", "train"]),
        (["view"], ["view"]),
        (["view", "bag", "--gif", "a.gif"], ["plot"]),
        (["view", "bag", "--png", "a.png"], ["plot"]),
        (["--exec", "python", "-P", "-m", "pytest", "-q"], ["plot", "train", "test", "lint", "api"]),
        (["--exec", "ruff", "check", "."], ["lint"]),
        (["--exec", "mypy", "-p", "sim_bridge"], ["plot", "train", "view", "test", "lint", "api"]),
        (["--exec", "bash"], []),
        (["--with", "view,mppi", "--exec", "bash"], ["view", "mppi"]),
    ],
)
def test_a_command_brings_the_packages_that_it_needs_once(ready, command, groups):
    for name in ("pytest", "ruff", "mypy"):
        ready.stand_in(name, "#!/bin/bash\n")
    assert ready.run(*command).returncode == 0
    assert ready.steps() == groups
    assert ready.run(*command).returncode == 0
    assert ready.steps() == []


def test_an_unknown_group_is_refused_with_those_that_are_valid(ready):
    result = ready.run("--with", "trian", "--setup-only")
    assert result.returncode == 1
    assert "unknown group of packages 'trian'; valid are: all api atheris lerobot lint mppi plot" in result.stderr


def test_a_group_that_was_cut_short_is_installed_over_what_is_there(ready):
    ready.set("kill_setup")
    assert ready.run("--with", "plot", "--setup-only").returncode == -signal.SIGKILL
    ready.clear("kill_setup")
    ready.steps()
    assert ready.run("--with", "plot", "--setup-only").returncode == 0
    assert "--reinstall" in ready.calls()
    assert ready.steps() == ["plot"]


# Which Python.


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_every_python_from_3_11_to_3_14_will_do(with_uv, version):
    assert with_uv.run("run", FAKE_VERSION=version).returncode == 0


def test_the_python_that_is_named_is_taken(with_uv):
    assert with_uv.run("run", VJEPA_PYTHON="python3.13").returncode == 0
    assert f"--python {with_uv.bin}/python3.13 " in with_uv.calls()


def test_where_no_python_fits_uv_fetches_one(with_uv):
    fetched = "#!/bin/bash\n[[ $1 != -c ]] || { echo 3.12; exit; }\n" + f'exec "{with_uv.fakes}/python" "$@"\n'
    with_uv.stand_in("python_to_fetch", fetched, with_uv.fakes)
    result = with_uv.run("run", FAKE_VERSION="3.10")
    assert "Python 3.11 to 3.14 is needed; found: python3 is 3.10; " in result.stderr
    assert "uv fetches Python 3.12" in result.stderr
    assert "uv python install" in with_uv.calls()
    assert f"--python {with_uv.fakes}/python_to_fetch " in with_uv.calls()


@pytest.mark.parametrize(
    ("apt", "command"),
    [
        ("  Candidate: 3.13.5-1", "Run: sudo apt-get install -y python3 python3-venv"),
        ("  Candidate: 3.9.2-3", "uv python install 3.12"),
    ],
)
def test_where_none_can_be_fetched_one_message_has_the_command(with_uv, apt, command):
    with_uv.stand_in("apt-cache", f"#!/bin/bash\necho '{apt}'\n")
    result = with_uv.run("run", FAKE_VERSION="3.10")
    assert result.returncode == 1
    assert result.stderr.count("error:") == 1
    assert "Python 3.11 to 3.14 is needed; found: python3 is 3.10; " in result.stderr
    assert "uv could not fetch one: the package index cannot be reached" in result.stderr
    assert command in result.stderr
    assert with_uv.steps() == []


def test_no_python_at_all_is_told_as_well(with_uv):
    result = with_uv.run("run", FAKE_VERSION="")
    assert "found: none" in result.stderr
    assert result.returncode == 1


# uv and pip.


def test_a_uv_on_the_path_is_used(with_uv):
    assert with_uv.run("run").returncode == 0
    assert with_uv.steps() == WHOLE


def test_an_old_uv_on_the_path_is_named_and_another_one_put_beside(with_uv):
    result = with_uv.run("run", FAKE_UV="0.4.30")
    assert result.returncode == 0, result.stderr
    assert "uv 0.4.30 on PATH is too old (0.8.0 is needed)" in result.stderr
    assert with_uv.steps() == ["installer", *WHOLE]


def test_uv_is_fetched_against_hashes(checkout):
    checkout.run("run")
    (fetch,) = [line for line in checkout.calls().splitlines() if "installer.lock" in line]
    assert "--require-hashes" in fetch
    assert f"--target {checkout.root}/.vjepa/uv" in fetch


def test_where_there_is_no_uv_for_the_machine_pip_installs_and_says_so(checkout):
    checkout.set("no_uv")
    result = checkout.run("run")
    assert result.returncode == 0, result.stderr
    assert "uv cannot be had here, so pip installs" in result.stderr
    assert checkout.steps() == ["installer", *WHOLE]
    assert "uv " not in checkout.calls()


def test_pip_can_be_asked_for(with_uv):
    assert with_uv.run("run", VJEPA_INSTALLER="pip").returncode == 0
    assert "uv " not in with_uv.calls()
    assert with_uv.steps() == WHOLE


def test_what_pip_is_configured_with_counts_for_uv_without_its_passwords_shown(with_uv):
    lines = [
        ":env:.find-links='/wheels /more'",
        "global.index-url='https://me:secret@mirror.test/simple'",
        "global.timeout='60'",
    ]
    with_uv.set("pip_config", "\n".join(lines))
    result = with_uv.run("run")
    assert result.returncode == 0, result.stderr
    assert "find-links /wheels /more" in result.stderr
    assert "index-url https://***@mirror.test/simple" in result.stderr
    assert "from /wheels,/more|https://me:secret@mirror.test/simple|" in with_uv.calls()
    assert "secret" not in result.stderr + (with_uv.root / ".vjepa/setup.log").read_text()


# Which build of torch.


def test_without_a_gpu_torch_is_the_cpu_build_that_pip_is_configured_to_find(with_uv):
    result = with_uv.run("run")
    assert "installing torch's CPU build, no NVIDIA GPU being here, and ROS 2 Jazzy: at most" in result.stderr
    assert "--torch-backend" not in with_uv.calls()
    assert with_uv.steps() == WHOLE


def test_elsewhere_the_cpu_build_comes_from_pytorchs_own_index(with_uv):
    with_uv.set("no_cpu_torch")
    assert with_uv.run("run").returncode == 0
    (install,) = [line for line in with_uv.calls().splitlines() if "jazzy.lock" in line]
    assert "--torch-backend=cpu" in install
    assert "torch-cpu.lock" in install


def test_where_no_cpu_build_can_be_reached_the_registrys_is_taken_and_its_size_stated(with_uv):
    with_uv.set("no_cpu_torch")
    with_uv.set("no_torch_index")
    result = with_uv.run("run")
    assert result.returncode == 0, result.stderr
    assert "torch with CUDA: no place with torch's CPU build can be reached" in result.stderr
    assert "at most 2657 MB to download" in result.stderr
    assert with_uv.steps() == ["venv", "run", "torch-cuda jazzy", "colcon"]


def test_with_a_gpu_torch_has_cuda(with_uv):
    with_uv.stand_in("nvidia-smi", GPU)
    assert with_uv.run("run").returncode == 0
    assert with_uv.steps() == ["venv", "run", "torch-cuda triton jazzy", "colcon"]


def test_the_build_that_is_asked_for_is_installed_and_kept(ready):
    assert ready.run("run", VJEPA_TORCH="cuda").returncode == 0
    assert ready.steps() == ["run", "torch-cuda triton jazzy"]
    assert ready.run("run").returncode == 0
    assert ready.steps() == []
    assert "VJEPA_TORCH is 'rocm'" in ready.run("run", VJEPA_TORCH="rocm").stderr


def test_a_cpu_build_that_is_asked_for_and_cannot_be_had_is_an_error(with_uv):
    with_uv.set("no_cpu_torch")
    with_uv.set("no_torch_index")
    result = with_uv.run("run", VJEPA_TORCH="cpu")
    assert result.returncode == 1
    assert "finding torch's CPU build failed: the package index cannot be reached" in result.stderr


# OpenGL, and who may install Debian packages.


def test_missing_opengl_gets_the_command_to_run(with_uv):
    with_uv.set("no_gl")
    result = with_uv.run("run")
    assert result.returncode == 1
    assert GL_COMMAND in result.stderr
    assert "\nsudo " not in with_uv.calls(), "without a terminal sudo is never used"
    with_uv.clear("no_gl")
    with_uv.steps()
    assert with_uv.run("run").returncode == 0
    assert with_uv.steps() == ["colcon"]


@pytest.mark.parametrize("answer", ["", "n"])
def test_on_a_terminal_sudo_is_asked_for_and_not_used_without_a_yes(with_uv, answer):
    with_uv.set("no_gl")
    status, shown = with_uv.run_on_a_terminal(answer, "run")
    assert status == 1
    assert f"run this? {GL_COMMAND} [y/N]" in shown
    assert f"Run: {GL_COMMAND}" in shown
    assert "\nsudo " not in with_uv.calls()


def test_a_yes_lets_sudo_install(with_uv):
    with_uv.set("no_gl")
    status, shown = with_uv.run_on_a_terminal("y", "run")
    assert status == 0, shown
    assert "apt-get install -y --no-install-recommends libegl1 libgl1 libgl1-mesa-dri" in with_uv.calls()
    assert "sudo -v" in with_uv.calls()


def test_root_needs_no_sudo(with_uv):
    with_uv.set("no_gl")
    with_uv.be_user(root=True)
    result = with_uv.run("run")
    assert result.returncode == 0, result.stderr
    assert "apt-get install -y --no-install-recommends libegl1 libgl1 libgl1-mesa-dri" in with_uv.calls()
    assert "\nsudo " not in with_uv.calls()


def test_a_setting_that_no_package_would_mend_is_named_and_nothing_is_installed(with_uv):
    with_uv.set("gl_setting", "MUJOCO_EGL_DEVICE_ID is '7', expected a whole number below 1\n")
    with_uv.be_user(root=True)
    result = with_uv.run("run", MUJOCO_EGL_DEVICE_ID="7")
    assert result.returncode != 0
    assert "MuJoCo cannot render: MUJOCO_EGL_DEVICE_ID is '7', expected a whole number below 1" in result.stderr
    assert "apt-get" not in with_uv.calls()


def test_opengl_is_not_asked_for_where_rendering_is_disabled(with_uv):
    with_uv.set("no_gl")
    assert with_uv.run("run", MUJOCO_GL="disabled").returncode == 0


# ROS.


def test_a_sourced_jazzy_lends_its_packages(with_uv):
    jazzy = {"ROS_DISTRO": "jazzy", "FAKE_VERSION": "3.12", "AMENT_PREFIX_PATH": "/opt/ros/jazzy"}
    result = with_uv.run("run", **jazzy)
    assert result.returncode == 0, result.stderr
    assert "tested on" not in result.stderr
    assert f"--system-site-packages {with_uv.root}/.venv-ros" in with_uv.calls()
    assert with_uv.steps() == ["venv", "run", "torch-cpu", "colcon"]
    show = 'echo "$AMENT_PREFIX_PATH|${LD_LIBRARY_PATH-unset}|$PYTEST_PLUGINS"'
    result = with_uv.run("--exec", "bash", "-c", show, **jazzy)
    assert result.stdout == "/workspace/prefix:/opt/ros/jazzy|unset|pytest_timeout,xdist.plugin\n"


@pytest.mark.parametrize("distribution", ["kilted", "lyrical", "rolling"])
def test_a_later_distribution_is_taken_with_a_word_on_what_was_tested(with_uv, distribution):
    result = with_uv.run("run", ROS_DISTRO=distribution, FAKE_VERSION="3.14")
    assert result.returncode == 0, result.stderr
    assert f"ROS 2 {distribution.capitalize()} is sourced; the stack was tested on ROS 2 Jazzy" in result.stderr
    assert f"{with_uv.root}/.venv-ros-{distribution}" in with_uv.calls()


def test_a_sourced_jazzy_without_the_needed_packages_names_rosdep(with_uv):
    with_uv.set("no_ros_packages")
    result = with_uv.run("run", ROS_DISTRO="jazzy", FAKE_VERSION="3.12")
    assert result.returncode == 1
    assert f"rosdep install --from-paths {with_uv.root}/ros2_ws/src --ignore-src -y" in result.stderr
    assert with_uv.steps() == []


@pytest.mark.parametrize("distribution", ["humble", "iron", "foxy", "noetic", "melodic"])
def test_an_older_distribution_is_refused(with_uv, distribution):
    result = with_uv.run("run", ROS_DISTRO=distribution)
    assert result.returncode == 1
    assert f"sourced ROS '{distribution}'; the stack needs ROS 2 Jazzy or a later one" in result.stderr
    assert with_uv.steps() == []


def test_the_wheels_of_kilted_have_an_environment_of_their_own(with_uv):
    assert with_uv.run("run", ROS_WHEELS="kilted").returncode == 0
    assert with_uv.steps() == ["venv", "run", "torch-cpu kilted", "colcon"]
    assert (with_uv.root / ".venv-kilted/bin/python").exists()


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"ROS_WHEELS": "humble"}, "ROS_WHEELS is 'humble'; there are wheels of jazzy and kilted"),
        ({"ROS_WHEELS": "kilted", "ROS_DISTRO": "jazzy"}, "this one has sourced 'jazzy'"),
    ],
)
def test_wheels_that_there_are_not_are_refused(with_uv, environment, words):
    result = with_uv.run("run", **environment)
    assert result.returncode == 1
    assert words in result.stderr


def test_another_architecture_is_shown_the_other_ways(with_uv):
    with_uv.stand_in("uname", '#!/bin/bash\necho "Linux aarch64"\n')
    result = with_uv.run("run")
    assert result.returncode == 1
    assert "docker compose -f docker/compose.yaml up" in result.stderr


# The table of the documentation.


def test_the_variables_of_the_script_are_those_that_the_page_lists():
    listed = {line.split()[1] for line in (ROOT / "vjepa").read_text().splitlines() if line.startswith("#   ")}
    page = Path(ROOT / "docs/install.md").read_text()
    for variable in (name for name in listed if name.isupper()):
        assert f"| `{variable}` |" in page, variable
