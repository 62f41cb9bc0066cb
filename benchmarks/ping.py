"""The bare ping: three plain rclpy nodes in three processes that relay messages of the stack's types and sizes.

`source` sends an rgb8 image, of 64 x 64 at 50 Hz. `latent` answers it with a 32FC1 image of 17 x 128, and `command`
answers this with a joint state of two efforts. `source` measures the time from image to command on its steady clock.
Each message is made once, and only its stamp changes. The nodes have the stack's qualities of service and, by default,
rclpy's default executor.
"""

import argparse
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.experimental import EventsExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState

from benchmarks.stack import ROOT
from vjepa_bringup.domains import hold_domain
from vjepa_interfaces import topics
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.image_codec import fill_image
from vjepa_interfaces.managed_node import SPIN_TIMEOUT_S, qos_profile
from vjepa_interfaces.messages import fill_latent
from vjepa_interfaces.stamps import set_stamp, to_nanoseconds

RATE_HZ = 50.0
IMAGE_SHAPE = (64, 64, 3)
LATENT_SHAPE = (17, 128)
WARM_UP = 50
"""The first round trips, which do not count because of discovery and first allocations."""
START_TIMEOUT_S = 60.0
END_S = 5.0
RELAYS = ("latent", "command")
EXECUTORS = {"single": SingleThreadedExecutor, "multi": MultiThreadedExecutor, "events": EventsExecutor}
USUAL = ""
"""rclpy's own `spin`, or `spin_once` in the source."""


class CpuClock:
    """The time of this process on processors from the end of the warm-up to the latest message."""

    def __init__(self):
        self._count, self._began_s, self._last_s = 0, 0.0, 0.0

    def tick(self) -> None:
        """Count a message."""
        self._count += 1
        self._last_s = time.process_time()
        if self._count == WARM_UP:
            self._began_s = self._last_s

    def per_message_ms(self) -> float:
        """Return the time for each message after the warm-up, ms; NaN if there was none."""
        count = self._count - WARM_UP
        return 1e3 * (self._last_s - self._began_s) / count if count > 0 else math.nan


class Relay(Node):
    """Answers every message of one topic with a fixed message on another, under the same stamp."""

    def __init__(self, heard: topics.Topic, answer: Image | JointState, answered: topics.Topic):
        super().__init__("ping_relay")
        self.cpu = CpuClock()
        self._answer = answer
        self._output = self.create_publisher(type(answer), answered.name, qos_profile(answered))
        self.create_subscription(Image, heard.name, self._relay, qos_profile(heard))

    def _relay(self, message: Image) -> None:
        self._answer.header.stamp = message.header.stamp
        self._output.publish(self._answer)
        self.cpu.tick()


class Source(Node):
    """Sends images at a rate and measures the time to the commands that answer them: `round_trips_s`, by stamp."""

    def __init__(self, image_shape: tuple[int, ...], rate_hz: float):
        super().__init__("ping_source")
        self.cpu = CpuClock()
        self.round_trips_s: dict[int, float] = {}
        self._sent_s: dict[int, float] = {}
        self._image = Image()
        fill_image(self._image, np.zeros(image_shape, np.uint8))
        self._output = self.create_publisher(Image, topics.IMAGE.name, qos_profile(topics.IMAGE))
        command = topics.JOINT_COMMAND
        self.create_subscription(JointState, command.name, self._receive, qos_profile(command))
        self.create_timer(1.0 / rate_hz, self._send)

    def _send(self) -> None:
        stamp_ns = len(self._sent_s) + 1
        set_stamp(self._image.header.stamp, stamp_ns)
        self._sent_s[stamp_ns] = time.monotonic()
        self._output.publish(self._image)

    def _receive(self, message: JointState) -> None:
        now = time.monotonic()
        stamp_ns = to_nanoseconds(message.header.stamp)
        self.round_trips_s[stamp_ns] = now - self._sent_s[stamp_ns]
        self.cpu.tick()


def spin(node: Node, executor: str, condition: Callable[[], bool]) -> None:
    """Spin `node` in one of `EXECUTORS`, as the stack's nodes do, until `condition()` is true or the process ends."""
    spinning = EXECUTORS[executor]()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.getsignal(number))  # As `managed_node.run` does, for the events executor.
    spinning.add_node(node)
    while not condition():
        spinning.spin_once(SPIN_TIMEOUT_S)


def relay(role: str, executor: str) -> CpuClock:
    """Run one of the two relays until the process is told to stop; return its time on processors."""
    if role == "latent":
        latent = Image()
        fill_latent(latent, np.zeros(LATENT_SHAPE, np.float32))
        node = Relay(topics.IMAGE, latent, topics.LATENT)
    else:
        command = JointState(name=["shoulder", "wrist"], effort=[0.0, 0.0])
        node = Relay(topics.LATENT, command, topics.JOINT_COMMAND)
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        if executor == USUAL:
            rclpy.spin(node)
        else:
            stopping = []
            signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
            spin(node, executor, lambda: bool(stopping))
    return node.cpu


def send(count: int, image_shape: tuple[int, ...], rate_hz: float, executor: str = USUAL) -> Source:
    """Run the source for `count` round trips after the warm-up, and return it.

    Raises:
        VjepaError: the round trips took far longer than their rate allows.
    """
    node = Source(image_shape, rate_hz)
    wanted = WARM_UP + count
    deadline = time.monotonic() + START_TIMEOUT_S + 2 * wanted / rate_hz

    def done() -> bool:
        if time.monotonic() > deadline:
            raise VjepaError(f"{len(node.round_trips_s)} of {wanted} pings were answered in time")
        return len(node.round_trips_s) >= wanted

    if executor != USUAL:
        spin(node, executor, done)
    while not done():
        rclpy.spin_once(node)
    return node


def measure_ping(
    count: int,
    image_shape: tuple[int, ...] = IMAGE_SHAPE,
    rate_hz: float = RATE_HZ,
    variables: Mapping[str, str | None] = MappingProxyType({}),
    executor: str = USUAL,
) -> dict[str, Any]:
    """Run the three processes in their own ROS domain and return figures of their round trips.

    Args:
        count: number of round trips that count.
        image_shape: height, width and channels of the images.
        rate_hz: rate of the images.
        variables: changes to the processes' environment, besides the domain and its limit to this host; None removes a
            variable.
        executor: executor of all three nodes, one of `EXECUTORS`; `USUAL` for rclpy's default.

    Returns:
        `p50_ms` and `p99_ms` of `count` round trips, the number of `unanswered` stamps among them, and `cpu_ms`. This
        is a process's mean time on processors for each message, including its answer or the next image.

    Raises:
        VjepaError: a process failed; the message contains its output.
    """
    with hold_domain(None, {"planner": "(bare ping)"}) as domain:
        local = {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
        merged: dict[str, str | None] = {**os.environ, **local, **variables}
        environment = {name: value for name, value in merged.items() if value is not None}
        command = ["setpriv", "--pdeathsig", "TERM", "--", sys.executable, "-m", "benchmarks.ping"]
        options: dict[str, Any] = {"cwd": ROOT, "env": environment, "text": True}
        spun = ["--executor", executor] if executor != USUAL else []
        relays = [subprocess.Popen([*command, role, *spun], **options, stdout=subprocess.PIPE) for role in RELAYS]
        sending = ["--count", str(count), "--rate", str(rate_hz), "--shape", *map(str, image_shape), *spun]
        try:
            source = subprocess.run([*command, "source", *sending], **options, capture_output=True, check=False)
        finally:
            for process in relays:
                process.terminate()
            said = [_end(process) for process in relays]
    if source.returncode != 0:
        raise VjepaError(f"the ping's source ended with {source.returncode}:\n{source.stderr}")
    found = json.loads(source.stdout)
    cpu_ms = sum(json.loads(text)["cpu_ms"] for text in (source.stdout, *said)) / (1 + len(said))
    return {**summarise({int(stamp): value for stamp, value in found["round_trips_s"].items()}), "cpu_ms": cpu_ms}


def _end(process: subprocess.Popen) -> str:
    """Return the output of a stopped relay; if it did not stop in time, its time on processors is NaN."""
    try:
        said, _ = process.communicate(timeout=END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        said, _ = process.communicate()
    return said or json.dumps({"cpu_ms": math.nan})


def summarise(round_trips_s: dict[int, float]) -> dict[str, Any]:
    """Return the percentiles of round trips by stamp, without the first `WARM_UP`."""
    stamps = sorted(round_trips_s)[WARM_UP:]
    p50, p99 = np.percentile([round_trips_s[stamp] * 1e3 for stamp in stamps], [50, 99])
    return {
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "count": len(stamps),
        "unanswered": stamps[-1] - stamps[0] + 1 - len(stamps),
    }


def main() -> None:
    """Run one of the three processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=("source", *RELAYS))
    parser.add_argument("--count", type=int, default=1000, help="round trips beyond the warm-up (default %(default)s)")
    parser.add_argument("--rate", type=float, default=RATE_HZ, help="of images, Hz (default %(default)s)")
    parser.add_argument("--shape", type=int, nargs=3, default=IMAGE_SHAPE, help="height, width and channels of images")
    parser.add_argument("--executor", choices=(USUAL, *EXECUTORS), default=USUAL, help="(default: rclpy's own)")
    arguments = parser.parse_args()
    rclpy.init()
    try:
        if arguments.role == "source":
            source = send(arguments.count, tuple(arguments.shape), arguments.rate, arguments.executor)
            print(json.dumps({"round_trips_s": source.round_trips_s, "cpu_ms": source.cpu.per_message_ms()}))
        else:
            print(json.dumps({"cpu_ms": relay(arguments.role, arguments.executor).per_message_ms()}), flush=True)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
