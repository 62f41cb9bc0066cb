"""The `vjepa` command line as people and programs run it, and that no way of ending it leaves anything behind."""

import contextlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import pytest
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from sim_bridge.score import RunScores
from vjepa_bringup.domains import hold_domain
from vjepa_bringup.graph import StackOptions, environment
from vjepa_bringup.monitor import Monitor
from vjepa_cli.cli import main
from vjepa_interfaces.bundle import find_bundle
from vjepa_interfaces.environment import environment_of

DEADLINE_S = 240.0
MARK = "VJEPA_TEST_MARK"
LIGHT = Path(__file__).parent / "light"


def wait_for(condition, what: str, timeout_s: float = DEADLINE_S):
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s"
        time.sleep(0.02)
    return value


class Vjepa:
    """A `vjepa` command in a process of its own; all that comes of it bears a mark in its environment."""

    def __init__(self, folder: Path, *arguments: str):
        self.mark = uuid.uuid4().hex
        self.folder = folder
        self.output, self.errors = folder / f"{self.mark}.out", folder / f"{self.mark}.err"
        with self.output.open("wb") as output, self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "vjepa_cli.cli", *arguments],
                env={**os.environ, MARK: self.mark, "TMPDIR": str(folder), "XDG_RUNTIME_DIR": str(folder)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
                cwd=folder,
            )

    def wait(self, timeout_s: float = DEADLINE_S) -> "Vjepa":
        self.process.wait(timeout_s)
        return self

    @property
    def status(self) -> int | None:
        return self.process.poll()

    @property
    def said(self) -> str:
        return self.output.read_text()

    @property
    def complained(self) -> str:
        return self.errors.read_text()

    def processes(self) -> dict[int, str]:
        """The command's own process and all that came of it, with their command lines."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"{MARK}={self.mark}".encode() in (folder / "environ").read_bytes():
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    if command:  # A zombie has none.
                        found[int(folder.name)] = command
        return found

    def kill(self) -> None:
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def assert_left_nothing(self, timeout_s: float = 0.0) -> None:
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not self.processes(), "all processes to end", timeout_s)
        assert self.processes() == {}
        assert [path.name for path in self.folder.glob("vjepa-run-*")] == []
        assert "Traceback" not in self.complained


@pytest.fixture
def vjepa(tmp_path):
    """Return a function that starts a command, which has its own temporary folder, and so sees no other stack."""
    started: list[Vjepa] = []

    def start(*arguments: str) -> Vjepa:
        started.append(Vjepa(tmp_path, *map(str, arguments)))
        return started[-1]

    yield start
    for command in started:
        command.kill()


@pytest.fixture
def domain():
    """A domain held for this test."""
    with hold_domain(None, {}) as held:
        yield held


@contextlib.contextmanager
def in_mid_episode(running: Vjepa, domain: int):
    """Wait until a stack in real time is in mid-episode, and give it with what it says, seen by the test."""
    scores = RunScores()
    with environment_of(environment(StackOptions())), Monitor(domain, scores=scores) as monitor:
        running.monitor = monitor
        up = monitor.wait_until(lambda: bool(scores.episodes) and scores.episodes[-1].steps > 5, DEADLINE_S)
        assert up, f"no step; the stack says: {running.complained}"
        yield running


@pytest.fixture
def stack(vjepa, domain):
    """A stack in real time that goes on and on, as `vjepa run` has it, in mid-episode."""
    with in_mid_episode(vjepa("run", "--episodes", 1000, "--domain", domain), domain) as running:
        yield running


@pytest.fixture
def light_stack(vjepa, domain):
    """The same of a stack that is up sooner."""
    light = ["--encoder", LIGHT / "encoder", "--params-file", LIGHT / "stack.yaml", "--planner", "random"]
    with in_mid_episode(vjepa("run", "--episodes", 1000, "--domain", domain, *light), domain) as running:
        yield running


@pytest.fixture
def in_process(capfd, forking, monkeypatch, tmp_path):
    """Return a function that runs a command in this process: it returns the status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        said, complained = capfd.readouterr()
        assert "Traceback" not in complained
        return ended.value.code, said, complained

    return run


@pytest.fixture
def refusal(in_process):
    """Return a function that returns what a command complains of, which must refuse its arguments."""

    def run(*arguments: object) -> str:
        status, said, complained = in_process(*arguments)
        assert (status in (1, 2), said) == (True, "")
        return complained

    return run


@pytest.fixture
def no_stack(monkeypatch, tmp_path):
    """An environment in which no stack of anybody else is found."""
    for name in ("TMPDIR", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


# What there is not is refused at once.


def test_a_program_that_refuses_its_arguments_ends_with_one_line_and_leaves_nothing(vjepa):
    for arguments, status in ((["eval", "--planner", "nope"], 1), (["fly"], 2)):
        command = vjepa(*arguments).wait(20)
        assert command.status == status
        assert command.complained.splitlines()[-1].startswith("vjepa: ")
        assert command.said == ""
        command.assert_left_nothing()


@pytest.mark.parametrize("through", ["ros", "process"])
@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--planner", "unknown planner 'nope'; valid are: .*expert, expert-p, .*random"),
        ("--encoder", "unknown encoder 'nope'; valid are: encoder-small, a folder .* or a hub id"),
        ("--task", "unknown task 'nope'; valid are: .*reacher-easy, reacher-hard"),
        ("--params-file", "there is no parameter file nope; see that the path is right"),
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(refusal, through, option, message):
    complained = refusal("eval", "--episodes", 1, "--through", through, option, "nope")
    assert re.fullmatch(f"vjepa: {message}.*\n", complained)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "--seed", "-1"], "--seed is -1; expected at least 0 and at most 2147483647"),
        (["eval", "--seed", "1.5"], "argument --seed: '1.5' is not a whole number"),
        (["eval", "--episodes", "0"], "--episodes is 0; expected at least 1"),
        (["eval", "--protocol", "long"], "argument --protocol: invalid choice: 'long'"),
        (["eval", "--through", "magic"], "argument --through: invalid choice: 'magic'"),
        (["eval", "--through", "process", "--batch-size", "0"], "--batch-size is 0; expected at least 1"),
        (["eval", "--batch-size", "2"], "--batch-size is for --through process"),
        (["eval", "--workers", "2"], "--workers is for --through process"),
        (["eval", "--goal", "same"], "--goal is for --through process"),
        (["run", "--domain", "233"], "argument --domain: 233 is out of range; expected 0 to 232"),
        (["run", "--namespace", "left arm"], "argument --namespace: 'left arm' is not a ROS namespace"),
        (["run", "--log-level", "loud"], "argument --log-level: invalid choice: 'loud'"),
        (["run", "--json", "/proc/nope/result.json"], "choose another file"),
        (["record", "--seconds", "-1"], "argument --seconds: '-1' is not a number of seconds above 0"),
        (["fly"], "invalid choice: 'fly'"),
        ([], "required: COMMAND"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(refusal, arguments, message):
    assert message in refusal(*arguments)


@pytest.mark.parametrize("through", ["ros", "process"])
@pytest.mark.parametrize(
    ("parameters", "messages"),
    [
        ("vjepa_planner: {ros__parameters: {plannr: random}}", ["plannr", "planner, planners"]),
        (
            "vjepa_planner: {ros__parameters: {planner: expert, expert.kq: 1.0}}",
            ["option of planner 'expert'", "'kq'", "damping, "],
        ),
        ("planer: {ros__parameters: {planner: random}}", ["unknown node 'planer'", "vjepa_planner"]),
    ],
)
def test_a_parameter_that_there_is_not_is_refused_with_those_there_are(
    refusal, tmp_path, through, parameters, messages
):
    (tmp_path / "p.yaml").write_text(parameters)
    complained = refusal("eval", "--episodes", 1, "--through", through, "--params-file", tmp_path / "p.yaml")
    for message in messages:
        assert message in complained
    assert complained.splitlines()[-1].startswith("vjepa: ")


@pytest.mark.parametrize("through", ["ros", "process"])
def test_a_policy_of_another_encoder_has_no_score(refusal, tmp_path, through):
    bundle = shutil.copytree(find_bundle("bc-small"), tmp_path / "policy")
    config = json.loads((bundle / "config.json").read_text()) | {"encoder_fingerprint": "0123456789abcdef"}
    (bundle / "config.json").write_text(json.dumps(config))
    complained = refusal("eval", "--episodes", 1, "--through", through, "--bc-bundle", bundle, "--json", "r.json")
    assert "was trained on latents of encoder encoder-small (0123456789abcdef)" in complained.splitlines()[-1]
    assert not (tmp_path / "r.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--params-file", "p.yaml"],
            "'image_size' of sim_bridge is 64; expected a value of type list of 2 int, such as [64, 64]",
        ),
        (["--bc-bundle", "bc-smal"], "no bundle at 'bc-smal': .* or one that ships: bc-latents, bc-small$"),
        (["--device", "xyz"], "unknown device .xyz.; valid are: auto, cpu, cuda, cuda:N$"),
        (["--device", "cuda:7"], "device is 'cuda:7', but torch .* finds . CUDA devices; use device auto or cpu"),
        (["--task", "cartpole-swingup"], "trained on an arm with the joints shoulder, wrist, .* random drives any arm"),
        (["--task", "finger-spin", "--planner", "expert"], "scripted for this one: none; random drives any arm$"),
        (["--record", "/proc/nope"], "cannot make the folder of /proc/nope/bag: .*; choose another file$"),
        (["--encoder", "mine"], r"of encoder encoder-small \(\w{16}\), but these come from mine \(\w{16}\)"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_once_before_any_process_starts(
    refusal, monkeypatch, tmp_path, arguments, message
):
    (tmp_path / "p.yaml").write_text("sim_bridge: {ros__parameters: {image_size: 64}}")
    mine = shutil.copytree(find_bundle("encoder-small"), tmp_path / "mine")
    config = json.loads((mine / "config.json").read_text())
    config["preprocessing"]["mean"] = [0.5, 0.5, 0.5]
    (mine / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("vjepa_bringup.run_graph.run_graph", None)
    (line,) = refusal("run", *arguments).splitlines()
    assert re.search(message.replace("[64, 64]", r"\[64, 64\]"), line), line


# Results.


@pytest.mark.slow
def test_the_same_seeds_give_the_same_returns_through_ros_and_in_one_process(vjepa, domain, tmp_path):
    results = {}
    for through, options in (("ros", ["--domain", domain]), ("process", [])):
        file = tmp_path / "new" / f"{through}.json"
        arguments = [
            "eval",
            "--planner",
            "expert-p",
            "--episodes",
            2,
            "--seed",
            7,
            "--through",
            through,
            "--json",
            file,
        ]
        command = vjepa(*arguments, *options).wait()
        assert command.status == 0, command.complained
        assert "mean return" in command.said
        command.assert_left_nothing(10.0)  # multiprocessing's resource tracker ends behind the command.
        result = json.loads(file.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
        assert result["command"].startswith("vjepa eval --planner expert-p --seed 7 --episodes 2")
        results[through] = result

    for name in ("planner", "encoder", "encoder_fingerprint", "protocol", "seed", "episodes", "versions", "task"):
        assert results["ros"][name] == results["process"][name]
    for name in ("steps", "returns", "in_target_at_end", "started_in_target", "mean_return", "interval_95"):
        assert results["ros"][name] == results["process"][name]
    result = results["ros"]
    assert (result["planner"], result["protocol"], result["through"], result["seed"]) == ("expert-p", "short", "ros", 7)
    assert len(result["encoder_fingerprint"]) == 16
    assert result["steps"] == [200, 200]
    assert result["mean_return"] == sum(result["returns"]) / 2
    assert result["interval_95"][0] <= result["mean_return"] <= result["interval_95"][1]
    assert {"python", "rclpy", "torch", "mujoco"} <= set(result["versions"])
    for through in results.values():
        assert 0 < through["latency_ms"]["p50"] <= through["latency_ms"]["p99"] < math.inf


def test_parameters_hold_where_no_option_says_otherwise(in_process, tmp_path):
    (tmp_path / "p.yaml").write_text("sim_bridge: {ros__parameters: {seed: 5, task: reacher-hard}}")
    arguments = ["eval", "--through", "process", "--episodes", 1, "--json", "result.json", "--params-file", "p.yaml"]
    status, _, complained = in_process(*arguments)
    assert status == 0, complained
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["seed"], result["task"]) == (5, "reacher-hard")


# However it ends, nothing is left.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_right_after_the_start(vjepa, number):
    command = vjepa("run", "--episodes", 1)
    command.process.send_signal(number)
    assert command.wait(20).status in (130, -number), "by then Python may not have taken the signal over"
    assert command.processes() == {}


@pytest.mark.parametrize("nodes", [1, 5])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_starting_up(vjepa, domain, number, nodes):
    command = vjepa("run", "--episodes", 1, "--domain", domain)
    wait_for(lambda: len(command.processes()) > nodes, f"{nodes} nodes to be started")
    command.process.send_signal(number)
    assert command.wait(40).status == 130
    assert command.complained.splitlines()[-1] == "vjepa: interrupted"
    command.assert_left_nothing()


@pytest.mark.parametrize("numbers", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT, signal.SIGTERM]], ids=str)
def test_interrupted_in_mid_episode(light_stack, numbers):
    shared = {name for pid in light_stack.processes() for name in shared_memory(pid)}
    light_stack.monitor.close()
    for number in numbers:
        light_stack.process.send_signal(number)
    assert light_stack.wait(40).status == 130
    assert light_stack.complained.splitlines()[-1] == "vjepa: interrupted"
    light_stack.assert_left_nothing()
    if len(numbers) == 1:  # By force there is no time for it.
        assert shared
        assert [name for name in shared if Path(name).exists()] == [], "nor shared memory, which the system keeps"


def shared_memory(pid: int) -> set[str]:
    """The shared memory of a process's DDS participant and of those it speaks with: each is one participant's."""
    return set(re.findall(r"/dev/shm/fastrtps_[0-9a-f]{16}", Path(f"/proc/{pid}/maps").read_text()))


def test_killed_in_mid_episode_its_nodes_end_by_themselves(light_stack):
    assert len(light_stack.processes()) == 6
    light_stack.process.kill()
    light_stack.process.wait()
    wait_for(lambda: not light_stack.processes(), "the nodes to end by themselves", 30)
    assert "Traceback" not in light_stack.complained


@pytest.mark.parametrize("workers", [1, 2])
def test_an_evaluation_without_ros_is_interrupted(vjepa, workers):
    words = ("eval", "--through", "process", "--episodes", 1000, "--planner", "random", "--workers", workers)
    command = vjepa(*words)
    wait_for(lambda: sum(map(renders, command.processes())) >= workers, "the rollout", 60)
    command.process.send_signal(signal.SIGINT)
    assert command.wait(20).status == 130
    command.assert_left_nothing(10)


def renders(pid: int) -> bool:
    with contextlib.suppress(OSError):  # The process has ended.
        return "libEGL" in Path(f"/proc/{pid}/maps").read_text()
    return False


# Commands that talk to a running stack.


def test_commands_talk_to_the_stack_that_runs(vjepa, stack, tmp_path):
    status = vjepa("status").wait()
    assert status.said.splitlines()[-1] == "active", status.complained
    for node in ("sim_bridge", "vjepa_perception", "vjepa_planner", "episode_recorder", "stack_manager"):
        assert re.search(rf"^{node}: ", status.said, re.MULTILINE)
    assert status.status == 0

    assert re.search(r"^\* bc$", vjepa("planner", "list").wait().said, re.MULTILINE)
    swap = vjepa("planner", "set", "random").wait()
    assert (swap.status, swap.said) == (0, "planner: random\n")
    listing = vjepa("planner", "list").wait()
    slow = r"  random \(chosen; bc drives: planner 'random' took "  # On a machine too slow to plan in time.
    assert re.search(rf"^(\* random$|{slow})", listing.said, re.MULTILINE)
    assert re.search(r"^  expert$", listing.said, re.MULTILINE)

    refused = vjepa("planner", "set", "nope").wait()
    assert refused.status == 1
    assert re.match(r"vjepa: unknown planner 'nope'; valid are: bc, cem, dreamer, expert, .*random", refused.complained)
    assert stack.monitor.wait_until(lambda: "random" in stack.monitor.drivers, DEADLINE_S)
    assert [command.processes() for command in (status, swap, listing, refused)] == [{}] * 4


@pytest.mark.real_time
def test_record_writes_a_bag_for_as_long_as_asked_or_until_ctrl_c(vjepa, light_stack, tmp_path):
    timed = vjepa("record", "--seconds", 2).wait()
    assert timed.status == 0, timed.complained
    endless = vjepa("record")
    wait_for(lambda: "Ctrl-C stops" in endless.said, "the recording to begin")
    second = vjepa("record", "--seconds", 1).wait()
    assert second.status == 1
    assert "already recording" in second.complained
    assert endless.status is None, "the other recording goes on"
    endless.process.send_signal(signal.SIGINT)
    assert endless.wait().status == 0
    first, other = sorted(path.parent for path in tmp_path.rglob("metadata.yaml"))
    for bag in (first, other):
        with AnyReader([bag], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
            assert {"/camera/image_raw", "/joint_command"} <= set(reader.topics)
            frames = [time for _, time, _ in reader.messages([reader.topics["/camera/image_raw"].connections[0]])]
            if bag == first:
                assert len(frames) == pytest.approx(100, abs=30)


@pytest.mark.usefixtures("no_stack")
def test_without_a_stack_commands_say_so(in_process, refusal):
    for arguments in (["status"], ["planner", "set", "random"], ["record"]):
        assert refusal(*arguments).startswith("vjepa: no stack is running here; start one with: vjepa run")
    status, said, _ = in_process("planner", "list")
    assert status == 0
    assert re.match("installed: .*expert, expert-p, .*random", said)


def test_a_stack_elsewhere_that_does_not_answer_is_reported(vjepa, domain):
    for arguments, message in ((["status"], "no node of a stack"), (["planner", "set", "x"], "does not answer")):
        command = vjepa(*arguments, "--domain", domain).wait(30)
        assert command.status == 1
        assert message in command.complained
        command.assert_left_nothing()


def test_with_two_stacks_one_must_be_chosen_and_a_domain_is_not_taken_twice(vjepa, domain, tmp_path):
    with hold_domain(None, {}) as other:
        for taken in (domain, other):
            vjepa("run", "--domain", taken)
        files = [tmp_path / "vjepa" / f"domain-{taken}.json" for taken in (domain, other)]
        wait_for(lambda: all(file.exists() and file.read_text() for file in files), "both stacks to take their domains")
        command = vjepa("status").wait(20)
        assert command.status == 1
        low, high = sorted((domain, other))
        assert f"2 stacks are running, in ROS domains {low}, {high}; choose one with --domain" in command.complained
        third = vjepa("run", "--domain", domain).wait(20)
        assert third.status == 1
        assert f"ROS domain {domain} is held by another vjepa run" in third.complained
