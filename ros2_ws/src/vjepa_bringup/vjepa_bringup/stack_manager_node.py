"""The stack manager: it brings the lifecycle nodes up in order, keeps them up, and takes them down in reverse.

Nodes are configured at the same time, because an encoder loads for seconds. A node is activated when every node before
it is active. A node that died and started again is unconfigured, and is brought up again. A node that an operator has
taken down by hand stays so until `~/resume` or `~/startup`. The design follows navigation2's lifecycle manager.
"""

import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State, Transition, TransitionEvent
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from std_srvs.srv import Trigger

from vjepa_bringup.manager_parameters import ManagerParameters
from vjepa_bringup.node_calls import SETTLED, Answer, Outcome, StateCall, TransitionCall
from vjepa_bringup.stack_goal import Goal, is_reached, transitions
from vjepa_interfaces import topics
from vjepa_interfaces.access import TRANSITION_EVENT
from vjepa_interfaces.managed_node import (
    ERROR,
    OK,
    STEADY,
    WARN,
    diagnostics_of,
    hold_signals,
    leave,
    on_signal,
)
from vjepa_interfaces.ros_parameters import AllOrNone, declare_read_only
from vjepa_interfaces.ros_subscriptions import qos_profile

POLL_S = 0.1
STATE_POLL_S = 0.5
DOWN_S = 1.2
"""Longest time to take all nodes down in order, seconds; signals end the nodes after that."""
ECHO_S = 5.0
"""Longest time from the manager's request for a transition to the node's event of it, seconds."""

NAMES = {
    Transition.TRANSITION_CONFIGURE: "configure",
    Transition.TRANSITION_CLEANUP: "cleanup",
    Transition.TRANSITION_ACTIVATE: "activate",
    Transition.TRANSITION_DEACTIVATE: "deactivate",
    Transition.TRANSITION_UNCONFIGURED_SHUTDOWN: "shutdown",
    Transition.TRANSITION_INACTIVE_SHUTDOWN: "shutdown",
    Transition.TRANSITION_ACTIVE_SHUTDOWN: "shutdown",
}
DOWNWARD = {"cleanup", "deactivate", "shutdown"}
BEGUN = {"deactivating": "deactivate", "cleaningup": "cleanup"}
"""Transitions by their first state, because rclpy's events have no other name. Shutdown is missing, because a node that
ends shuts itself down."""


@dataclass
class Managed:
    """The manager's view of one node, and the call that it waits for.

    Attributes:
        name: name of the node.
        state: the latest primary state; unknown while it may have changed.
        known: the last primary state that the node reported.
        held: whether an operator has taken the node down by hand.
        asked_at: steady time of the last request for each transition, by its name, seconds.
        echoes: number of expected events of the manager's own transitions, by name.
        polled_s: steady time of the last request of any kind, seconds; 0 to request the state next.
        call: the call that the manager waits for; None for none.
        attempts: number of times that the node was brought up again.
        failure: why the manager gave the node up; empty if it did not.
    """

    name: str
    state: int = State.PRIMARY_STATE_UNKNOWN
    known: int = State.PRIMARY_STATE_UNKNOWN
    held: bool = False
    asked_at: dict[str, float] = field(default_factory=dict)
    echoes: Counter[str] = field(default_factory=Counter)
    polled_s: float = 0.0
    call: StateCall | TransitionCall | None = None
    attempts: int = 0
    failure: str = ""


class StackManagerNode(Node):
    """The node `stack_manager`: two clients for each node. Answers and a timer have it request transitions."""

    def __init__(self) -> None:
        super().__init__("stack_manager", start_parameter_services=False, enable_logger_service=True)
        parameters = declare_read_only(self, ManagerParameters)
        self._parameter_service = AllOrNone(self)
        self._transition_timeout_s = parameters.transition_timeout_s
        self._max_restarts = parameters.max_restarts
        self._goal = Goal.ACTIVE if parameters.autostart else Goal.LEFT
        self._waiters: list[tuple[Goal, Future]] = []
        names = parameters.managed_nodes
        self.nodes = [Managed(name) for name in names]
        self._get = {name: self.create_client(GetState, f"{name}/get_state") for name in names}
        self._change = {name: self.create_client(ChangeState, f"{name}/change_state") for name in names}
        self._diagnostics = self.create_publisher(
            DiagnosticArray, topics.DIAGNOSTICS.name, qos_profile(topics.DIAGNOSTICS)
        )
        self.create_service(Trigger, "~/is_active", self._on_is_active)
        # The answers of these services wait for nodes, and meanwhile the timer below must drive the nodes.
        waiting = ReentrantCallbackGroup()
        for service, goal in (
            ("startup", Goal.ACTIVE),
            ("resume", Goal.ACTIVE),
            ("pause", Goal.PAUSED),
            ("reset", Goal.RESET),
            ("shutdown", Goal.SHUT_DOWN),
        ):
            self.create_service(Trigger, f"~/{service}", partial(self._on_goal, goal), callback_group=waiting)
        for node in self.nodes:
            event = f"{node.name}/{TRANSITION_EVENT}"
            self.create_subscription(TransitionEvent, event, partial(self._on_event, node), len(NAMES))
        self.create_timer(POLL_S, self._drive, clock=STEADY)
        self.create_timer(1.0, self.publish_diagnostics, clock=STEADY)

    @property
    def active(self) -> bool:
        """Whether every managed node is active."""
        return all(node.state == State.PRIMARY_STATE_ACTIVE for node in self.nodes)

    @property
    def failures(self) -> list[str]:
        """A text for each node that the manager gave up."""
        return [node.failure for node in self.nodes if node.failure]

    def _drive(self) -> None:
        """Advance every node: finish its call, request its state, or request a transition."""
        now = time.monotonic()
        for node in self.nodes:
            self._finish_call(node, now)
        states = [State.PRIMARY_STATE_UNKNOWN if n.call is not None or n.failure else n.state for n in self.nodes]
        steps = transitions(states, [node.held for node in self.nodes], self._goal)
        for i, node in enumerate(self.nodes):
            if node.call is not None or node.failure:
                continue
            if i in steps:
                self._request(node, steps[i], now)
            elif now - node.polled_s >= STATE_POLL_S:
                self._ask_state(node, now)
        self._answer_waiters()

    # Requests and transitions of operators.

    async def _on_goal(self, goal: Goal, request: Any, response: Trigger.Response) -> Trigger.Response:
        """Bring every node to a goal, even those held by hand, and answer after success or failure."""
        for node in self.nodes:
            node.held, node.failure, node.attempts = False, "", 0
            node.state = node.known = State.PRIMARY_STATE_UNKNOWN  # An operator may have changed it.
        self._goal = goal
        future = Future(executor=self.executor)
        self._waiters.append((goal, future))
        response.success, response.message = await future
        return response

    def _answer_waiters(self) -> None:
        waiting, self._waiters = self._waiters, []
        states = [node.state if node.call is None else State.PRIMARY_STATE_UNKNOWN for node in self.nodes]
        for goal, future in waiting:
            if goal != self._goal:
                future.set_result((False, f"given up for another request: {self._goal.value}"))
            elif self.failures:
                future.set_result((False, "; ".join(self.failures)))
            elif is_reached(states, goal):
                future.set_result((True, f"{goal.value}: {self._states()}"))
            elif goal == Goal.ACTIVE and (ended := self._finalized()):
                future.set_result((False, f"finalized: {', '.join(ended)}; only a new process brings such a node back"))
            elif held := [node.name for node in self.nodes if node.held]:
                future.set_result((False, f"held by hand: {', '.join(held)}"))
            else:
                self._waiters.append((goal, future))

    def _finalized(self) -> list[str]:
        return [node.name for node in self.nodes if node.state == State.PRIMARY_STATE_FINALIZED]

    def _on_event(self, node: Managed, event: TransitionEvent) -> None:
        """Detect a transition down that was requested by another client."""
        name = BEGUN.get(event.goal_state.label, "")
        if not name:
            return
        if node.echoes[name] and time.monotonic() - node.asked_at[name] < ECHO_S:
            node.echoes[name] -= 1
        else:
            self._hold(node, name)

    def _hold(self, node: Managed, what: str) -> None:
        """Leave a node in the state that an operator has chosen."""
        if not node.held:
            node.held = True
            self.get_logger().warning(f"{node.name}: {what} by hand; it stays so until stack_manager/resume")

    # Calls to nodes.

    def _awaited(self, answer: Future) -> Answer:
        """Act on an answer as soon as it arrives; the timer would act on it up to `POLL_S` later."""
        answer.add_done_callback(lambda future: None if future.cancelled() else self._drive())
        return answer

    def _send_get_state(self, node: Managed) -> Answer:
        return self._awaited(self._get[node.name].call_async(GetState.Request()))

    def _send_change_state(self, node: Managed, transition: int) -> Answer:
        """Send the request for a transition, and expect its event."""
        self._expect_echo(node, NAMES[transition])
        return self._awaited(
            self._change[node.name].call_async(ChangeState.Request(transition=Transition(id=transition)))
        )

    @staticmethod
    def _expect_echo(node: Managed, kind: str) -> None:
        node.asked_at[kind], node.echoes[kind] = time.monotonic(), 1

    def _ask_state(self, node: Managed, now: float) -> None:
        is_ready = self._get[node.name].service_is_ready
        if is_ready():
            node.call, node.polled_s = StateCall(partial(self._send_get_state, node), is_ready, now), now
        else:
            node.state = State.PRIMARY_STATE_UNKNOWN

    def _request(self, node: Managed, transition: int, now: float) -> None:
        node.call = TransitionCall(
            NAMES[transition],
            self._send_change_state(node, transition),
            partial(self._send_get_state, node),
            self._change[node.name].service_is_ready,
            now,
            self._transition_timeout_s,
        )
        node.polled_s = now

    def _finish_call(self, node: Managed, now: float) -> None:
        """Act on the outcome of the call to a node, if there is one."""
        call = node.call
        if call is None or (outcome := call.poll(now)) is None:
            return
        call.close()
        node.call, node.state = None, State.PRIMARY_STATE_UNKNOWN
        if isinstance(call, StateCall):
            if outcome == Outcome.SUCCEEDED:
                self._saw_state(node, call.state)
        elif outcome == Outcome.SUCCEEDED:
            node.asked_at[call.name] = now
            node.polled_s = 0.0
        elif outcome == Outcome.REFUSED:
            self._failed(node, f"{node.name} refused to {call.name}; its own log and /diagnostics have the reason")
        elif outcome == Outcome.TOO_LATE:
            self._failed(node, f"{call.name} of {node.name} took longer than {self._transition_timeout_s} s")
        elif outcome == Outcome.LOST:
            self.get_logger().warning(f"{node.name} did not answer {call.name}: asking again")

    def _saw_state(self, node: Managed, state: int) -> None:
        before, node.state = node.known, state
        if state != before and state in SETTLED:
            self.publish_diagnostics()  # At once, so that a start does not take a second more.
        if state in (*SETTLED, State.PRIMARY_STATE_FINALIZED):
            node.known = state
        if state == State.PRIMARY_STATE_ACTIVE:
            node.held = False
            if before != state:
                self.get_logger().info(f"{node.name} is active")
        asked_s = max(node.asked_at.get(name, -ECHO_S) for name in DOWNWARD)
        fell = before == State.PRIMARY_STATE_ACTIVE and state == State.PRIMARY_STATE_INACTIVE
        if fell and not node.held and time.monotonic() - asked_s >= ECHO_S:
            self._hold(node, "deactivate")
            self._expect_echo(node, "deactivate")  # The event has not arrived yet.
        lost = state == State.PRIMARY_STATE_UNCONFIGURED and before == State.PRIMARY_STATE_ACTIVE
        if lost and not node.held and self._goal == Goal.ACTIVE:
            node.attempts += 1
            self.get_logger().warning(f"{node.name} is unconfigured again: bringing it up, attempt {node.attempts}")
            if node.attempts > self._max_restarts:
                node.failure = f"{node.name} had to be brought up more than {self._max_restarts} times"

    def _failed(self, node: Managed, why: str) -> None:
        node.failure = why
        self.get_logger().error(why)

    def _on_is_active(self, request: Any, response: Trigger.Response) -> Trigger.Response:
        response.success = self.active
        response.message = "; ".join(self.failures) or self._states()
        return response

    def _states(self) -> str:
        return ", ".join(f"{n.name}: {_label(n.state)}{' (by hand)' if n.held else ''}" for n in self.nodes)

    def publish_diagnostics(self) -> None:
        """Publish the states of all nodes."""
        idle = [f"{n.name} ({_label(n.state)})" for n in self.nodes if n.state != State.PRIMARY_STATE_ACTIVE]
        held = [node.name for node in self.nodes if node.held]
        level, message = (WARN, f"not active: {', '.join(idle)}") if idle else (OK, "active")
        if idle and self._goal not in (Goal.ACTIVE, Goal.LEFT):
            goes_on = "new processes of these continue" if self._finalized() else "stack_manager/resume continues"
            message = f"{self._goal.value}; {message}; {goes_on}"
        elif idle and held:
            message = f"{message}; by hand: {', '.join(held)}, until stack_manager/resume"
        if self.failures:
            level, message = ERROR, "; ".join(self.failures)
        values: dict[str, Any] = {node.name: _label(node.state) for node in self.nodes}
        values |= {f"{node.name} brought up again": node.attempts for node in self.nodes}
        self._diagnostics.publish(diagnostics_of(self, level, message, values))

    def take_down(self, executor: SingleThreadedExecutor) -> None:
        """Deactivate all nodes in reverse order, then clean them up, for at most `DOWN_S`. Skip missing nodes."""
        deadline = time.monotonic() + DOWN_S

        def answer(call: Any) -> Any:
            executor.spin_until_future_complete(call, max(0.0, deadline - time.monotonic()))
            return call.result() if call.done() else None

        self._goal = Goal.LEFT
        for transition, state in (
            (Transition.TRANSITION_DEACTIVATE, State.PRIMARY_STATE_ACTIVE),
            (Transition.TRANSITION_CLEANUP, State.PRIMARY_STATE_INACTIVE),
        ):
            for node in reversed(self.nodes):
                if not self._change[node.name].service_is_ready():
                    continue
                known = answer(self._send_get_state(node))
                if known is not None and known.current_state.id == state:
                    answer(self._send_change_state(node, transition))


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
    del node, executor
    leave(0)
