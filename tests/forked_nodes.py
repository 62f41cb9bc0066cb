"""Nodes of a stack as processes that have imported already: a fork of one that has, which takes no time.

A stack of tests is one of real processes over real DDS, but the start of each of its nodes is an import of seconds:
`python -m tests.forked_nodes` imports once, and forks a process for each node that a test asks for. What `vjepa run`
starts itself, as in tests/test_cli.py and tests/test_readme.py, is not forked.
"""

import array
import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from vjepa_bringup.supervisor import STDERR, Child, Supervisor

IMPORTED = [
    "rclpy",
    "torch",
    "transformers.activations",
    "mujoco",
    "cv2",
    "rosbags.image",
    "vjepa_perception.encoder",
    "vjepa_perception.perception_node",
    "vjepa_planner.planner_node",
    "vjepa_planner.models.policy",
    "vjepa_planner.models.actor",
    "vjepa_planner.models.dynamics",
    "vjepa_bags.recorder_node",
    "vjepa_bringup.stack_manager_node",
    "vjepa_interfaces.effort_guard_node",
    "sim_bridge.sim_node",
]
"""What nodes import, but for dm_control: its import opens a display, which no fork survives."""

LONGEST_REQUEST = 1 << 20
PR_SET_PDEATHSIG = 1


class ForkedNode:
    """The process of a node, used as a `subprocess.Popen` is."""

    def __init__(self, nodes: "ForkedNodes", pid: int):
        self.pid = pid
        self.returncode: int | None = None
        self._nodes = nodes

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal, or None while it runs."""
        self._nodes.listen(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended and return the exit status."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            left = 1.0 if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            self._nodes.listen(min(left, 1.0))
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, where it still runs."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class ForkedNodes:
    """The process that has imported, and what it says of those that it forked; all of them end with this process."""

    def __init__(self) -> None:
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._socket, other):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LONGEST_REQUEST)
        command = [sys.executable, "-P", __file__, str(other.fileno())]
        with other:
            self._process = subprocess.Popen(
                command, pass_fds=[other.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
            )
        self._running: dict[int, ForkedNode] = {}
        self._started: list[ForkedNode] = []

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> ForkedNode:
        """Start a Python script with its arguments; standard output and error are this process's standard error."""
        request = {"command": list(command), "environment": dict(environment), "folder": os.getcwd()}
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [STDERR]))]
        self._socket.sendmsg([json.dumps(request).encode()], rights)
        while not self._started:
            self.listen(1.0)
            assert self._process.poll() is None, "the process that forks nodes has ended"
        return self._started.pop()

    def listen(self, timeout_s: float) -> None:
        """Take what is said of the processes: that one has started or ended."""
        self._socket.settimeout(timeout_s)
        with contextlib.suppress(BlockingIOError, TimeoutError):
            while content := self._socket.recv(LONGEST_REQUEST):
                pid, status = json.loads(content)
                if status is None:
                    self._running[pid] = ForkedNode(self, pid)
                    self._started.append(self._running[pid])
                elif pid in self._running:
                    self._running.pop(pid).returncode = status
                self._socket.settimeout(0.0)
            while self._running:  # Nobody is there to answer, and so none of them.
                self._running.popitem()[1].returncode = -signal.SIGTERM

    def end(self) -> None:
        """End the process, and with it those that it forked."""
        self._socket.close()
        self._process.wait()


class ForkingSupervisor(Supervisor):
    """A supervisor whose nodes are forked, but for those that a test has started by another program."""

    nodes: ForkedNodes
    # A process that is killed on a busy machine can leave shared memory half made, and others wait for it for ever.
    manager_down_s: ClassVar[float] = 6.0
    node_down_s: ClassVar[float] = 6.0

    def _spawn(self, child: Child) -> None:
        if child.command[0] != "setpriv":
            super()._spawn(child)
            return
        child.restart_at_s = None
        script = child.command[child.command.index("--") + 1 :]
        child.process = self.nodes.start(script, self.variables_of(child.node))  # type: ignore[assignment]


def serve(requests: socket.socket) -> list[str] | None:
    """Fork a process for every request until nobody asks any more; return its command in such a process."""
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is requests:
                    content, files, _, _ = socket.recv_fds(requests, LONGEST_REQUEST, 1)
                    if not content:
                        return None
                    if (pid := os.fork()) == 0:
                        os.dup2(files[0], 1)
                        os.dup2(files[0], 2)
                        return become(**json.loads(content))
                    os.close(files[0])
                    selector.register(os.pidfd_open(pid), selectors.EVENT_READ, pid)
                    requests.send(json.dumps([pid, None]).encode())
                else:
                    selector.unregister(key.fileobj)
                    os.close(key.fd)
                    status = os.waitstatus_to_exitcode(os.waitpid(key.data, 0)[1])
                    requests.send(json.dumps([key.data, status]).encode())


def become(command: list[str], environment: dict[str, str], folder: str) -> list[str]:
    """Make this process one that was started so, as far as a node can tell, and return its command."""
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    wanted = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [path for path in wanted if path and path not in sys.path]
    importlib.invalidate_caches()
    return command


def status_of(command: list[str]) -> int:
    """Run a script as if Python had been started with it, and return its exit status.

    The caller ends without the interpreter's own end, which would touch, and so copy, all that was imported.
    """
    sys.argv[:] = command
    status = 0
    try:
        runpy.run_path(command[0], run_name="__main__")
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def main() -> None:
    """Import, then fork a process for whatever is asked for."""
    for name in IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # What is not looked at in a fork is not copied.
    sys.path[:] = [path for path in sys.path if path != str(Path(__file__).parent)]
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        command = serve(requests)
    if command:
        os._exit(status_of(command))


if __name__ == "__main__":
    main()
