"""The stack manager: brings the lifecycle nodes up in order, keeps them up, and takes them down in reverse.

Nodes are configured at the same time, since loading an encoder takes seconds, and activated in order: a node only when
every node before it is active. A node that died and was started again shows up unconfigured and is brought up anew.
After navigation2's lifecycle manager.
"""

import sys
import time
from dataclasses import dataclass, field
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import Trigger

from vjepa_interfaces import topics
from vjepa_interfaces.managed_node import (
    ERROR,
    OK,
    STEADY,
    WARN,
    diagnostics_of,
    hold_signals,
    ignore_signals,
    on_signal,
    qos_profile,
)

POLL_S = 0.1
STATE_POLL_S = 0.5
CALL_TIMEOUT_S = 2.0
CHECK_S = 0.5
"""How often a node that is asked for a transition is asked whether it is in one: it answers when it is not."""

STATE_RETRY_S = 0.2
"""A state is asked for again after so long: a request to a node that died is lost, as may be one to its heir."""

DOWN_TIMEOUT_S = 5.0
SETTLED = (State.PRIMARY_STATE_UNCONFIGURED, State.PRIMARY_STATE_INACTIVE, State.PRIMARY_STATE_ACTIVE)


@dataclass
class Managed:
    """What the manager knows of one node, and the call it waits for."""

    name: str
    state: int = State.PRIMARY_STATE_UNKNOWN
    polled_s: float = 0.0
    call: Any = None
    call_kind: str = ""
    asked: list[Any] = field(default_factory=list)
    call_deadline_s: float = 0.0
    check: Any = None
    settled: int = 0
    was_active: bool = False
    attempts: int = 0
    failure: str = ""


class StackManagerNode(Node):
    """`stack_manager`: one client pair a node, one timer that moves every node one transition on."""

    def __init__(self) -> None:
        super().__init__("stack_manager")
        self._autostart = self.declare_parameter("autostart", True).value
        self._transition_timeout_s = self.declare_parameter("transition_timeout_s", 180.0).value
        self._max_restarts = self.declare_parameter("max_restarts", 3).value
        names = self.declare_parameter("managed_nodes", ["vjepa_perception", "vjepa_planner", "sim_bridge"]).value
        self.nodes = [Managed(name) for name in names]
        self._get = {name: self.create_client(GetState, f"{name}/get_state") for name in names}
        self._change = {name: self.create_client(ChangeState, f"{name}/change_state") for name in names}
        self._diagnostics = self.create_publisher(
            DiagnosticArray, topics.DIAGNOSTICS.name, qos_profile(topics.DIAGNOSTICS)
        )
        self.create_service(Trigger, "~/is_active", self._on_is_active)
        self.create_timer(POLL_S, self._drive, clock=STEADY)
        self.create_timer(1.0, self.publish_diagnostics, clock=STEADY)

    @property
    def active(self) -> bool:
        """Whether every managed node is active."""
        return all(node.state == State.PRIMARY_STATE_ACTIVE for node in self.nodes)

    @property
    def failures(self) -> list[str]:
        """Why nodes that were given up are not active."""
        return [node.failure for node in self.nodes if node.failure]

    def _drive(self) -> None:
        """Look after every node: finish its call, ask for its state, or move it one transition on."""
        now = time.monotonic()
        before_active = True
        for node in self.nodes:
            self._finish_call(node, now)
            if node.call is None and not node.failure:
                if self._autostart and node.state == State.PRIMARY_STATE_UNCONFIGURED:
                    self._request(node, Transition.TRANSITION_CONFIGURE)
                elif self._autostart and node.state == State.PRIMARY_STATE_INACTIVE and before_active:
                    self._request(node, Transition.TRANSITION_ACTIVATE)
                elif now - node.polled_s >= STATE_POLL_S:
                    self._ask_state(node)
            before_active = before_active and node.state == State.PRIMARY_STATE_ACTIVE

    def _ask_state(self, node: Managed) -> None:
        if self._get[node.name].service_is_ready():
            self._call(node, "state", self._get[node.name].call_async(GetState.Request()), CALL_TIMEOUT_S)
        else:
            node.state = State.PRIMARY_STATE_UNKNOWN

    def _request(self, node: Managed, transition: int) -> None:
        request = ChangeState.Request(transition=Transition(id=transition))
        kind = "configure" if transition == Transition.TRANSITION_CONFIGURE else "activate"
        self._call(node, kind, self._change[node.name].call_async(request), self._transition_timeout_s)

    @staticmethod
    def _call(node: Managed, kind: str, future: Any, timeout_s: float) -> None:
        node.call, node.call_kind, node.polled_s = future, kind, time.monotonic()
        node.call_deadline_s = node.polled_s + timeout_s
        node.check, node.settled, node.asked = None, 0, [future]

    def _finish_call(self, node: Managed, now: float) -> None:
        if node.call is None:
            return
        if node.call_kind == "state":
            self._ask_again(node, now)
        if not node.call.done():
            gone = node.call_kind != "state" and not self._change[node.name].service_is_ready()
            lost = node.call_kind != "state" and not gone and self._seems_lost(node, now)
            if now < node.call_deadline_s and not gone and not lost:
                return
            if lost:
                self.get_logger().warning(f"{node.name} did not answer to {node.call_kind}: asking again")
            elif node.call_kind != "state" and not gone:
                self._failed(node, f"{node.call_kind} of {node.name} took longer than {self._transition_timeout_s} s")
            node.state = State.PRIMARY_STATE_UNKNOWN
        elif node.call_kind == "state":
            self._saw_state(node, node.call.result().current_state.id)
        elif not node.call.result().success:
            self._failed(node, f"{node.name} refused to {node.call_kind}; its own log and /diagnostics say why")
            node.state = State.PRIMARY_STATE_UNKNOWN
        else:
            node.state = State.PRIMARY_STATE_UNKNOWN
            node.polled_s = 0.0
        for call in node.asked:  # The client keeps those that are never answered.
            call.cancel()
        node.call = None

    def _ask_again(self, node: Managed, now: float) -> None:
        """Take whichever answer of a state has come; without one ask once more, for as long as the call may last."""
        node.call = next((call for call in node.asked if call.done()), node.call)
        if not node.call.done() and now - node.polled_s >= STATE_RETRY_S and self._get[node.name].service_is_ready():
            node.call, node.polled_s = self._get[node.name].call_async(GetState.Request()), now
            node.asked.append(node.call)

    def _seems_lost(self, node: Managed, now: float) -> bool:
        """Ask a node that is long in a transition for its state; true once it has said twice that it is in none.

        DDS loses a request, or its answer, while one end has not discovered the other.
        """
        if node.check is not None and node.check.done():
            settled = node.check.result().current_state.id in SETTLED
            node.check, node.settled = None, node.settled + 1 if settled else 0
        if now - node.polled_s >= CHECK_S:
            node.check, node.polled_s = self._get[node.name].call_async(GetState.Request()), now
        return node.settled == 2

    def _saw_state(self, node: Managed, state: int) -> None:
        if state == State.PRIMARY_STATE_ACTIVE and node.state != State.PRIMARY_STATE_ACTIVE:
            self.get_logger().info(f"{node.name} is active")
            node.was_active = True
        if state == State.PRIMARY_STATE_UNCONFIGURED and node.was_active:
            node.was_active = False
            node.attempts += 1
            self.get_logger().warning(f"{node.name} is unconfigured again: bringing it up, time {node.attempts}")
            if node.attempts > self._max_restarts:
                node.failure = f"{node.name} had to be brought up more than {self._max_restarts} times"
        node.state = state

    def _failed(self, node: Managed, why: str) -> None:
        node.failure = why
        self.get_logger().error(why)

    def _on_is_active(self, request: Any, response: Trigger.Response) -> Trigger.Response:
        response.success = self.active
        response.message = "; ".join(self.failures) or ", ".join(f"{n.name}: {_label(n.state)}" for n in self.nodes)
        return response

    def publish_diagnostics(self) -> None:
        """Publish which nodes are in which state."""
        idle = [f"{n.name} ({_label(n.state)})" for n in self.nodes if n.state != State.PRIMARY_STATE_ACTIVE]
        level, message = (WARN, f"not active: {', '.join(idle)}") if idle else (OK, "active")
        if self.failures:
            level, message = ERROR, "; ".join(self.failures)
        values: dict[str, Any] = {node.name: _label(node.state) for node in self.nodes}
        values |= {f"{node.name} brought up again": node.attempts for node in self.nodes}
        self._diagnostics.publish(diagnostics_of(self, level, message, values))

    def take_down(self, executor: SingleThreadedExecutor) -> None:
        """Deactivate, then clean up, every node in reverse order; a node that is gone or hangs is passed over."""
        self._autostart = False
        for transition, state in (
            (Transition.TRANSITION_DEACTIVATE, State.PRIMARY_STATE_ACTIVE),
            (Transition.TRANSITION_CLEANUP, State.PRIMARY_STATE_INACTIVE),
        ):
            for node in reversed(self.nodes):
                if not self._change[node.name].service_is_ready():
                    continue
                known = self._get[node.name].call_async(GetState.Request())
                executor.spin_until_future_complete(known, CALL_TIMEOUT_S)
                if known.done() and known.result().current_state.id == state:
                    request = ChangeState.Request(transition=Transition(id=transition))
                    executor.spin_until_future_complete(self._change[node.name].call_async(request), DOWN_TIMEOUT_S)


def _label(state: int) -> str:
    return {
        State.PRIMARY_STATE_UNKNOWN: "unknown",
        State.PRIMARY_STATE_UNCONFIGURED: "unconfigured",
        State.PRIMARY_STATE_INACTIVE: "inactive",
        State.PRIMARY_STATE_ACTIVE: "active",
        State.PRIMARY_STATE_FINALIZED: "finalized",
    }.get(state, "in transition")


def main() -> None:
    """Run `stack_manager` until SIGINT or SIGTERM, then take the nodes down in reverse order."""
    signals = hold_signals()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    executor = SingleThreadedExecutor()
    node = StackManagerNode()
    executor.add_node(node)
    stopping = on_signal(signals, executor)
    try:
        while not stopping.is_set():
            executor.spin_once()
        node.take_down(executor)
    finally:
        node.destroy_node()
        executor.shutdown()
        rclpy.try_shutdown()
        ignore_signals()
    sys.exit(0)
