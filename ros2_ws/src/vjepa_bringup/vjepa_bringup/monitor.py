"""A command's view of a running stack: the simulation's scores, and every node's last diagnostics."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, cast

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import String
from std_srvs.srv import Trigger

from sim_bridge.score import RunScores
from vjepa_bringup.graph import OPERATOR, enclave
from vjepa_bringup.interrupts import postponed
from vjepa_interfaces import topics
from vjepa_interfaces.encoder_info import EncoderInfo
from vjepa_interfaces.json_text import parse_json
from vjepa_interfaces.managed_node import ERROR, qos_profile

Diagnostics = Mapping[str, tuple[bytes, str, Mapping[str, str]]]
"""The latest level, message and values by node."""

SPIN_S = 0.1
"""Longest single wait for a message, seconds: signals are handled between two waits."""


def number_in(diagnostics: Diagnostics, node: str, key: str, default: float = float("nan")) -> float:
    """Return a number from a node's diagnostics; `default` if it is missing."""
    try:
        return float(diagnostics[node][2][key])
    except (KeyError, ValueError):
        return default


def text_in(diagnostics: Diagnostics, node: str, key: str, default: str = "") -> str:
    """Return a value from a node's diagnostics; `default` if it is missing."""
    return diagnostics.get(node, (b"", "", {}))[2].get(key, default)


class Monitor:
    """A node of the command line that listens to one stack, in a context of its own.

    Attributes:
        node: the node, for further clients.
        namespace: ROS namespace of the stack.
        diagnostics: the latest (level, message, values) by node name.
        encoder_info: the encoder's message on `latent_info`; empty before it.
        drivers: the planners that have driven, in order; the last one drives.
    """

    def __init__(self, domain: int, namespace: str = "", scores: RunScores | None = None):
        """Join a domain.

        Args:
            domain: ROS domain of the stack.
            namespace: ROS namespace of the stack.
            scores: reads the simulation's scores; None for a monitor without them.
        """
        self.namespace = namespace
        self._context = Context()
        rclpy.init(
            args=["--ros-args", "--enclave", enclave(OPERATOR, namespace)],
            context=self._context,
            domain_id=domain,
            signal_handler_options=SignalHandlerOptions.NO,
        )
        self.node = Node("vjepa_cli", context=self._context, namespace=namespace)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.diagnostics: dict[str, tuple[bytes, str, dict[str, str]]] = {}
        self.encoder_info: EncoderInfo = {}
        self.drivers: list[str] = []
        self._steps: defaultdict[str, int] = defaultdict(int)
        self._rewards: defaultdict[str, float] = defaultdict(float)
        self.subscribe(topics.DIAGNOSTICS, self._on_diagnostics)
        self.subscribe(topics.LATENT_INFO, self._on_latent_info)
        self.subscribe(topics.ACTIVE_PLANNER, self._on_active_planner)
        self._scores = scores
        if scores is not None:  # The simulation publishes its progress only to listeners.
            self.subscribe(topics.PROGRESS, self._score)
            self.subscribe(topics.SCORE, self._score)

    def subscribe(self, topic: topics.Topic, callback: Callable[[Any], None]) -> None:
        """Subscribe to a `topic` with a long queue; `callback(message)` is called while the monitor listens."""
        depth = max(topic.depth, 1000) if not topic.latched else topic.depth
        self.node.create_subscription(topic.message_class, topic.name, callback, qos_profile(topic, depth))

    def _score(self, message: String) -> None:
        """Read a score, and credit its new steps to the planner that drives."""
        assert self._scores is not None
        with contextlib.suppress(ValueError):  # Any process may publish there.
            steps, reward = self._scores.read(message.data)
            if steps and self.drivers:
                self._steps[self.driver] += steps
                self._rewards[self.driver] += reward

    def by_planner(self) -> dict[str, dict[str, float]]:
        """Return `steps` and mean `reward_a_step` by planner, right to a tenth of a second at each swap."""
        return {
            name: {"steps": steps, "reward_a_step": self._rewards[name] / steps} for name, steps in self._steps.items()
        }

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            namespace, _, name = status.name.rpartition("/")
            if namespace == self.node.get_namespace().rstrip("/"):
                values = {pair.key: pair.value for pair in status.values}
                self.diagnostics[name] = (status.level, status.message, values)

    def _on_latent_info(self, message: String) -> None:
        with contextlib.suppress(ValueError):  # Any process may publish there.
            self.encoder_info = cast(EncoderInfo, parse_json(message.data))

    def _on_active_planner(self, message: String) -> None:
        if self.drivers[-1:] != [message.data]:
            self.drivers.append(message.data)

    def spin(self, seconds: float) -> None:
        """Listen for `seconds`."""
        self.wait_until(lambda: False, seconds)

    def wait_until(self, condition: Callable[[], object], timeout_s: float) -> bool:
        """Listen until `condition()` is true and return True, or return False after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            with postponed():
                self._executor.spin_once(min(left, SPIN_S))
        return True

    def call(self, service_type: type, name: str, request: Any, timeout_s: float = 5.0) -> Any:
        """Call a service and return its response, or None if it does not exist or does not answer in time.

        Args:
            service_type: class of the service.
            name: name of the service, relative to the stack's namespace.
            request: an instance of `service_type.Request`.
            timeout_s: longest wait for the service, and then for its answer, seconds.
        """
        client = self.node.create_client(service_type, name)
        try:
            if not self.wait_until(client.service_is_ready, timeout_s):
                return None
            future = client.call_async(request)
            self.wait_until(future.done, timeout_s)
            return future.result() if future.done() else None
        finally:
            self.node.destroy_client(client)

    def is_active(self, timeout_s: float = 5.0) -> bool:
        """Return whether every node is active, according to the stack manager."""
        response = self.call(Trigger, "stack_manager/is_active", Trigger.Request(), timeout_s)
        return response is not None and response.success

    def value(self, node: str, key: str, default: float = float("nan")) -> float:
        """Return a number from a node's latest diagnostics; `default` if it is missing."""
        return number_in(self.diagnostics, node, key, default)

    @property
    def sim_finished(self) -> bool:
        """Whether the simulation reports the end of all episodes."""
        return "sim_bridge" in self.diagnostics and self.diagnostics["sim_bridge"][1] == "finished"

    def errors(self) -> dict[str, str]:
        """Return the errors that nodes report, by node."""
        return {name: message for name, (level, message, _) in self.diagnostics.items() if level == ERROR}

    @property
    def chosen_planner(self) -> str:
        """The planner that was chosen last, even while a fallback drives; empty while it is unknown."""
        return text_in(self.diagnostics, "vjepa_planner", "planner", self.driver)

    @property
    def driver(self) -> str:
        """The planner that drives; empty before the first."""
        return "".join(self.drivers[-1:])

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self.node.destroy_node()
        self._context.try_shutdown()

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
