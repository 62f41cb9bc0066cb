"""Which transition a stack's nodes need next, whatever states they are in."""

import itertools

import pytest
from lifecycle_msgs.msg import Transition

from vjepa_bringup.stack_goal import ACTIVE, FINALIZED, INACTIVE, UNCONFIGURED, Goal, is_reached, transitions

BECOMES = {
    Transition.TRANSITION_CONFIGURE: (UNCONFIGURED, INACTIVE),
    Transition.TRANSITION_ACTIVATE: (INACTIVE, ACTIVE),
    Transition.TRANSITION_DEACTIVATE: (ACTIVE, INACTIVE),
    Transition.TRANSITION_CLEANUP: (INACTIVE, UNCONFIGURED),
    Transition.TRANSITION_UNCONFIGURED_SHUTDOWN: (UNCONFIGURED, FINALIZED),
}
NOBODY = (False, False, False)


@pytest.mark.parametrize("goal", [Goal.ACTIVE, Goal.PAUSED, Goal.RESET, Goal.SHUT_DOWN])
@pytest.mark.parametrize("states", list(itertools.product([UNCONFIGURED, INACTIVE, ACTIVE], repeat=3)))
def test_every_goal_is_reached_from_every_state_and_no_source_is_ever_active_without_its_consumers(goal, states):
    states = list(states)
    in_order = states == sorted(states, reverse=True)
    for _ in range(10):
        steps = transitions(states, NOBODY, goal)
        for i, transition in steps.items():
            before, after = BECOMES[transition]
            assert states[i] == before
            states[i] = after
        if in_order:
            active = [state == ACTIVE for state in states]
            assert active == sorted(active, reverse=True), "a consumer is always as active as what it consumes"
    assert is_reached(states, goal)
    assert transitions(states, NOBODY, goal) == {}


def test_a_node_that_is_held_by_hand_is_left_alone_and_keeps_nobody_waiting():
    states, held = [ACTIVE, INACTIVE, INACTIVE], (False, True, False)
    assert transitions(states, held, Goal.ACTIVE) == {2: Transition.TRANSITION_ACTIVATE}
    assert not is_reached([ACTIVE, INACTIVE, ACTIVE], Goal.ACTIVE)


@pytest.mark.parametrize("states", list(itertools.product([UNCONFIGURED, INACTIVE, ACTIVE], repeat=3)))
def test_without_a_goal_every_state_is_left_as_it_is(states):
    assert transitions(states, NOBODY, Goal.LEFT) == {}


def test_a_node_in_a_transition_is_waited_for():
    assert transitions([0, INACTIVE, UNCONFIGURED], NOBODY, Goal.ACTIVE) == {2: Transition.TRANSITION_CONFIGURE}
    assert transitions([ACTIVE, ACTIVE, 0], NOBODY, Goal.PAUSED) == {1: Transition.TRANSITION_DEACTIVATE}
    assert not is_reached([0, INACTIVE, INACTIVE], Goal.PAUSED)
