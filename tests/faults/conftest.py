"""Faults on purpose: a relay in the way of a topic, a watch on the torque, and how large the suite runs."""

import itertools
import math
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
from sensor_msgs.msg import JointState

import vjepa_bringup.run_graph as run_graph
from tests.peak_memory import peak_bytes
from vjepa_bringup.graph import build_graph
from vjepa_interfaces import topics
from vjepa_interfaces.managed_node import STEADY, qos_profile

RECOVERY_S = 5.0
"""How long after a fault's end everything has to be as before."""
RESTART_S = 30.0
"""The same where a process has to be started again: it imports, loads and warms up before it can do anything."""
COMMAND_TIMEOUT_S, PERIOD_S = 0.2, 0.02
LONGEST_HOLD = math.ceil(COMMAND_TIMEOUT_S / PERIOD_S) + 3
"""Control steps for which one torque may be applied without a newer command, and what two timers add to that."""
RELAY_PERIOD_S = 0.005
REAL_TIME = {"planner": "random", "episode_steps": 100_000}

Fault = Callable[[object], Iterable[tuple[float, object]]]


@pytest.fixture
def full_size(request) -> bool:
    """Whether to run as `make test-faults` does, and not as part of every other test."""
    return request.config.getoption("--full-faults")


def no_fault(message) -> Iterable[tuple[float, object]]:
    """Pass a message on at once: what every other fault does differently."""
    return [(0.0, message)]


class Relay:
    """Carries a topic from who publishes it to who subscribes, through `fault`: which may drop, change and delay."""

    def __init__(self, stack, topic: topics.Topic, kind: type):
        self.fault: Fault = no_fault
        self._due: list[tuple[float, object]] = []
        self._out = stack.node.create_publisher(kind, _passed_on(topic), qos_profile(topic))
        stack.node.create_subscription(kind, topic.name, self._take, qos_profile(topic))
        stack.node.create_timer(RELAY_PERIOD_S, self._pass_on, clock=STEADY)

    def mend(self) -> None:
        """End the fault; what it delayed still arrives, in its order."""
        self.fault = no_fault

    def _take(self, message) -> None:
        now = time.monotonic()
        self._due += [(now + delay_s, changed) for delay_s, changed in self.fault(message)]
        self._pass_on()

    def _pass_on(self) -> None:
        while self._due and self._due[0][0] <= time.monotonic():
            self._out.publish(self._due.pop(0)[1])


def _passed_on(topic: topics.Topic) -> str:
    return f"passed_on/{topic.name}"


@pytest.fixture
def relayed_stack(start_stack, monkeypatch):
    """Return a function that starts a stack whose node `subscriber` hears a topic through a relay alone, and both."""

    def start(subscriber: str, topic: topics.Topic, kind: type, **options):
        def graph(chosen):
            moved = {topic.name: _passed_on(topic)}
            return [
                replace(node, remappings={**node.remappings, **moved}) if node.name == subscriber else node
                for node in build_graph(chosen)
            ]

        monkeypatch.setattr(run_graph, "build_graph", graph)
        stack = start_stack(**options)
        return stack, Relay(stack, topic, kind)

    return start


class Arm:
    """The torque that the arm of a stack in real time had, step by step, and when the test saw it."""

    def __init__(self, stack):
        self.stack = stack
        self.efforts: list[tuple[float, tuple[float, ...]]] = []
        stack.node.create_subscription(
            JointState, topics.JOINT_STATES.name, self._see, qos_profile(topics.JOINT_STATES, 1000)
        )

    def _see(self, message) -> None:
        self.efforts.append((time.monotonic(), tuple(message.effort)))

    @property
    def is_driven(self) -> bool:
        return bool(self.efforts) and any(self.efforts[-1][1])

    @property
    def longest_hold(self) -> int:
        """Control steps for which one and the same torque was applied, at most; zero is no torque."""
        runs = itertools.groupby(effort for _, effort in self.efforts)
        return max((len(list(run)) for effort, run in runs if any(effort)), default=0)

    def wait_driven(self, after: str, restarted: bool = False) -> None:
        """Wait until torques come again, several different ones, within the limit from now on."""
        seen = len(self.efforts)
        self.stack.wait_for(
            lambda: len({effort for _, effort in self.efforts[seen:] if any(effort)}) > 5,
            f"torque to come back after {after}",
            RESTART_S if restarted else RECOVERY_S,
        )

    def wait_still(self, why: str) -> None:
        """Wait until the torque is zero, and has been for several steps."""
        self.stack.wait_for(
            lambda: len(self.efforts) > 5 and not any(any(effort) for _, effort in self.efforts[-5:]), why, RECOVERY_S
        )

    def assert_never_held_too_long(self) -> None:
        """Assert the watchdog's limit over all that was seen, in control steps: a busy test sees them late."""
        assert self.longest_hold <= LONGEST_HOLD, "a torque outlived its command"


@pytest.fixture
def driven_arm(start_stack):
    """Return a function that gives a stack's arm in real time once it is driven, by a new torque every step.

    Without a `stack` it starts one.
    """

    def start(stack=None, **options) -> Arm:
        stack = stack or start_stack(**REAL_TIME, **options)
        arm = Arm(stack)
        stack.wait_for(lambda: arm.is_driven, "the first torque")
        return arm

    return start


@pytest.fixture
def wait_said():
    """Return a function that waits until a node's diagnostics say `words`, for five seconds."""

    def wait(stack, node: str, words: str) -> None:
        stack.wait_for(
            lambda: words in stack.message_of(node),
            f"{node} to say '{words}'",
            RECOVERY_S,
        )

    return wait


@pytest.fixture
def hogs():
    """Return a function that starts processes which do nothing but compute, on one core; they end with the test."""
    started: list[subprocess.Popen] = []

    def start(count: int, core: int) -> list[subprocess.Popen]:
        command = ["taskset", "--cpu-list", str(core), "sh", "-c", "while :; do :; done"]
        started.extend(subprocess.Popen(command) for _ in range(count))
        return started

    yield start
    for process in started:
        process.kill()
        process.wait()


PATIENCE_S, PATIENCE_ON_A_BUSY_MACHINE_S = 10.0, 60.0
MEMORY_BYTES = 300 * 2**20


@pytest.fixture
def bounded():
    """Hold the test to limits of its own time and memory, and end it where it waits for something that never comes."""

    def late(*_):
        pytest.fail(f"still not done after {PATIENCE_ON_A_BUSY_MACHINE_S} s")

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_ON_A_BUSY_MACHINE_S)
    before, began = peak_bytes(reset=True), time.process_time()
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert time.process_time() - began < PATIENCE_S
    assert peak_bytes() - before < MEMORY_BYTES
