"""What an operator does by hand holds, and the manager's services bring the stack where they say."""

import time

import pytest
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import GetState
from std_srvs.srv import Trigger

ACTIVE, INACTIVE, UNCONFIGURED = (
    State.PRIMARY_STATE_ACTIVE,
    State.PRIMARY_STATE_INACTIVE,
    State.PRIMARY_STATE_UNCONFIGURED,
)
NODES = ("vjepa_perception", "vjepa_planner", "episode_recorder", "sim_bridge")
STAYS_S = 1.5
"""Three times as long as the manager leaves between two looks at a node."""


def states(stack) -> dict[str, int]:
    return {name: stack.call(GetState, f"{name}/get_state", GetState.Request()).current_state.id for name in NODES}


def ask(stack, service: str) -> Trigger.Response:
    return stack.call(Trigger, f"stack_manager/{service}", Trigger.Request())


def stay(stack, expected: dict[str, int]) -> None:
    """Check that the states are as expected now, and still after some time."""
    assert states(stack) == expected
    deadline = time.monotonic() + STAYS_S
    stack.monitor.wait_until(lambda: time.monotonic() > deadline, 2 * STAYS_S)
    assert states(stack) == expected


@pytest.fixture
def stack(start_stack):
    return start_stack(planner="random")


@pytest.mark.timeout(180)
def test_a_node_that_was_taken_down_by_hand_stays_so_until_the_stack_is_resumed(stack):
    stack.wait_for_steps(5)
    assert stack.transition("vjepa_planner", Transition.TRANSITION_DEACTIVATE)
    stay(stack, {name: INACTIVE if name == "vjepa_planner" else ACTIVE for name in NODES})
    assert stack.transition("vjepa_planner", Transition.TRANSITION_CLEANUP)
    stay(stack, {name: UNCONFIGURED if name == "vjepa_planner" else ACTIVE for name in NODES})
    _, message, values = stack.monitor.diagnostics["stack_manager"]
    assert "by hand: vjepa_planner, until stack_manager/resume" in message
    assert values["vjepa_planner brought up again"] == "0"
    answer = ask(stack, "resume")
    assert answer.success, answer.message
    assert states(stack) == dict.fromkeys(NODES, ACTIVE)
    stack.wait_for_steps(5)


@pytest.mark.timeout(180)
def test_the_services_of_the_manager_take_the_stack_down_and_up(stack):
    stack.wait_for_steps(5)
    for service, state in (("pause", INACTIVE), ("resume", ACTIVE), ("reset", UNCONFIGURED), ("startup", ACTIVE)):
        answer = ask(stack, service)
        assert answer.success, answer.message
        assert states(stack) == dict.fromkeys(NODES, state)
    # What an operator does counts right behind the manager's own transitions, and so does taking that back.
    assert stack.transition("sim_bridge", Transition.TRANSITION_DEACTIVATE)
    stay(stack, {name: INACTIVE if name == "sim_bridge" else ACTIVE for name in NODES})
    assert stack.transition("vjepa_planner", Transition.TRANSITION_DEACTIVATE)
    answer = ask(stack, "resume")
    assert answer.success, answer.message
    assert states(stack) == dict.fromkeys(NODES, ACTIVE)
    stack.wait_for_steps(5)
    before = stack.kill("vjepa_planner")
    stack.wait_for(lambda: stack.supervisor.pids().get("vjepa_planner", before) != before, "the planner's heir")
    stack.wait_for(lambda: ask(stack, "is_active").success, "all to be active again")
    assert ask(stack, "shutdown").success
    assert states(stack) == dict.fromkeys(NODES, State.PRIMARY_STATE_FINALIZED)
    answer = ask(stack, "resume")
    assert not answer.success
    assert "finalized: " in answer.message


@pytest.mark.timeout(180)
def test_without_autostart_the_nodes_are_the_operator_s_until_startup(start_stack):
    stack = start_stack(planner="random", autostart=False)
    stack.wait_for(lambda: "stack_manager" in stack.monitor.diagnostics, "the manager")
    stay(stack, dict.fromkeys(NODES, UNCONFIGURED))
    assert stack.transition("vjepa_planner", Transition.TRANSITION_CONFIGURE)
    assert stack.transition("vjepa_planner", Transition.TRANSITION_CLEANUP)
    stay(stack, dict.fromkeys(NODES, UNCONFIGURED))
    assert stack.monitor.diagnostics["stack_manager"][2]["vjepa_planner brought up again"] == "0"
    answer = ask(stack, "startup")
    assert answer.success, answer.message
    stack.wait_for_steps(5)
