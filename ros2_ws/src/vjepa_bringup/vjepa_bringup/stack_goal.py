"""Which transitions bring a stack of lifecycle nodes nearer to what is wanted of it, without ROS.

Nodes stand in their order of activation: every consumer before the source of what it consumes. They go up in that
order and down in reverse, so that no source is active without its consumers. After navigation2's lifecycle manager.
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
    """What is wanted of the nodes of a stack; `LEFT` leaves them to whoever drives them by hand."""

    LEFT = "left"
    ACTIVE = "active"
    PAUSED = "paused"
    RESET = "reset"
    SHUT_DOWN = "shut down"


def transitions(states: Sequence[int], held: Sequence[bool], goal: Goal) -> dict[int, int]:
    """Return which transition to ask of which node now, by the node's place.

    Args:
        states: each node's primary state, as in `lifecycle_msgs/State`; anything else for one that is in a transition
            or not there.
        held: whether an operator has changed a node's state by hand: then it is left as it is.
        goal: what is wanted.
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
    """Return whether every node is where `goal` wants it."""
    allowed = {
        Goal.ACTIVE: {ACTIVE},
        Goal.PAUSED: {UNCONFIGURED, INACTIVE, FINALIZED},
        Goal.RESET: {UNCONFIGURED, FINALIZED},
        Goal.SHUT_DOWN: {FINALIZED},
    }
    return goal == Goal.LEFT or all(state in allowed[goal] for state in states)
