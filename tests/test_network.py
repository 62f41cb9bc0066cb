"""What a stack opens to the network, read from the kernel's tables: by default nothing beyond this host.

Other nodes of the same host reach it all the same, without its profile.
"""

import contextlib
import ipaddress
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from vjepa_bringup import domains
from vjepa_bringup.domains import hold_domain
from vjepa_bringup.graph import share
from vjepa_interfaces.shared_memory import PROFILES

MARK = "VJEPA_TEST_MARK"
DEADLINE_S = 90.0
STACK = {"vjepa_perception", "vjepa_planner", "episode_recorder", "sim_bridge", "stack_manager", "cli"}

BARE_NODE = """
import sys, time
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

rclpy.init()
node, heard = rclpy.create_node("bare"), {}
def hear(kind, topic, latched=False):
    qos = QoSProfile(depth=5)
    if latched:
        qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
    node.create_subscription(kind, topic, lambda message: heard.setdefault(topic, message), qos)
hear(Image, "camera/image_raw")
hear(String, "vjepa_perception/latent_info", latched=True)
hear(DiagnosticArray, "/diagnostics")
client = node.create_client(Trigger, "stack_manager/is_active")
asked, asked_s, deadline = None, 0.0, time.monotonic() + 30
while not (len(heard) == 3 and asked and asked.done()):
    assert time.monotonic() < deadline, f"heard {sorted(heard)}, asked {asked}"
    rclpy.spin_once(node, timeout_sec=0.1)
    # An answer is lost where the server has not yet discovered the client, so it is asked again.
    if client.service_is_ready() and not (asked and asked.done()) and time.monotonic() - asked_s > 2.0:
        asked, asked_s = client.call_async(Trigger.Request()), time.monotonic()
print("active" if asked.result().success else asked.result().message)
"""


@dataclass(frozen=True)
class Socket:
    """A socket of IP that a process has open: its protocol, and the address and port that it is bound to."""

    protocol: str
    address: str
    port: int


def sockets_of(pid: int) -> set[Socket]:
    """Read what a process has open, none of one that has ended."""
    with contextlib.suppress(OSError):
        links = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.is_symlink()]
        inodes = {match[1] for link in links if (match := re.fullmatch(r"socket:\[(\d+)]", link))}
        found = set()
        for protocol in ("udp", "udp6", "udplite", "tcp", "tcp6", "raw", "raw6"):
            table = Path(f"/proc/{pid}/net/{protocol}")
            for line in table.read_text().splitlines()[1:] if table.exists() else ():
                fields = line.split()
                if fields[9] in inodes:
                    address, port = fields[1].split(":")
                    words = [bytes.fromhex(address[i : i + 8])[::-1] for i in range(0, len(address), 8)]
                    found.add(Socket(protocol, str(ipaddress.ip_address(b"".join(words))), int(port, 16)))
        return found
    return set()


class Processes:
    """`vjepa` commands, and all that came of them, by a mark in their environment."""

    def __init__(self, folder: Path, domain: int, **environment: str):
        self._folder, self._mark = folder, uuid.uuid4().hex
        private = {"TMPDIR": str(folder), "XDG_RUNTIME_DIR": str(folder), MARK: self._mark}
        self._environment = {**os.environ, **environment, **private, "ROS_DOMAIN_ID": str(domain)}
        self.started: list[subprocess.Popen] = []

    def start(self, *arguments: str) -> subprocess.Popen:
        command = [sys.executable, "-P", "-m", "vjepa_cli.cli", *map(str, arguments)]
        with (self._folder / "said").open("ab") as said:
            self.started.append(
                subprocess.Popen(
                    command,
                    env=self._environment,
                    stdout=said,
                    stderr=said,
                    cwd=self._folder,
                    start_new_session=True,
                )
            )
        return self.started[-1]

    @property
    def said(self) -> str:
        return (self._folder / "said").read_text()

    def names(self) -> dict[int, str]:
        """Return the executable or module of each process, by id."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"{MARK}={self._mark}".encode() in (entry / "environ").read_bytes():
                    words = (entry / "cmdline").read_text().split("\0")
                    names = [Path(word).name.removeprefix("vjepa_cli.") for word in words]
                    found[int(entry.name)] = next((name for name in names if name in STACK), " ".join(words))
        return found

    def sockets(self) -> dict[str, set[Socket]]:
        """Return what the processes have open, by name."""
        found: dict[str, set[Socket]] = {}
        for pid, name in self.names().items():
            found.setdefault(name, set()).update(sockets_of(pid))
        return found

    def end(self) -> None:
        for pid in self.names():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.started:
            process.wait()


def wait_for(condition: Callable[[], object], what: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


@pytest.fixture(scope="module")
def domain() -> Iterator[int]:
    with hold_domain(None, {}) as held:
        yield held


@pytest.fixture(scope="module")
def stack(tmp_path_factory, domain) -> Iterator[Processes]:
    """A stack that goes on and on, started by `vjepa run`, every node of it active.

    Its shell has variables that would open more, and its folder a file of profiles that somebody left there.
    """
    folder = tmp_path_factory.mktemp("stack")
    (folder / "DEFAULT_FASTRTPS_PROFILES.xml").write_bytes((share("config") / "fastdds.xml").read_bytes())
    processes = Processes(folder, domain, ROS_LOCALHOST_ONLY="1", ROS_DISCOVERY_SERVER="TCPv4:[127.0.0.1]:1")
    try:
        processes.start("run", "--planner", "random", "--episodes", 1000, "--domain", domain)
        status = processes.start("status")
        while status.wait(DEADLINE_S) != 0:
            assert processes.started[0].poll() is None, processes.said
            status = processes.start("status")
        yield processes
    finally:
        processes.end()


def test_no_process_of_a_stack_has_a_socket_that_another_host_could_reach(stack):
    found = stack.sockets()
    assert set(found) == STACK
    assert all(found.values()), f"each has sockets of DDS, or this test has not found them: {found}"
    assert {(one.protocol, one.address) for each in found.values() for one in each} == {("udp", "127.0.0.1")}


def test_the_domain_of_a_stack_is_seen_to_be_in_use_without_its_file(stack, domain):
    assert domains.in_use(domain)


@pytest.mark.parametrize("arguments", [["record", "--seconds", "1"], ["status"], ["planner", "set", "random"]])
def test_a_command_that_joins_a_stack_opens_no_such_socket_either(stack, arguments):
    process, seen = stack.start(*arguments), set()
    while process.poll() is None:
        seen |= sockets_of(process.pid)
        time.sleep(0.01)
    assert process.returncode == 0, stack.said
    assert {(one.protocol, one.address) for one in seen} == {("udp", "127.0.0.1")}


@pytest.mark.parametrize("range_of_shell", ["LOCALHOST", None])
def test_a_node_of_this_host_that_knows_nothing_of_the_profile_hears_and_asks_the_stack(stack, domain, range_of_shell):
    own = {"ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY", *PROFILES}
    environment = {name: value for name, value in os.environ.items() if name not in own}
    environment |= {"ROS_DOMAIN_ID": str(domain)}
    environment |= {"ROS_AUTOMATIC_DISCOVERY_RANGE": range_of_shell} if range_of_shell else {}
    command = [sys.executable, "-c", BARE_NODE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "active"), done.stderr


def test_a_stack_that_is_opened_is_bound_to_every_address_and_listens_to_multicast(tmp_path, domain):
    processes = Processes(tmp_path, domain)
    try:
        processes.start("node", "stack_manager", "discovery:=subnet")
        everywhere: set[int] = set()

        def is_open() -> bool:
            everywhere.update(s.port for each in processes.sockets().values() for s in each if s.address == "0.0.0.0")
            return len(everywhere & set(range(7400 + 250 * domain, 7650 + 250 * domain))) >= 3

        wait_for(is_open, lambda: (processes.sockets(), processes.said))
        assert 7400 + 250 * domain in everywhere, "the port of multicast (DDSI-RTPS 9.6.1.1)"
    finally:
        processes.end()


def test_a_socket_of_another_address_would_be_found():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket(socket.AF_INET6) as tcp:
        udp.bind(("0.0.0.0", 0))
        tcp.bind(("::", 0))
        tcp.listen()
        expected = {Socket("udp", "0.0.0.0", udp.getsockname()[1]), Socket("tcp6", "::", tcp.getsockname()[1])}
        assert expected <= sockets_of(os.getpid())
