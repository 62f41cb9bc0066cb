"""A guard, and around it commander, hand, joint states and the arm's side, each in its own process."""

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import GetParameters, SetParameters, SetParametersAtomically
from rclpy.parameter import Parameter

from benchmarks.guard_talker import LISTEN, Mode
from benchmarks.stack import ROOT
from vjepa_bringup.domains import hold_domain
from vjepa_bringup.graph import StackOptions, environment
from vjepa_bringup.monitor import Monitor
from vjepa_interfaces import topics
from vjepa_interfaces.environment import environment_of
from vjepa_interfaces.errors import VjepaError

TORQUE, ZERO = (0.02, -0.01), (0.0, 0.0)
TIMEOUT_S = 30.0
END_TIMEOUT_S = 3.0
SETTLE_S = 0.5
"""Torque must be zero for this time, while the switch is held, before zero counts."""
PARAMETERS = {"slew_rates": [5.0, 5.0], "dry_run": False}


def end(process: subprocess.Popen, number: signal.Signals) -> None:
    """End a process by a signal, and kill it if it does not end."""
    process.send_signal(number)
    try:
        process.wait(END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Endpoint:
    """A talker's process; `send` sets its mode and returns the time of the first message in this mode."""

    def __init__(self, topic: str, variables: dict[str, str]):
        command = [sys.executable, "-P", "-m", "benchmarks.guard_talker", topic]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        paths = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
        variables = {**os.environ, **variables, "PYTHONPATH": paths}
        self.process = subprocess.Popen(command, env=variables, cwd=ROOT, **pipes)  # type: ignore[call-overload]

    def send(self, **mode: Any) -> float:
        """Send in this `Mode` from now on; return the steady time of its first message, s."""
        self.process.stdin.write(json.dumps(asdict(Mode(**mode))) + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def end(self) -> None:
        """End the process in good order, even a stopped one, because a killed process leaves shared memory."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        end(self.process, signal.SIGCONT)


class Rig:
    """A guard that drives: `driving` makes it drive, and `zero_after` measures the effect of a fault.

    Attributes:
        outputs: every torque at the arm's side: steady time, s, and values, N·m.
        commander: sends 50 commands a second.
        hand: reports 20 times a second whether the switch is held.
        another: endpoint of a rival, if a fault has started one.
        guard: the guard's process.
        monitor: monitor of the guard's domain: diagnostics and services.
    """

    def __init__(self, folder: Path, real_time: bool = True, **parameters: Any):
        """Prepare a rig with its files in `folder`; `real_time` lets the guard ask for a real-time priority."""
        self._prefix = [] if real_time or os.geteuid() else ["setpriv", "--bounding-set=-sys_nice"]
        self._parameters = {**PARAMETERS, **parameters}
        self._folder = folder
        self._exits = contextlib.ExitStack()
        self.outputs: list[tuple[float, tuple[float, ...]]] = []
        self.another: Any = None

    def __enter__(self) -> "Rig":
        try:
            self._start()
        except BaseException:
            self._exits.close()  # A guard that refuses its parameters must not be left behind.
            raise
        return self

    def _start(self) -> None:
        options = StackOptions()
        domain = self._exits.enter_context(hold_domain(None, {"planner": "(guard)"}))
        self._variables = {**environment(options), "ROS_DOMAIN_ID": str(domain)}
        self._exits.enter_context(environment_of(self._variables))
        self.monitor = self._exits.enter_context(Monitor(domain))
        self._listener = self._endpoint(LISTEN)
        threading.Thread(target=self._collect, daemon=True).start()
        self.commander, self.hand = self._endpoint(topics.JOINT_COMMAND.name), self._endpoint(topics.ENABLE.name)
        self.start_guard()

    def __exit__(self, *exception: object) -> None:
        self._exits.close()

    def _endpoint(self, topic: str) -> Endpoint:
        endpoint = Endpoint(topic, self._variables)
        self._exits.callback(endpoint.end)
        return endpoint

    def _collect(self) -> None:
        for line in self._listener.process.stdout:
            at, *values = map(float, line.split())
            self.outputs.append((at, tuple(values)))

    @functools.cached_property
    def joints(self) -> Endpoint:
        """The endpoint that sends joint states in place of an arm."""
        return self._endpoint(topics.JOINT_STATES.name)

    def rival(self, topic: topics.Topic) -> Endpoint:
        """Return another publisher of a topic, which sends nothing yet."""
        return self._endpoint(topic.name)

    # The guard.

    def start_guard(self) -> None:
        """Start the guard's process, configure it and activate it."""
        file = self._folder / "guard.yaml"
        file.write_text(json.dumps({"effort_guard": {"ros__parameters": self._parameters}}))
        program = "from vjepa_interfaces.effort_guard_node import main; main()"
        arguments = ["--ros-args", "--params-file", str(file), "--log-level", "error"]
        self.guard = subprocess.Popen([*self._prefix, sys.executable, "-P", "-c", program, *arguments])
        self._exits.callback(end, self.guard, signal.SIGTERM)
        # Until the middleware has found the new process, requests go to a killed one and are lost.
        self.monitor.diagnostics.clear()
        self.wait(lambda: "effort_guard" in self.monitor.diagnostics, "the guard's process to start")
        self.transition(Transition.TRANSITION_CONFIGURE)
        self.transition(Transition.TRANSITION_ACTIVATE)

    def transition(self, transition: int) -> None:
        """Request a transition of the guard.

        Raises:
            VjepaError: the guard did not make it.
        """
        request = ChangeState.Request(transition=Transition(id=transition))
        response = self.monitor.call(ChangeState, "effort_guard/change_state", request, TIMEOUT_S)
        if response is None or not response.success:
            raise VjepaError(f"the guard made no transition {transition}: {self.diagnostics()}")

    def set_parameters(self, atomically: bool = True, **values: Any) -> list[bool]:
        """Request parameters of the guard; return whether all (`atomically`) or each of them were accepted."""
        parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        if atomically:
            request = SetParametersAtomically.Request(parameters=parameters)
            return [self._call(SetParametersAtomically, "set_parameters_atomically", request).result.successful]
        response = self._call(SetParameters, "set_parameters", SetParameters.Request(parameters=parameters))
        return [result.successful for result in response.results]

    def is_dry(self) -> bool:
        """Return the guard's parameter `dry_run`."""
        request = GetParameters.Request(names=["dry_run"])
        return self._call(GetParameters, "get_parameters", request).values[0].bool_value

    def _call(self, kind: type, name: str, request: Any) -> Any:
        response = self.monitor.call(kind, f"effort_guard/{name}", request, TIMEOUT_S)
        if response is None:
            raise VjepaError(f"the guard does not answer {name}")
        return response

    def diagnostics(self) -> tuple[str, dict[str, str]]:
        """Return message and values of the guard's latest diagnostics."""
        _, message, values = self.monitor.diagnostics.get("effort_guard", (b"", "", {}))
        return message, values

    def wait_for_message(self, words: str) -> None:
        """Wait until the message of the diagnostics contains some words.

        Raises:
            VjepaError: it does not in time.
        """
        self.monitor.diagnostics.clear()
        if not self.monitor.wait_until(lambda: words in self.diagnostics()[0], TIMEOUT_S):
            raise VjepaError(f"the guard's diagnostics do not state '{words}' but '{self.diagnostics()[0]}'")

    # Measurements.

    def wait(self, condition: Callable[[], bool], what: str, timeout_s: float = TIMEOUT_S) -> None:
        """Wait until a condition holds.

        Raises:
            VjepaError: the condition did not hold in time.
        """
        if not self.monitor.wait_until(condition, timeout_s):
            raise VjepaError(f"{what}: not within {timeout_s:g} s; diagnostics: {self.diagnostics()}")

    def driving(self) -> None:
        """Send commands, press the switch, and wait for the torque at the arm."""
        self.commander.send(rate_hz=50.0, values=TORQUE)
        began = time.monotonic()
        while True:
            pressed = self.press()
            if self.monitor.wait_until(lambda at=pressed: self._has_come(TORQUE, at), 1.0):
                return
            if time.monotonic() - began > TIMEOUT_S:
                raise VjepaError(f"no torque within {TIMEOUT_S:g} s of a press; diagnostics: {self.diagnostics()}")

    def press(self) -> float:
        """Release the switch and press it; return the steady time of the press, s."""
        self.hand.send(rate_hz=20.0, values=(0,))
        self.monitor.spin(0.1)
        return self.hand.send(rate_hz=20.0, values=(1,))

    def _has_come(self, effort: tuple[float, ...], after_s: float) -> bool:
        return any(at > after_s and values == effort for at, values in reversed(self.outputs[-200:]))

    def zero_after(self, fault_s: float, timeout_s: float = TIMEOUT_S) -> float:
        """Return the time from a fault until torque at the arm's side was zero and stayed so for `SETTLE_S`, s.

        Raises:
            VjepaError: torque did not become zero.
        """

        def first_zero() -> float:
            seen = [output for output in list(self.outputs) if output[0] > fault_s]
            moving = [i for i, (_, values) in enumerate(seen) if any(values)]
            rest = seen[moving[-1] + 1 :] if moving else seen
            return rest[0][0] if rest and rest[-1][0] - rest[0][0] >= SETTLE_S else float("nan")

        self.wait(lambda: first_zero() == first_zero(), "zero torque at the arm", timeout_s)
        return first_zero() - fault_s

    def never_moves(self, seconds: float) -> None:
        """Check for some seconds that the arm's side gets zero torque.

        Raises:
            VjepaError: another torque came, or none at all.
        """
        began = time.monotonic()
        self.monitor.spin(seconds)
        seen = [values for at, values in list(self.outputs) if at > began]
        if not seen or any(any(values) for values in seen):
            raise VjepaError(f"{sum(any(v) for v in seen)} of {len(seen)} torques in {seconds:g} s were not zero")
