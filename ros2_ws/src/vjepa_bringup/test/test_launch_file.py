"""The launch file against real launch and launch_ros: the graph as it stands, and nothing left behind.

launch_ros comes with an installed ROS 2 and not as a wheel: without one these tests are skipped.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from rosbags.highlevel import AnyReader

from sim_bridge.score import RunScores
from vjepa_bringup.domains import hold_domain
from vjepa_bringup.graph import NodeSpec, StackOptions, build_graph, enclave, environment, option_names
from vjepa_bringup.monitor import Monitor
from vjepa_bringup.options import option_default, option_help, parse_option

pytest.importorskip("launch_ros", reason="launch_ros comes with an installed ROS 2; there is no wheel of it")
pytest.importorskip("ros2launch", reason="ros2launch comes with an installed ROS 2; there is no wheel of it")

from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    GroupAction,
    IncludeLaunchDescription,
    RegisterEventHandler,
)
from launch.event_handlers import OnProcessStart
from launch.events import Shutdown
from launch.launch_description_sources import (
    PythonLaunchDescriptionSource,
    get_launch_description_from_python_launch_file,
)
from launch_ros.actions import PushROSNamespace

from launch import LaunchContext, LaunchDescription, LaunchService

LAUNCH_FILE = Path(__file__).resolve().parents[1] / "launch" / "stack.launch.py"
ROS2 = [sys.executable, "-c", "import sys; from ros2cli.cli import main; sys.exit(main())"]
START_S = 120.0
STOP_S = 45.0
"""More than it takes until launch resorts to force, which is to be seen and not to end the test."""
POLL_S = 0.05
FEW_STEPS = {"lockstep": "true", "episodes": "1", "episode_steps": "40", "planner": "expert-p"}


# What the description says.


def test_every_option_is_an_argument_with_its_default_and_a_description():
    arguments = [
        entity
        for entity in get_launch_description_from_python_launch_file(str(LAUNCH_FILE)).entities
        if isinstance(entity, DeclareLaunchArgument)
    ]
    assert [argument.name for argument in arguments] == option_names()
    for argument in arguments:
        assert argument.description == option_help(argument.name)
        default = "".join(part.perform(LaunchContext()) for part in argument.default_value)
        assert default == option_default(argument.name)


@pytest.fixture
def started(tmp_path, monkeypatch) -> Callable[..., list]:
    """Return a function that launches the file with a harmless program in place of each node.

    It returns the events of their start. Where a `namespace` is pushed, the file is included in a group with it.
    """
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path))

    def launch(arguments: dict[str, str], nodes: int, pushed: str = "") -> list:
        events: list = []

        def on_start(event, context):
            events.append(event)
            return EmitEvent(event=Shutdown(reason="seen enough")) if len(events) == nodes else None

        instead = {"launch-prefix": "sleep 60 #"}
        stack = IncludeLaunchDescription(
            PythonLaunchDescriptionSource(str(LAUNCH_FILE)), launch_arguments=(arguments | instead).items()
        )
        service = LaunchService(noninteractive=True, argv=["somebody_elses_argument:=1"])
        group = GroupAction([PushROSNamespace(pushed), stack]) if pushed else stack
        handler = RegisterEventHandler(OnProcessStart(on_start=on_start))
        service.include_launch_description(LaunchDescription([handler, group]))
        with hold_domain(None, {}) as domain:
            monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
            service.run()
        return events

    return launch


def spec_of(event, lifecycle: set[str]) -> tuple[NodeSpec, str, str]:
    """Return what the command line of a started process makes of it: the node, its namespace and its log level."""
    command = event.cmd[event.cmd.index("#") + 1 :]
    executable = Path(command[0])
    rules = [value for flag, value in pairwise(command) if flag == "-r"]
    renamed = dict(rule.split(":=") for rule in rules)
    name, namespace = renamed.pop("__node"), renamed.pop("__ns")
    parameters: dict = {}
    for flag, value in pairwise(command):
        if flag == "--params-file":
            content = yaml.load(Path(value).read_text(), Loader=yaml.FullLoader)
            assert list(content) in ([f"{namespace.rstrip('/')}/{name}"], ["/**"])
            parameters |= next(iter(content.values()))["ros__parameters"]
    parameters = {key: list(value) if isinstance(value, tuple) else value for key, value in parameters.items()}
    node = NodeSpec(executable.parent.name, executable.name, name, parameters, renamed, name in lifecycle)
    return node, namespace, command[command.index("--log-level") + 1]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"source": "camera", "planner": "random", "image_topic": "/my/cam", "command_topic": "torques"},
        {"source": "camera", "camera": "0", "planner": "random"},
        {"joint_states_topic": "/arm/joints"},
        {"lockstep": "true", "namespace": "left", "log_level": "warn", "record": "true", "bag_dir": "7", "seed": "3"},
    ],
    ids=["defaults", "driver", "camera", "joint states", "simulation"],
)
def test_the_processes_are_those_of_the_graph(started, arguments):
    options = StackOptions(**{name: parse_option(name, text) for name, text in arguments.items()})
    expected = build_graph(options)
    events = started(arguments, len(expected))
    lifecycle = {node.name for node in expected if node.lifecycle}
    found = [spec_of(event, lifecycle) for event in events]
    assert [node for node, _, _ in found] == expected
    assert {namespace for _, namespace, _ in found} == {f"/{options.namespace}"}
    assert {level for _, _, level in found} == {options.log_level}
    for event, (node, _, _) in zip(events, found, strict=True):
        assert event.env.items() >= environment(options).items()
        assert event.cmd[event.cmd.index("--enclave") + 1] == enclave(node.name, options.namespace)


def test_a_deprecated_argument_is_the_present_one(started, capfd):
    expected = build_graph(StackOptions(bc_bundle="bc-latents"))
    events = started({"policy": "bc-latents"}, len(expected))
    lifecycle = {node.name for node in expected if node.lifecycle}
    assert [spec_of(event, lifecycle)[0] for event in events] == expected
    assert "launch argument: 'policy' is deprecated; use 'bc_bundle'" in capfd.readouterr().err


def test_a_launch_file_that_includes_it_may_push_a_namespace_and_have_arguments_of_its_own(started):
    expected = build_graph(StackOptions(source="camera", planner="random"))
    events = started({"source": "camera", "planner": "random"}, len(expected), pushed="robot")
    assert {spec_of(event, set())[1] for event in events} == {"/robot"}


# What it does. Every launch gets a domain, and a mark by which its processes are found.


class Launch:
    """A running `ros2 launch` of the stack."""

    def __init__(self, arguments: dict[str, str], domain: int, folder: Path):
        self.domain = domain
        self._mark = f"VJEPA_LAUNCH_TEST={folder}"
        self._output = folder / "output"
        key, _, value = self._mark.partition("=")
        own = {key: value, "ROS_DOMAIN_ID": str(domain), "ROS_LOG_DIR": str(folder / "log"), "TMPDIR": str(folder)}
        with open(self._output, "wb") as output:
            self.process = subprocess.Popen(
                [*ROS2, "launch", "vjepa_bringup", "stack.launch.py", *(f"{k}:={v}" for k, v in arguments.items())],
                env={**os.environ, **own},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._output.read_text()

    def nodes(self) -> dict[str, int]:
        """Return the process ids of the nodes by name, however they are related to the launch."""
        found = {}
        for process in Path("/proc").iterdir():
            if process.name.isdigit() and int(process.name) != self.process.pid:
                with contextlib.suppress(OSError):
                    if self._mark in (process / "environ").read_bytes().decode(errors="replace").split("\0"):
                        words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
                        name = next((word.removeprefix("__node:=") for word in words if "__node:=" in word), words[0])
                        found[name] = int(process.name)
        return found

    def wait(self, condition: Callable[[], bool], what: str, patience_s: float) -> None:
        deadline = time.monotonic() + patience_s
        while not condition():
            assert time.monotonic() < deadline, f"{what}: not within {patience_s} s\n{self.output}"
            time.sleep(POLL_S)

    def interrupt(self) -> int:
        """Press Ctrl-C, as far as launch is concerned, and return the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOP_S)

    def kill(self) -> None:
        """End everything by force."""
        for pid in (self.process.pid, *self.nodes().values()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(STOP_S)


@pytest.fixture
def launch(tmp_path) -> Iterator[Callable[..., Launch]]:
    """Return a function that starts `ros2 launch vjepa_bringup stack.launch.py`; all of it ends with the test."""
    with contextlib.ExitStack() as exits:
        domain = exits.enter_context(hold_domain(None, {}))

        def start(**arguments: str) -> Launch:
            running = Launch(arguments, domain, tmp_path)
            exits.callback(running.kill)
            return running

        yield start


def test_an_episode_runs_is_recorded_and_survives_the_death_of_a_node_and_ctrl_c_ends_all_cleanly(launch, tmp_path):
    running = launch(**FEW_STEPS, record="true", bag_dir=str(tmp_path / "bags"), namespace="left")
    scores = RunScores()
    with Monitor(running.domain, "left", scores) as monitor:
        assert monitor.wait_until(lambda: scores.episodes and scores.episodes[-1].steps >= 5, START_S), running.output
        os.kill(running.nodes()["vjepa_planner"], signal.SIGKILL)
        assert monitor.wait_until(lambda: scores.finished, START_S), running.output
    assert scores.finished[0].steps == 40
    assert "vjepa_planner" in running.nodes()
    assert running.interrupt() == 0
    assert running.nodes() == {}
    ends = [line for line in running.output.splitlines() if "process has" in line or "failed to terminate" in line]
    assert ["has finished cleanly" in line for line in ends] == [False] + [True] * 5, running.output
    [bag] = (tmp_path / "bags").iterdir()
    with AnyReader([bag]) as reader:
        counts = {connection.topic: connection.msgcount for connection in reader.connections}
    assert counts["/left/camera/image_raw"] == counts["/left/joint_command"] == 41


def test_parameters_that_a_node_refuses_take_the_stack_down_at_once(launch, tmp_path):
    file = tmp_path / "parameters.yaml"
    file.write_text("vjepa_planner: {ros__parameters: {plannner: random}}")
    running = launch(params_file=str(file))
    assert running.process.wait(START_S) == 1
    assert "vjepa_planner has no parameter plannner; valid are: " in running.output
    assert "vjepa_planner refused its parameters" in running.output
    assert running.output.count("[vjepa_planner-2]: process started") == 1
    assert running.nodes() == {}


def test_a_node_that_keeps_dying_is_given_up_with_the_whole_stack(launch):
    running = launch(autostart="false")
    for times in range(1, 5):
        said = "[episode_recorder-3]: process started"
        running.wait(lambda times=times, said=said: running.output.count(said) == times, "start", START_S)
        running.wait(lambda: "episode_recorder" in running.nodes(), "the process", START_S)
        os.kill(running.nodes()["episode_recorder"], signal.SIGKILL)
    assert running.process.wait(START_S) == 1
    assert "episode_recorder ended 4 times, last with status -9" in running.output
    assert running.nodes() == {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_nodes_end_with_the_launch_whatever_ended_it(launch, number):
    running = launch(autostart="false")
    running.wait(lambda: len(running.nodes()) == 5, "five nodes", START_S)
    running.process.send_signal(number)
    running.process.wait(STOP_S)
    running.wait(lambda: running.nodes() == {}, "end of the nodes", STOP_S)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "video"}, "unknown source 'video'; valid are: camera, sim"),
        ({"sorce": "sim"}, "unknown launch argument 'sorce'; valid are: autostart, "),
        ({"lockstep": "maybe"}, "lockstep is 'maybe'; expected true or false"),
        ({"namespace": "my robot"}, "Invalid namespace"),
        ({"planner": "nope"}, "unknown planner 'nope'; valid are: bc, "),
        ({"device": "xyz"}, "unknown device 'xyz'; valid are: auto, cpu, cuda, cuda:N"),
        ({"guard": "true", "lockstep": "true"}, "guard and lockstep are both true"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_starts(launch, arguments, message):
    running = launch(**arguments)
    assert running.process.wait(START_S) == 1
    assert message in running.output
    assert "process started" not in running.output
