"""The container files are true to the stack: what the image installs, and what each service of compose.yaml runs.

No container engine is needed, so nothing is built here; the services' commands run side by side without one, each with
no more privileges and no more of a file system to write than compose.yaml leaves it.
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

from sim_bridge.score import RunScores
from vjepa_bringup.domains import FIRST_DOMAIN, LAST_DOMAIN, hold_domain
from vjepa_bringup.graph import NodeSpec, StackOptions, build_graph, environment
from vjepa_bringup.monitor import Monitor
from vjepa_bringup.supervisor import MAX_RESTARTS
from vjepa_cli import cli
from vjepa_interfaces.environment import environment_of
from vjepa_interfaces.errors import VjepaError

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
MANIFESTS = [parse_package(path.parent) for path in sorted((ROOT / "ros2_ws" / "src").glob("*/package.xml"))]
DEADLINE_S = 120.0
CONFINED = r"""
set -e
options=$1 folder=$2 writable=$3 kept=$4
shift 4
mount -t tmpfs tmpfs /mnt
mkdir /mnt/tmp
mount --rbind /tmp /mnt/tmp
mount -t tmpfs -o "$options" tmpfs /tmp
for path in $folder $kept; do
  case $path in /tmp/*) ;; *) continue ;; esac
  mkdir -p "$path"
  mount --rbind "/mnt$path" "$path"
  mount -o remount,bind,ro "$path"
done
umount -l /mnt
for path in $writable; do mount --bind "$path" "$path" && mount -o remount,bind,rw "$path"; done
mount -o remount,bind,ro /
cd "$folder"
exec "$@"
"""
"""A script for a mount namespace: only memory in the place of /tmp and the folders `writable` can be written to.

`folder` is where the command runs; it and the paths `kept` stay visible where they lie under /tmp.
"""

ALL_NODES_DIFFER = StackOptions(planner="cem", device="cpu", seed=7, record=True, autostart=False)
"""Options that give every node a parameter that it does not have by default."""


def compose(file: str = "compose.yaml", **variables: str) -> dict:
    """A compose file with its `${NAME:-DEFAULT}` filled in, as compose does before it reads anything else."""
    text = (ROOT / "docker" / file).read_text()
    return yaml.safe_load(re.sub(r"\$\{(\w+):-(.*?)}", lambda match: variables.get(match[1]) or match[2], text))


def services(**variables: str) -> dict[str, dict]:
    return compose(**variables)["services"]


def arguments() -> dict[str, str]:
    """The arguments of the Dockerfile with their defaults."""
    return {name: default for name, _, default in (line.partition("=") for line in instructions("ARG"))}


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


def test_the_image_is_an_official_one_of_jazzy_or_that_of_a_digest():
    assert instructions("FROM") == ["${BASE}"]
    assert arguments()["BASE"] == "ros:jazzy-ros-base-noble"
    for service in services().values():
        assert service["build"]["args"]["BASE"] == arguments()["BASE"]
    pinned = f"ros@sha256:{'0' * 64}"
    for service in services(VJEPA_BASE=pinned).values():
        assert service["build"]["args"]["BASE"] == pinned


def pin(folder: Path, answer: str) -> subprocess.CompletedProcess:
    """Run `make pin` in `folder`, with a docker that answers what it is asked for by `answer`."""
    (folder / "docker").mkdir(exist_ok=True)
    (folder / "bin").mkdir(exist_ok=True)
    docker = folder / "bin" / "docker"
    docker.write_text(f'#!/bin/sh\necho "$*" >>asked\n{answer}\n')
    docker.chmod(0o755)
    path = {"PATH": f"{docker.parent}:{os.environ['PATH']}"}
    command = ["make", "-f", ROOT / "Makefile", "pin"]
    return subprocess.run(command, cwd=folder, env=os.environ | path, capture_output=True, text=True)


def test_make_pin_gives_compose_the_digest_that_the_tag_has_now(tmp_path):
    digest = f"sha256:{'0123456789abcdef' * 4}"
    assert pin(tmp_path, f"echo {digest}").returncode == 0
    line = f"VJEPA_BASE={arguments()['BASE']}@{digest}\n"
    assert (tmp_path / "docker/.env").read_text() == line
    asked = (tmp_path / "asked").read_text()
    assert asked == f"buildx imagetools inspect {arguments()['BASE']} --format {{{{.Manifest.Digest}}}}\n"
    failed = pin(tmp_path, "echo sha256:short")
    assert failed.returncode != 0
    assert "docker gave no digest of ros:jazzy-ros-base-noble but 'sha256:short'" in failed.stderr
    assert pin(tmp_path, "echo no network >&2; exit 1").returncode != 0
    assert (tmp_path / "docker/.env").read_text() == line, "what was pinned stays"


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
        assert set(build["args"]) == set(arguments())


def test_every_service_shares_what_fast_dds_needs_and_is_restarted_as_often_as_by_the_stack():
    for service in services().values():
        assert (service["network_mode"], service["ipc"]) == ("host", "host")
        assert service["restart"] == f"on-failure:{MAX_RESTARTS}"


def test_no_service_has_or_gains_a_privilege_or_writes_outside_of_memory_and_its_volumes():
    for service in services().values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["read_only"] is True
        assert service["pids_limit"] > 0
        (memory,) = service["tmpfs"]
        assert re.fullmatch(r"/tmp:size=\d+m", memory)
        assert service["environment"]["HOME"] == "/tmp", "ROS writes its logs below it"
        assert not service.keys() & {"privileged", "cap_add", "devices", "user", "pid"}


def test_the_stack_is_in_a_domain_that_nobody_gets_by_default():
    domains = {service["environment"]["ROS_DOMAIN_ID"] for service in services().values()}
    assert len(domains) == 1
    (domain,) = map(int, domains)
    assert FIRST_DOMAIN < domain <= LAST_DOMAIN
    assert services()["manager"]["healthcheck"]["test"][-1] == str(domain)


def confined(service: dict, folder: Path) -> list[str]:
    """The words in front of a command that leave it what compose.yaml leaves a service whose /vjepa is `folder`."""
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"]
    path, _, options = service["tmpfs"][0].partition(":")
    assert path == "/tmp"
    writable = [folder / Path(volume.split(":")[1]).relative_to("/vjepa") for volume in service.get("volumes", ())]
    for each in writable:
        each.mkdir(exist_ok=True)
    alone = ["unshare", "--mount", "--propagation", "private"]
    alone += [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    words = [options, str(folder), " ".join(map(str, writable)), f"{ROOT} {sys.prefix}"]
    capabilities = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--no-new-privs"]
    own = ["env", "-u", "XDG_RUNTIME_DIR", "-u", "TMPDIR", f"HOME={service['environment']['HOME']}"]
    return [*alone, "sh", "-c", CONFINED, "confined", *words, *capabilities, *own]


def test_what_confines_the_services_here_leaves_them_as_little_as_compose_does(tmp_path):
    """So that the next test means something: it runs every service like this."""
    tries = """
    for path in /written "$HOME/written" written bags/written "$0"/written; do
      if touch "$path" 2>/dev/null; then echo "$path"; fi
    done
    grep -E "^(CapEff|CapBnd|NoNewPrivs)" /proc/self/status
    """
    command = [*confined(services()["recorder"], tmp_path), "sh", "-c", tries, str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    none = "0" * 16
    expected = ["/tmp/written", "bags/written", f"CapEff:\t{none}", f"CapBnd:\t{none}", "NoNewPrivs:\t1"]
    assert done.stdout.splitlines() == expected, done.stderr
    assert (tmp_path / "bags/written").exists()


class Became(Exception):  # noqa: N818 (no error)
    """What `vjepa node` would have become."""


def becomes(command: str, monkeypatch) -> tuple[str, list[str], dict, dict]:
    """Executable, arguments, parameters and environment that a service's command ends in."""

    def execve(path, arguments, variables):
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        file = arguments[arguments.index("--params-file") + 1]
        raise Became(path, arguments[1:], yaml.safe_load(Path(file).read_text()), variables)

    monkeypatch.setattr(os, "execve", execve)
    parsed = cli.parse(shlex.split(command))
    with pytest.raises(Became) as became:
        parsed.run()
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ()), "this process can be interrupted again"
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
    parsed = cli.parse(shlex.split(command))
    with pytest.raises(VjepaError, match=re.escape(words)):
        parsed.run()


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


def test_what_an_encoder_downloads_is_kept_in_a_volume():
    (volume,) = services()["perception"]["volumes"]
    name, folder = volume.split(":")
    assert name in compose()["volumes"]
    assert services()["perception"]["environment"]["HF_HOME"] == folder
    assert re.search(rf"install -d -o 1000 -g 1000 .*{folder} ", instructions("RUN")[0])


def test_the_nvidia_file_gives_the_encoder_a_gpu_and_no_build_of_torch_without_cuda():
    (name, service), *others = compose("compose.nvidia.yaml")["services"].items()
    assert not others
    assert services()[name]["command"].split()[1] == "vjepa_perception"
    assert service["build"]["args"] == {"VJEPA_TORCH": "cuda"}
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


@pytest.mark.slow
def test_the_services_side_by_side_drive_the_arm_and_end_when_told_to(tmp_path):
    """Each command in a process of its own with as little as compose leaves it, though in no container."""
    words = "planner:=expert-p lockstep:=true episodes:=1 episode_steps:=20 log_level:=warn record:=true"
    vjepa = [sys.executable, "-P", "-m", "vjepa_cli.cli"]
    scores = RunScores()
    with contextlib.ExitStack() as exits:
        domain = exits.enter_context(hold_domain(None, {}))
        exits.enter_context(environment_of({**environment(StackOptions()), "ROS_DOMAIN_ID": str(domain)}))
        found = services(VJEPA_OPTIONS=words, ROS_DOMAIN_ID=str(domain))
        processes = {}
        for name, service in found.items():
            processes[name] = subprocess.Popen([*confined(service, tmp_path), *vjepa, *shlex.split(service["command"])])
            exits.callback(processes[name].wait)
            exits.callback(processes[name].kill)
        monitor = Monitor(domain, "", scores)
        exits.callback(monitor.close)

        def ended() -> list[str]:
            return [name for name, process in processes.items() if process.poll() is not None]

        assert monitor.wait_until(lambda: scores.finished or ended(), DEADLINE_S), monitor.diagnostics
        assert ended() == []
        health = found["manager"]["healthcheck"]["test"]
        assert health[:2] == ["CMD", "vjepa"]
        check = [*confined(found["manager"], tmp_path), *vjepa, *health[2:]]
        assert subprocess.run(check, stdout=subprocess.DEVNULL).returncode == 0
        for name in ("manager", *found.keys() - {"manager"}):
            processes[name].send_signal(signal.SIGTERM)
            assert processes[name].wait(float(found[name]["stop_grace_period"].removesuffix("s"))) == 0, name
    assert len(scores.finished) == 1
    (bag,) = (tmp_path / "bags").iterdir()
    assert (bag / "metadata.yaml").is_file()
