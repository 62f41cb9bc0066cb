"""The container files are true to the stack: what the image installs, and what each service of compose.yaml runs.

No container engine is needed, so nothing is built here; the services' commands run side by side without one.
"""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from catkin_pkg.package import parse_package

from vjepa_bringup import cli
from vjepa_bringup.domains import hold_domain
from vjepa_bringup.graph import NodeSpec, StackOptions, build_graph, environment
from vjepa_bringup.monitor import Monitor
from vjepa_bringup.run_graph import environment_of
from vjepa_bringup.supervisor import MAX_RESTARTS
from vjepa_interfaces.errors import VjepaError
from vjepa_training.score import ScoreKeeper

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
MANIFESTS = [parse_package(path.parent) for path in sorted((ROOT / "ros2_ws" / "src").glob("*/package.xml"))]
DEADLINE_S = 120.0
ALL_NODES_DIFFER = StackOptions(planner="cem", device="cpu", seed=7, record=True, autostart=False)
"""Options that give every node a parameter that it does not have by default."""


def compose(file: str = "compose.yaml", **variables: str) -> dict:
    """A compose file with its `${NAME:-DEFAULT}` filled in, as compose does before it reads anything else."""
    text = (ROOT / "docker" / file).read_text()
    return yaml.safe_load(re.sub(r"\$\{(\w+):-(.*?)}", lambda match: variables.get(match[1]) or match[2], text))


def services(**variables: str) -> dict[str, dict]:
    return compose(**variables)["services"]


def instructions(keyword: str) -> list[str]:
    """What follows a keyword of the Dockerfile, each instruction as one line."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", "")
    return re.findall(rf"^{keyword} +(.*)$", joined, re.MULTILINE)


def apt_packages() -> set[str]:
    (words,) = re.findall(r"apt-get install -y --no-install-recommends ([^&]+)", " ".join(instructions("RUN")))
    return set(words.split())


# The image.


def test_hadolint_has_nothing_to_say():
    result = subprocess.run(["hadolint", DOCKERFILE], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_image_is_an_official_one_of_jazzy():
    assert instructions("FROM") == ["ros:jazzy-ros-base-noble"]


def test_the_image_has_every_package_that_the_manifests_declare_and_opengl():
    declared = {d.name for manifest in MANIFESTS for d in manifest.exec_depends} - {m.name for m in MANIFESTS}
    packages = {name if "-" in name else f"ros-jazzy-{name.replace('_', '-')}" for name in declared}
    opengl = re.search(r"^GL_PACKAGES=\((.*)\)$", (ROOT / "setup/steps.sh").read_text(), re.MULTILINE)[1].split()
    set_up = {"python3-venv", "python3-colcon-common-extensions"}
    assert apt_packages() == packages | set(opengl) | set_up


def test_the_project_is_set_up_and_run_by_a_user_who_is_not_root():
    text = DOCKERFILE.read_text()
    assert instructions("USER") == ["1000:1000"]
    assert text.index("apt-get") < text.index("\nUSER") < text.index("\nCOPY") < text.index("vjepa --setup-only")


def test_no_cache_is_left_in_the_image():
    assert "rm -rf /var/lib/apt/lists/*" in instructions("RUN")[0]
    cache = re.search(r"--mount=type=cache,target=(\S+?),uid=1000", instructions("RUN")[1])[1]
    assert f"UV_CACHE_DIR={cache}/uv PIP_CACHE_DIR={cache} " in instructions("RUN")[1]


def test_the_context_is_all_that_the_set_up_reads_and_no_more():
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    locks = {path.relative_to(ROOT) for path in ROOT.glob("requirements/*.lock")}
    needed = {"vjepa", "setup", "requirements/sizes.tsv", "ros2_ws/src", *locks}
    outside = {path.resolve().relative_to(ROOT) for path in ROOT.glob("ros2_ws/src/*/*") if path.is_symlink()}
    assert {path for name in kept for path in ROOT.glob(name)} == {ROOT / path for path in {*needed, *outside}}


# The services.


def test_every_service_is_built_from_this_checkout():
    for service in services().values():
        build = service["build"]
        assert (ROOT / "docker" / build["context"] / build["dockerfile"]).resolve() == DOCKERFILE
        assert set(build["args"]) == set(instructions("ARG"))


def test_every_service_shares_what_fast_dds_needs_and_is_restarted_as_often_as_by_the_stack():
    for service in services().values():
        assert (service["network_mode"], service["ipc"]) == ("host", "host")
        assert service["restart"] == f"on-failure:{MAX_RESTARTS}"


class Became(Exception):  # noqa: N818 (no error)
    """What `vjepa node` would have become."""


def becomes(command: str, monkeypatch) -> tuple[str, list[str], dict, dict]:
    """Executable, arguments, parameters and environment that a service's command ends in."""

    def execve(path, arguments, variables):
        file = arguments[arguments.index("--params-file") + 1]
        raise Became(path, arguments[1:], yaml.safe_load(Path(file).read_text()), variables)

    monkeypatch.setattr(os, "execve", execve)
    parsed = cli.build_parser().parse_args(shlex.split(command))
    with pytest.raises(Became) as became:
        parsed.function(parsed)
    return became.value.args


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("", StackOptions()),
        ("planner:=cem device:=cpu seed:=7 record:=true autostart:=false", ALL_NODES_DIFFER),
    ],
)
def test_the_services_are_the_nodes_of_the_graph_with_its_parameters(words, options, monkeypatch):
    found = {}
    for service in services(VJEPA_OPTIONS=words).values():
        path, arguments, parameters, variables = becomes(service["command"], monkeypatch)
        assert os.access(path, os.X_OK), path
        assert variables.items() >= environment(options).items()
        name = next(word.removeprefix("__node:=") for word in arguments if word.startswith("__node:="))
        found[name] = (Path(path).parts[-2:], parameters)

    def expected(node: NodeSpec):
        return (node.package, node.executable), {"/**": {"ros__parameters": node.parameters}}

    assert found == {node.name: expected(node) for node in build_graph(options)}
    assert len(found) == len(services())


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("node sim", "unknown node 'sim'; valid are: arm_stand_in, episode_recorder"),
        ("node sim_bridge speed:=2", "unknown launch argument 'speed'"),
        ("node sim_bridge lockstep", "'lockstep' is not a launch argument; expected NAME:=VALUE"),
        ("node camera camera=rtsp://me:secret@cam", "'***' is not a launch argument; expected NAME:=VALUE"),
    ],
)
def test_what_no_node_can_be_made_of_is_refused(command, words):
    parsed = cli.build_parser().parse_args(shlex.split(command))
    with pytest.raises(VjepaError, match=re.escape(words)):
        parsed.function(parsed)


def test_a_camera_gets_its_address_in_its_environment_and_not_in_its_arguments_or_parameters(monkeypatch):
    address = "rtsp://me:secret@cam/a"
    words = f"source:=camera planner:=random camera:={address}"
    _, arguments, parameters, variables = becomes(f"node camera {words}", monkeypatch)
    assert variables[parameters["/**"]["ros__parameters"]["source"].removeprefix("env:")] == address
    assert "secret" not in f"{arguments} {parameters}"
    *_, others = becomes(f"node vjepa_perception {words}", monkeypatch)
    assert address not in others.values()


def test_the_manager_is_stopped_before_the_nodes_that_it_takes_down():
    found = services()
    assert set(found["manager"]["depends_on"]) == found.keys() - {"manager"}


def test_bags_are_written_into_the_volume(monkeypatch):
    (volume,) = services()["recorder"]["volumes"]
    name, folder = volume.split(":")
    assert name in compose()["volumes"]
    *_, parameters, _ = becomes(services()["recorder"]["command"], monkeypatch)
    assert Path(instructions("WORKDIR")[0], parameters["/**"]["ros__parameters"]["bag_dir"]) == Path(folder)
    assert re.search(rf"install -d -o 1000 -g 1000 .*{folder} ", instructions("RUN")[0])


def test_the_nvidia_file_gives_the_encoder_a_gpu_and_no_build_of_torch_without_cuda():
    (name, service), *others = compose("compose.nvidia.yaml")["services"].items()
    assert not others
    assert services()[name]["command"].split()[1] == "vjepa_perception"
    assert service["build"]["args"] == {"VJEPA_TORCH": "cuda"}
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


def test_the_services_side_by_side_drive_the_arm_and_end_when_told_to(tmp_path):
    """Each command in a process of its own, which is what compose does, save that these are no containers."""
    words = "planner:=expert-p lockstep:=true episodes:=1 episode_steps:=20 log_level:=warn"
    vjepa = [sys.executable, "-P", "-m", "vjepa_bringup.cli"]
    keeper = ScoreKeeper("reacher-easy")
    with contextlib.ExitStack() as exits:
        domain = exits.enter_context(hold_domain(None, {}))
        exits.enter_context(environment_of({**environment(StackOptions()), "ROS_DOMAIN_ID": str(domain)}))
        found = services(VJEPA_OPTIONS=words, ROS_DOMAIN_ID=str(domain))
        processes = {}
        for name, service in found.items():
            processes[name] = subprocess.Popen([*vjepa, *shlex.split(service["command"])], cwd=tmp_path)
            exits.callback(processes[name].wait)
            exits.callback(processes[name].kill)
        monitor = Monitor(domain, "", keeper)
        exits.callback(monitor.close)

        def ended() -> list[str]:
            return [name for name, process in processes.items() if process.poll() is not None]

        assert monitor.wait_until(lambda: keeper.finished or ended(), DEADLINE_S), monitor.diagnostics
        assert ended() == []
        health = found["manager"]["healthcheck"]["test"]
        assert health[:2] == ["CMD", "vjepa"]
        assert subprocess.run([*vjepa, *health[2:]], cwd=tmp_path, stdout=subprocess.DEVNULL).returncode == 0
        for name in ("manager", *found.keys() - {"manager"}):
            processes[name].send_signal(signal.SIGTERM)
            assert processes[name].wait(float(found[name]["stop_grace_period"].removesuffix("s"))) == 0, name
    assert len(keeper.finished) == 1
