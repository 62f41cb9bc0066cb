"""Transitions that bring a stack of lifecycle nodes to a goal, without ROS.

Nodes are in their order of activation: every consumer before its source. They go up in this order and down in reverse,
so that no source is active without its consumers. The design follows navigation2's lifecycle manager.
"""

from collections.abc import Sequence
from enum import Enum

from lifecycle_msgs.msg import State, Transition

UNCONFIGURED, INACTIVE, ACTIVE, FINALIZED = (
    State.PRIMARY_STATE_UNCONFIGURED,
    State.PRIMARY_STATE_INACTIVE,
    State.PRIMARY_STATE_ACTIVE,
    State.PRIMARY_STATE_FINALIZED,
)


class Goal(Enum):
    """The goal for the nodes of a stack; `LEFT` leaves them to an operator."""

    LEFT = "left"
    ACTIVE = "active"
    PAUSED = "paused"
    RESET = "reset"
    SHUT_DOWN = "shut down"


def transitions(states: Sequence[int], held: Sequence[bool], goal: Goal) -> dict[int, int]:
    """Return the transitions to request now, by the position of the node.

    Args:
        states: each node's primary state, as in `lifecycle_msgs/State`; another number for a node that is missing or in
            a transition.
        held: whether an operator has changed the node's state by hand; such a node gets no transition.
        goal: the goal for all nodes.
    """
    steps: dict[int, int] = {}
    for i, state in enumerate(states):
        later = states[i + 1 :]
        above = {ACTIVE, INACTIVE}.intersection(later)
        if held[i]:
            continue
        if goal == Goal.ACTIVE:
            ready = all(s == ACTIVE or h for s, h in zip(states[:i], held[:i], strict=True))
            if state == UNCONFIGURED:
                steps[i] = Transition.TRANSITION_CONFIGURE
            elif state == INACTIVE and ready:
                steps[i] = Transition.TRANSITION_ACTIVATE
        elif goal in (Goal.PAUSED, Goal.RESET, Goal.SHUT_DOWN):
            if state == ACTIVE and ACTIVE not in later:
                steps[i] = Transition.TRANSITION_DEACTIVATE
            elif state == INACTIVE and goal != Goal.PAUSED and not above:
                steps[i] = Transition.TRANSITION_CLEANUP
            elif state == UNCONFIGURED and goal == Goal.SHUT_DOWN and not above:
                steps[i] = Transition.TRANSITION_UNCONFIGURED_SHUTDOWN
    return steps


def is_reached(states: Sequence[int], goal: Goal) -> bool:
    """Return whether every node is in a state of `goal`."""
    allowed = {
        Goal.ACTIVE: {ACTIVE},
        Goal.PAUSED: {UNCONFIGURED, INACTIVE, FINALIZED},
        Goal.RESET: {UNCONFIGURED, FINALIZED},
        Goal.SHUT_DOWN: {FINALIZED},
    }
    return goal == Goal.LEFT or all(state in allowed[goal] for state in states)
