"""Child processes of `vjepa run`: started from the graph, restarted within limits, and always ended."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import yaml
from ament_index_python.packages import PackageNotFoundError, get_package_prefix

from vjepa_bringup.graph import NodeSpec, enclave
from vjepa_interfaces.errors import VjepaError

MAX_RESTARTS = 3
RESTART_DELAY_S = 0.1
KILL_S = 2.0
POLL_S = 0.1
STDERR = 2
"""The output of nodes: standard output belongs to the command, for a scoreboard or JSON."""

_BUILD = "build the workspace with: ./vjepa --setup-only"


def parameters_as_yaml(node: NodeSpec) -> str:
    """Return the text of a node's ROS parameter file."""
    return yaml.safe_dump({"/**": {"ros__parameters": node.parameters}})


def executable_of(package: str, name: str) -> Path:
    """Return the path of the installed executable `name` of a package.

    Raises:
        VjepaError: the executable or its package is not installed.
    """
    try:
        executable = Path(get_package_prefix(package), "lib", package, name)
    except PackageNotFoundError as error:
        raise VjepaError(f"package '{package}' is not installed; {_BUILD}") from error
    if not executable.is_file():
        raise VjepaError(f"no executable at {executable}; {_BUILD}")
    return executable


def command_of(node: NodeSpec, parameter_file: str, namespace: str, log_level: str) -> list[str]:
    """Return the command that starts a node: its installed executable and its ROS arguments.

    Raises:
        VjepaError: the executable or its package is not installed.
    """
    executable = executable_of(node.package, node.executable)
    command = [str(executable), "--ros-args", "-r", f"__node:={node.name}"]
    command += ["--params-file", parameter_file, "--log-level", log_level, "--enclave", enclave(node.name, namespace)]
    if namespace:
        command += ["-r", f"__ns:=/{namespace.strip('/')}"]
    for topic, other in node.remappings.items():
        command += ["-r", f"{topic}:={other}"]
    return command


@dataclass
class Child:
    """One node's process, and the number of its restarts."""

    node: NodeSpec
    command: list[str]
    process: subprocess.Popen[Any] | None = None
    restarts: int = 0
    restart_at_s: float | None = None
    failure: str = ""


@dataclass
class Supervisor:
    """Starts, watches and stops the processes of a graph.

    Each child runs in a session of its own, so that Ctrl-C reaches only the parent, which takes the stack down in
    order. The kernel ends a child whose parent died (`setpriv --pdeathsig`).

    Attributes:
        environment: variables that are added to this process's own.
        namespace: ROS namespace of the nodes.
        log_level: log level of the nodes.
        manager_down_s: seconds that the stack manager has to end; after Ctrl-C, a command ends within three seconds.
        node_down_s: seconds that the other nodes have after it.
    """

    manager_down_s: ClassVar[float] = 1.5
    node_down_s: ClassVar[float] = 1.0
    environment: dict[str, str]
    namespace: str = ""
    log_level: str = "warn"
    children: list[Child] = field(default_factory=list)

    def __post_init__(self) -> None:
        if shutil.which("setpriv") is None:
            raise VjepaError("setpriv is missing; install it with: apt-get install util-linux")
        self._folder = Path(tempfile.mkdtemp(prefix="vjepa-run-"))

    def start(self, nodes: list[NodeSpec]) -> None:
        """Start a process for every node.

        Raises:
            VjepaError: an executable or its package is not installed.
        """
        for node in nodes:
            child = Child(node, self._command(node))
            self.children.append(child)
            self._spawn(child)

    def _command(self, node: NodeSpec) -> list[str]:
        file = self._folder / f"{node.name}.yaml"
        file.write_text(parameters_as_yaml(node), encoding="utf-8")
        return ["setpriv", "--pdeathsig", "TERM", "--", *command_of(node, str(file), self.namespace, self.log_level)]

    def variables_of(self, node: NodeSpec) -> dict[str, str]:
        """Return the environment variables of a node's process."""
        return {**os.environ, **self.environment, **node.environment}

    def _spawn(self, child: Child) -> None:
        child.restart_at_s = None
        child.process = subprocess.Popen(
            child.command,
            env=self.variables_of(child.node),
            stdin=subprocess.DEVNULL,
            stdout=STDERR,
            start_new_session=True,
        )

    def poll(self) -> list[str]:
        """Restart dead processes, within limits, and return a text for each node that will not restart."""
        now = time.monotonic()
        for child in self.children:
            if child.failure or child.process is None or child.process.poll() is None:
                continue
            status = child.process.returncode
            if child.restart_at_s is not None:
                if now >= child.restart_at_s:
                    self._spawn(child)
            elif status == 2:
                child.failure = f"{child.node.name} refused its parameters"
            elif child.restarts >= MAX_RESTARTS:
                child.failure = f"{child.node.name} ended {child.restarts + 1} times, last with status {status}"
            else:
                child.restarts += 1
                child.restart_at_s = now + RESTART_DELAY_S
        return [child.failure for child in self.children if child.failure]

    def pids(self) -> dict[str, int]:
        """Return the process ids of the running nodes by name."""
        return {c.node.name: c.process.pid for c in self.children if c.process and c.process.poll() is None}

    def restarts(self) -> dict[str, int]:
        """Return the number of restarts by node, without nodes that never restarted."""
        return {child.node.name: child.restarts for child in self.children if child.restarts}

    def stop(self, hurry: Callable[[], bool] = lambda: False) -> None:
        """End every process: the stack manager first, which takes the nodes down in order, then the others.

        Remaining processes are killed. A second call does nothing. No exception of a signal handler may interrupt this
        method: see `interrupts`.

        Args:
            hurry: returns whether to kill all running processes at once.
        """
        managers = [child for child in self.children if not child.node.lifecycle]
        groups = [process.pid for process in _running(self.children)]
        for children, patience_s in ((managers, self.manager_down_s), (self.children, self.node_down_s)):
            # With SIGINT, a node would end in a traceback during its imports.
            _signal(children, signal.SIGTERM)
            _wait(children, patience_s, hurry)
        for group in groups:  # A process that has ended may have children that run.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        _wait(self.children, KILL_S, lambda: False)
        self.children.clear()
        shutil.rmtree(self._folder, ignore_errors=True)


def _running(children: list[Child]) -> list[subprocess.Popen[Any]]:
    return [child.process for child in children if child.process and child.process.poll() is None]


def _signal(children: list[Child], number: int) -> None:
    """Send a signal to the running children."""
    for process in _running(children):
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)


def _wait(children: list[Child], patience_s: float, hurry: Callable[[], bool]) -> None:
    """Wait until all children have ended, for at most `patience_s`, or until `hurry()` is true."""
    deadline = time.monotonic() + patience_s
    while (running := _running(children)) and not hurry() and (left := deadline - time.monotonic()) > 0:
        with contextlib.suppress(subprocess.TimeoutExpired):
            running[0].wait(min(left, POLL_S))
