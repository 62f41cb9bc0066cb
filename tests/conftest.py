"""Whole stacks for tests: real processes over real DDS, each in a ROS domain of its own."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.parameter import Parameter
from sensor_msgs.msg import Joy

from sim_bridge.score import RunScores
from tests.forked_nodes import ForkedNodes, ForkingSupervisor
from vjepa_bringup import run_graph
from vjepa_bringup.graph import StackOptions, read_parameter_file
from vjepa_bringup.monitor import Monitor
from vjepa_bringup.supervisor import Supervisor
from vjepa_interfaces import topics
from vjepa_interfaces.managed_node import qos_profile
from vjepa_interfaces.messages import FIRST
from vjepa_interfaces.stamps import set_stamp, to_nanoseconds

START_TIMEOUT_S = 90.0
EVENT_TIMEOUT_S = 120.0
COMMAND_TIMEOUT_S = 240.0
LIGHT = Path(__file__).parent / "light"


@dataclass
class Tap:
    """What arrived on a topic, in order."""

    messages: list = field(default_factory=list)

    @property
    def stamps(self) -> list[int]:
        return [to_nanoseconds(message.header.stamp) for message in self.messages]

    def by_stamp(self) -> dict[int, Any]:
        return dict(zip(self.stamps, self.messages, strict=True))


class Stack:
    """A running stack, and a node of the test's own that listens and speaks in its domain."""

    def __init__(self, supervisor: Supervisor, domain: int, namespace: str):
        self.supervisor = supervisor
        self.domain = domain
        self.scores = RunScores()
        self.monitor = Monitor(domain, namespace, self.scores)
        self.node = self.monitor.node
        self.steps, self._stamp_ns = 0, 0  # Scores may be a tenth of a second old.
        topic = topics.TIMESTEP
        self.node.create_subscription(topic.message_class, topic.name, self._count, qos_profile(topic, 1000))

    def _count(self, message) -> None:
        """Count a control step, unless it is a repetition or the first of an episode."""
        stamp_ns = to_nanoseconds(message.header.stamp)
        self.steps += stamp_ns != self._stamp_ns and message.vector.z != FIRST
        self._stamp_ns = stamp_ns

    def tap(self, topic: topics.Topic) -> Tap:
        tap = Tap()
        self.node.create_subscription(topic.message_class, topic.name, tap.messages.append, qos_profile(topic, 1000))
        return tap

    def publisher(self, topic: topics.Topic):
        return self.node.create_publisher(topic.message_class, topic.name, qos_profile(topic))

    def wait_for(self, condition: Callable[[], bool], what: str, timeout_s: float = EVENT_TIMEOUT_S) -> None:
        def held() -> bool:
            self.supervisor.poll()
            return bool(condition())

        assert self.monitor.wait_until(held, timeout_s), f"{what}: not within {timeout_s} s; nodes say " + json.dumps(
            {name: [message, values] for name, (_, message, values) in self.monitor.diagnostics.items()}
        )

    def wait_for_steps(self, count: int) -> None:
        """Wait until `count` more steps have been made."""
        goal = self.steps + count
        self.wait_for(lambda: self.steps >= goal, f"{count} more steps")

    def wait_for_episodes(self, count: int) -> None:
        self.wait_for(lambda: len(self.scores.finished) >= count, f"{count} finished episodes")

    def wait_for_value(self, node: str, key: str, condition: Callable[[float], bool]) -> float:
        """Wait until a number in a node's diagnostics meets a condition, and return it."""
        self.wait_for(lambda: condition(self.monitor.value(node, key)), f"{node}'s {key}")
        return self.monitor.value(node, key)

    def message_of(self, node: str) -> str:
        """Return the message of a node's diagnostics; empty before the first."""
        return self.monitor.diagnostics.get(node, (b"", "", {}))[1]

    def wait_running(self) -> None:
        """Wait until the simulation reports that it runs, also where a slow machine does not hold the rate."""
        running = ("running", "50 Hz cannot be held")
        self.wait_for(lambda: self.message_of("sim_bridge").startswith(running), "the simulation to run")

    def wait_finished(self) -> None:
        """Wait until the simulation has had the answer to its last frame."""
        self.wait_for(lambda: self.message_of("sim_bridge") == "finished", "the end")

    @property
    def driver(self) -> str:
        """The planner that drives."""
        return self.monitor.drivers[-1] if self.monitor.drivers else ""

    def call(self, service_type: type, name: str, request):
        response = self.monitor.call(service_type, name, request, 20.0)
        assert response is not None, f"service {name} does not answer"
        return response

    @staticmethod
    def stamped(message, stamp_ns: int):
        """Return `message` with its header's stamp set."""
        set_stamp(message.header.stamp, stamp_ns)
        return message

    def set_parameter(self, node: str, name: str, value):
        request = SetParametersAtomically.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        return self.call(SetParametersAtomically, f"{node}/set_parameters_atomically", request).result

    def set_planner(self, name: str):
        return self.set_parameter("vjepa_planner", "planner", name)

    def transition(self, node: str, transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        return self.call(ChangeState, f"{node}/change_state", request).success

    def kill(self, node: str) -> int:
        """Kill a node with SIGKILL and return the process id it had."""
        pid = self.supervisor.pids()[node]
        for child in self.supervisor.children:
            if child.node.name == node:
                child.process.send_signal(signal.SIGKILL)
                child.process.wait()
        return pid


@pytest.fixture(scope="session")
def forked_nodes():
    """The process that all nodes of the session's stacks are forks of."""
    nodes = ForkedNodes()
    yield nodes
    nodes.end()


def light_planners() -> list[str]:
    return read_parameter_file(LIGHT / "stack.yaml")["vjepa_planner"]["planners"]


def lightened(options: dict[str, Any], file: Path) -> dict[str, Any]:
    """Return options of a stack with `tests/light` below its own parameters, and write these parameters to `file`."""
    nodes = read_parameter_file(LIGHT / "stack.yaml")
    if own := options.get("params_file"):
        for node, values in read_parameter_file(Path(own)).items():
            nodes[node] = nodes.get(node, {}) | values
    file.write_text(yaml.safe_dump({node: {"ros__parameters": values} for node, values in nodes.items()}))
    return {**options, "encoder": str(LIGHT / "encoder"), "params_file": str(file)}


@pytest.fixture
def forking(forked_nodes, monkeypatch):
    """Have the nodes of the stacks that this process starts forked."""
    monkeypatch.setattr(ForkingSupervisor, "nodes", forked_nodes, raising=False)
    monkeypatch.setattr(run_graph, "Supervisor", ForkingSupervisor)


@pytest.fixture
def start_stack(forking, tmp_path_factory):
    """Return a function that starts a stack with the given options; all of them end with the test.

    One that is driven by a planner of `tests/light` has the encoder and the planners from there, but for `light=False`.
    """
    with contextlib.ExitStack() as exits:

        def start(task: str = "reacher-easy", light: bool = True, **options) -> Stack:
            if light and options.get("planner") in light_planners() and "encoder" not in options:
                options = lightened(options, tmp_path_factory.mktemp("light") / "stack.yaml")
            chosen = StackOptions(task=task, log_level=options.pop("log_level", "warn"), **options)
            supervisor, domain = exits.enter_context(run_graph.running_graph(chosen, None, {}))
            stack = Stack(supervisor, domain, chosen.namespace)
            exits.callback(stack.monitor.close)
            return stack

        yield start


@pytest.fixture
def lockstep_stack(start_stack):
    """Return a function that starts a lockstep stack with a short episode and waits for nothing."""
    return lambda **options: start_stack(**{"lockstep": True, "episode_steps": 100, **options})


class Hand:
    """A hand on the dead-man's switch of a stack's guard: released at first, as a switch that nobody touches is."""

    def __init__(self, stack: Stack):
        self._stack = stack
        self._publisher = stack.publisher(topics.ENABLE)
        self.holding = False
        self._timer = stack.node.create_timer(0.05, self._send)

    def _send(self) -> None:
        message = Joy(buttons=[int(self.holding)])
        set_stamp(message.header.stamp, time.time_ns())
        self._publisher.publish(message)

    def hold(self, holding: bool = True) -> float:
        """Press or let go, at once, and return when, as `time.monotonic` gives it."""
        self.holding = holding
        self._send()
        return time.monotonic()

    def press(self) -> float:
        """Let go and press, and return when."""
        self.hold(False)
        return self.hold(True)

    def press_until(self, condition: Callable[[float], object], what: str) -> None:
        """Press, and again every second where a busy machine has stopped the arm, until the condition holds.

        The condition is asked with the time of the last press.
        """
        pressed = self.press()

        def holds() -> bool:
            nonlocal pressed
            if time.monotonic() - pressed > 1.0:
                pressed = self.press()
            return bool(condition(pressed))

        self._stack.wait_for(holds, what)


@pytest.fixture
def hand_of():
    """Return a function that puts a hand on the switch of a stack's guard."""
    return Hand


class Commands:
    """`vjepa` commands started in a folder, what they said, and what of them runs."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._started: list[subprocess.Popen] = []

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen:
        command = [sys.executable, "-P", "-m", "vjepa_cli.cli", *arguments]
        with (self.folder / "said").open("a") as said:
            process = subprocess.Popen(
                command, cwd=self.folder, env={**os.environ, **environment}, stdout=said, stderr=said
            )
        self._started.append(process)
        return process

    def finish(self, process: subprocess.Popen, timeout_s: float = COMMAND_TIMEOUT_S) -> None:
        """Wait until a command has ended well."""
        assert process.wait(timeout_s) == 0, self.said

    @property
    def said(self) -> str:
        return (self.folder / "said").read_text()

    def running(self) -> list[int]:
        """The processes whose working folder this is: the commands, and whatever they have started."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if (entry / "cwd").resolve() == self.folder and (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + COMMAND_TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline, f"{what}: not within {COMMAND_TIMEOUT_S} s; said: {self.said}"
            time.sleep(0.02)

    def end(self) -> None:
        for process in self._started:
            process.kill()
            process.wait()


@pytest.fixture
def commands(tmp_path):
    """Commands in the test's own folder; none outlives the test."""
    commands = Commands(tmp_path)
    yield commands
    commands.end()
