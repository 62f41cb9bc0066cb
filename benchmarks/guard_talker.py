"""One endpoint beside a guard, in its own process: it sends messages as requested by lines of JSON, or listens.

`python -m benchmarks.guard_talker TOPIC` publishes; each line of its input is a `Mode`, as JSON. It answers a line with
the steady time (CLOCK_MONOTONIC) of the first message in that mode. `python -m benchmarks.guard_talker listen` prints
the steady time and values of every torque that reaches the arm. Both end with their input.
"""

import contextlib
import json
import os
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException
from sensor_msgs.msg import JointState, Joy
from std_msgs.msg import Float64MultiArray

from vjepa_interfaces import topics
from vjepa_interfaces.managed_node import qos_profile
from vjepa_interfaces.stamps import set_stamp

JOINTS = ["shoulder", "wrist"]
TOPICS = {
    topic.name: topic for topic in (topics.JOINT_COMMAND, topics.ENABLE, topics.EFFORT_ARRAY, topics.JOINT_STATES)
}
LISTEN = "listen"
PRIORITY = 60


@dataclass(frozen=True)
class Mode:
    """The content and rate of a talker's messages.

    Attributes:
        rate_hz: messages a second; 0 sends without a pause, and a negative rate sends nothing.
        stamp: `now`, `zero`, `frozen` (the stamp of the first message in this mode), or `shifted` by `shift_s`.
        shift_s: seconds added to the time of stamps.
        values: torques, velocities, or the buttons of the switch.
        real_time: ask for a real-time priority: a measuring process must not wait for the measured one.
    """

    rate_hz: float = -1.0
    stamp: str = "now"
    shift_s: float = 0.0
    values: tuple[float, ...] = (0.0, 0.0)
    real_time: bool = False


def message_of(topic: topics.Topic, mode: Mode, began_ns: int) -> Any:
    """Return the next message on a topic."""
    if topic == topics.EFFORT_ARRAY:
        return Float64MultiArray(data=list(mode.values))
    if topic == topics.ENABLE:
        message: Any = Joy(buttons=[int(value) for value in mode.values])
    elif topic == topics.JOINT_COMMAND:
        message = JointState(name=JOINTS, effort=list(mode.values))
    else:
        message = JointState(name=JOINTS, position=[0.0, 0.0], velocity=list(mode.values))
    stamps = {"zero": 0, "frozen": began_ns, "now": time.time_ns(), "shifted": time.time_ns() + int(mode.shift_s * 1e9)}
    set_stamp(message.header.stamp, max(stamps[mode.stamp], 0))
    return message


class Talker:
    """Publishes in the newest mode until its input ends."""

    def __init__(self, name: str):
        self._topic = TOPICS[name]
        node = rclpy.create_node("talker_" + name.replace("/", "_"))
        kind = {topics.JOINT_COMMAND: JointState, topics.JOINT_STATES: JointState, topics.ENABLE: Joy}
        self._publisher = node.create_publisher(
            kind.get(self._topic, Float64MultiArray), name, qos_profile(self._topic)
        )
        self._silent = Mode()
        self._mode: Mode | None = self._silent
        self._changed = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            found = json.loads(line)
            with self._changed:
                self._mode = Mode(**found)
                self._changed.notify()
        with self._changed:
            self._mode = None
            self._changed.notify()

    def run(self) -> None:
        """Publish until the input ends."""
        mode, began_ns, due = self._silent, 0, 0.0
        while True:
            with self._changed:
                new = self._mode
                if new is mode and new is not None and new.rate_hz != 0:
                    self._changed.wait(max(due - time.monotonic(), 0.0) if new.rate_hz > 0 else None)
                    new = self._mode
            if new is None:
                return
            if new is mode and new.rate_hz > 0 and time.monotonic() < due:
                continue
            if new is not mode:
                began_ns = time.time_ns() + int(new.shift_s * 1e9)
                if new.real_time:
                    ask_for_real_time()
            if new.rate_hz >= 0:
                self._publisher.publish(message_of(self._topic, new, began_ns))
            if new is not mode:
                print(time.monotonic(), flush=True)
            mode, due = new, time.monotonic() + (1.0 / new.rate_hz if new.rate_hz > 0 else 0.0)


def listen() -> None:
    """Print every torque that arrives, until the input ends."""
    ask_for_real_time()
    node = rclpy.create_node("arm_side")

    def note(message: Float64MultiArray) -> None:
        print(time.monotonic(), *message.data, flush=True)

    node.create_subscription(Float64MultiArray, topics.EFFORT_ARRAY.name, note, qos_profile(topics.EFFORT_ARRAY, 1000))
    threading.Thread(target=lambda: (sys.stdin.read(), rclpy.try_shutdown()), daemon=True).start()
    with contextlib.suppress(ExternalShutdownException):
        rclpy.spin(node)


def ask_for_real_time() -> None:
    """Ask for a real-time priority, if this user may have one."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))


def main() -> None:
    """Publish or listen, depending on the first argument."""
    if sys.argv[1] == LISTEN:
        ask_for_real_time()
    rclpy.init()
    if sys.argv[1] == LISTEN:
        listen()
    else:
        Talker(sys.argv[1]).run()
    rclpy.try_shutdown()
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
