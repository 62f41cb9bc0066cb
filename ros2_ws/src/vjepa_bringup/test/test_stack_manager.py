"""The stack manager brings a node up without delay, although DDS lost one of their messages."""

import contextlib
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import rclpy
from lifecycle_msgs.msg import State, Transition, TransitionEvent
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from vjepa_bringup.domains import hold_domain
from vjepa_bringup.stack_manager_node import POLL_S, Managed, StackManagerNode

TIMEOUT_S = 60.0
BECOMES = {
    Transition.TRANSITION_CONFIGURE: State.PRIMARY_STATE_INACTIVE,
    Transition.TRANSITION_ACTIVATE: State.PRIMARY_STATE_ACTIVE,
}


class LostError(Exception):
    """An answer never leaves."""


class Forgetful(Node):
    """A lifecycle node to which a first transition never gets through, or of whose the answer never does.

    Or whose first answers to what its state is never leave. One that loses "nothing" answers everything.
    """

    def __init__(self, context: Context, loses: str):
        super().__init__("forgetful", context=context)
        self.state = State.PRIMARY_STATE_UNCONFIGURED
        self.requests: list[int] = []
        self.times: list[float] = []
        self.asked = 0
        self._loses = loses
        self.create_service(GetState, "~/get_state", self._on_get_state)
        self.create_service(ChangeState, "~/change_state", self._on_change_state)

    def _on_get_state(self, request, response):
        self.asked += 1
        if self._loses == "state" and self.asked <= 3:
            raise LostError
        response.current_state.id = self.state
        return response

    def _on_change_state(self, request, response):
        self.requests.append(request.transition.id)
        self.times.append(time.monotonic())
        if len(self.requests) > 1 or self._loses != "request":
            self.state = BECOMES[request.transition.id]
        if len(self.requests) == 1 and self._loses in ("request", "answer"):
            raise LostError
        response.success = True
        return response


@pytest.fixture
def bring_up(monkeypatch, tmp_path):
    """Return a function that has a manager bring up a `Forgetful`, and returns it and what the manager said."""

    def bring_up(loses: str, poll_s: float = POLL_S) -> tuple[Forgetful, str]:
        with hold_domain(None, {}) as domain, contextlib.ExitStack() as exits:
            monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
            monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
            context = Context()
            rclpy.init(context=context, domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
            exits.callback(context.try_shutdown)
            node = Forgetful(context, loses)
            exits.callback(node.destroy_node)
            executor = SingleThreadedExecutor(context=context)
            executor.add_node(node)
            code = f"from vjepa_bringup import stack_manager_node as it; it.POLL_S = {poll_s}; it.main()"
            run = [sys.executable, "-P", "-c", code, "--ros-args", "-p", "managed_nodes:=[forgetful]"]
            with (tmp_path / "said").open("w") as said:
                manager = exits.enter_context(subprocess.Popen(run, stdout=said, stderr=said))
            exits.callback(manager.terminate)
            deadline = time.monotonic() + TIMEOUT_S
            while node.state != State.PRIMARY_STATE_ACTIVE and time.monotonic() < deadline:
                with contextlib.suppress(LostError):
                    executor.spin_once(0.1)
        said = (tmp_path / "said").read_text()
        assert node.state == State.PRIMARY_STATE_ACTIVE, said
        return node, said

    return bring_up


@pytest.mark.parametrize("loses", ["request", "answer"])
def test_a_transition_whose_request_or_answer_was_lost_is_asked_for_again(loses, bring_up):
    node, said = bring_up(loses)
    configure, activate = BECOMES
    assert node.requests == ([configure] * 2 if loses == "request" else [configure]) + [activate]
    assert "forgetful did not answer configure: asking again" in said


def test_a_state_whose_answers_were_lost_is_asked_for_again(bring_up):
    node, _ = bring_up("state")
    assert node.requests == list(BECOMES)
    assert node.asked > 3


def test_the_next_transition_follows_the_answer_to_the_last_one_and_not_the_next_tick_of_a_timer(bring_up):
    node, _ = bring_up("nothing", poll_s=2.0)
    configured_s, activated_s = node.times
    assert activated_s - configured_s < 1.0


def test_what_an_operator_did_counts_once_where_it_is_seen_before_its_event_comes():
    manager = object.__new__(StackManagerNode)  # Without a node: what it notices needs none.
    manager.publish_diagnostics = lambda: None
    manager.get_logger = lambda: SimpleNamespace(info=str, warning=str)
    node = Managed("vjepa_planner", known=State.PRIMARY_STATE_ACTIVE)
    manager._saw_state(node, State.PRIMARY_STATE_INACTIVE)
    assert node.held
    node.held = False  # As by `resume`, which is answered before the event is there.
    event = TransitionEvent()
    event.goal_state.label = "deactivating"
    manager._on_event(node, event)
    assert not node.held
    manager._on_event(node, event)
    assert node.held
