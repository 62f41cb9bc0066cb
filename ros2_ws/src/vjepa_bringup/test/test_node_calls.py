"""A call to a node ends in one of a few ways, whatever gets lost."""

from types import SimpleNamespace

import pytest

from vjepa_bringup.node_calls import CHECK_S, STATE_RETRY_S, STATE_TIMEOUT_S, Outcome, StateCall, TransitionCall
from vjepa_bringup.stack_goal import ACTIVE, INACTIVE

CONFIGURING = 10
"""A transition state."""
TIMEOUT_S = 30.0


class Answer:
    """An answer that comes when `come` is called."""

    def __init__(self):
        self.response, self.cancelled = None, False

    def done(self):
        return self.response is not None

    def result(self):
        return self.response

    def cancel(self):
        self.cancelled = True

    def come(self, **response):
        self.response = SimpleNamespace(**response)

    def come_with_state(self, state):
        self.come(current_state=SimpleNamespace(id=state))


class FakeNode:
    """The services of a node: what it was asked, and whether it is there."""

    def __init__(self):
        self.asked: list[Answer] = []
        self.is_there = True

    def ask(self) -> Answer:
        self.asked.append(Answer())
        return self.asked[-1]

    def is_ready(self) -> bool:
        return self.is_there


@pytest.fixture
def node():
    return FakeNode()


@pytest.fixture
def state_call(node):
    return StateCall(node.ask, node.is_ready, 0.0)


@pytest.fixture
def transition(node):
    return TransitionCall("configure", Answer(), node.ask, node.is_ready, 0.0, TIMEOUT_S)


def test_a_state_is_answered(node, state_call):
    assert state_call.poll(0.1) is None
    node.asked[0].come_with_state(ACTIVE)
    assert state_call.poll(0.15) == Outcome.SUCCEEDED
    assert state_call.state == ACTIVE
    assert len(node.asked) == 1


def test_a_state_without_an_answer_is_asked_for_again_and_any_answer_counts(node, state_call):
    for step in range(1, 4):
        assert state_call.poll(step * STATE_RETRY_S) is None
    assert len(node.asked) == 4
    node.asked[1].come_with_state(INACTIVE)
    assert state_call.poll(0.7) == Outcome.SUCCEEDED
    assert state_call.state == INACTIVE
    state_call.close()
    assert all(answer.cancelled for answer in node.asked)


def test_a_state_is_not_asked_for_where_the_service_is_gone_and_given_up_in_the_end(node, state_call):
    node.is_there = False
    assert state_call.poll(1.0) is None
    assert len(node.asked) == 1
    assert state_call.poll(STATE_TIMEOUT_S) == Outcome.GONE


@pytest.mark.parametrize(("success", "outcome"), [(True, Outcome.SUCCEEDED), (False, Outcome.REFUSED)])
def test_a_transition_is_answered_however_long_it_takes(transition, success, outcome):
    transition._answer.come(success=success)
    assert transition.poll(2 * TIMEOUT_S) == outcome


def test_a_node_that_died_in_a_transition_is_gone(node, transition):
    node.is_there = False
    assert transition.poll(0.1) == Outcome.GONE


def test_a_transition_is_lost_once_the_node_has_answered_twice_that_it_is_in_none(node, transition):
    for number in (1, 2):
        assert transition.poll(number * CHECK_S) is None
        node.asked[-1].come_with_state(INACTIVE)
    assert transition.poll(2 * CHECK_S + 0.1) == Outcome.LOST


def test_a_node_that_is_in_the_transition_between_two_answers_is_waited_for(node, transition):
    for number, state in enumerate((INACTIVE, CONFIGURING, INACTIVE), start=1):
        assert transition.poll(number * CHECK_S) is None
        node.asked[-1].come_with_state(state)
    assert transition.poll(3 * CHECK_S + 0.1) is None


def test_a_transition_that_takes_too_long_is_given_up_and_nothing_waited_for(node, transition):
    assert transition.poll(TIMEOUT_S) == Outcome.TOO_LATE
    transition.close()
    assert transition._answer.cancelled
    assert all(answer.cancelled for answer in node.asked)
