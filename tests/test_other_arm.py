"""Arms of any number of joints through every node: they are driven, guarded, and refused by what knows another."""

import json
import time
from pathlib import Path

import pytest

from vjepa_bringup.graph import GUARD, StackOptions, build_graph
from vjepa_bringup.run_graph import run_graph
from vjepa_cli.cli import parse
from vjepa_interfaces import topics
from vjepa_interfaces.effort_guard import EffortGuard, GuardParameters
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.parameters import read_parameters
from vjepa_planner.planner_parameters import PlannerParameters

pytestmark = pytest.mark.usefixtures("forking")


@pytest.fixture
def random_alone(tmp_path):
    """A parameter file that loads the one planner that knows every arm."""
    file = tmp_path / "random.yaml"
    file.write_text("vjepa_planner: {ros__parameters: {planners: [random], planner: random, fallbacks: []}}\n")
    return str(file)


@pytest.mark.parametrize(("task", "effort_limit"), [("cartpole-swingup", "5.0"), ("finger-spin", "[20.0, 5.0]")])
def test_the_graph_gives_the_returns_of_one_process_whatever_the_arm(task, effort_limit, random_alone, tmp_path):
    with Path(random_alone).open("a") as file:
        file.write(f"sim_bridge: {{ros__parameters: {{effort_limit: {effort_limit}}}}}\n")
    returns = []
    for through in ("ros", "process"):
        file = tmp_path / f"{through}.json"
        command = (
            f"eval --through {through} --task {task} --protocol baseline --episodes 1 --params-file {random_alone}"
        )
        assert parse([*command.split(), "--json", str(file)]).run() == 0
        result = json.loads(file.read_text())
        assert (result["task"], result["success"], result["success_rate"]) == (task, [None], None)
        returns.append(result["returns"])
    assert returns[0] == returns[1]


def test_a_guard_passes_the_torques_of_five_joints_on_to_the_simulated_arm(start_stack, hand_of, random_alone):
    stack = start_stack(
        task="manipulator-bring_ball", guard=True, params_file=random_alone, episode_steps=100_000, device="cpu"
    )
    joints = stack.tap(topics.JOINT_STATES)
    hand = hand_of(stack)
    hand.press()
    stack.wait_for_steps(5)
    assert not any(any(message.effort) for message in joints.messages)
    assert stack.set_parameter("effort_guard", "dry_run", False).successful
    hand.press_until(lambda _: all(joints.messages[-1].effort), "torque at every joint")
    assert len(joints.messages[-1].effort) == 5
    commands = stack.wait_for_value("effort_guard", "commands", lambda count: count > 20)
    # A busy machine makes a command too old now and then; one of other joints would be refused each time.
    assert stack.monitor.value("effort_guard", "refused_commands") < 0.2 * commands


def test_what_was_trained_on_the_reacher_does_not_drive_a_finger():
    options = StackOptions(task="finger-spin", planner="bc", episodes=1, log_level="fatal")
    with pytest.raises(VjepaError, match="bc-small was trained on an arm with the joints shoulder, wrist, but this"):
        run_graph(options, 20)
    evaluation = parse(["eval", "--through", "process", "--task", "finger-spin", "--episodes", "1"])
    with pytest.raises(VjepaError, match="bc-small was trained on an arm with the joints shoulder, wrist, but this"):
        evaluation.run()


def test_an_arm_that_is_not_simulated_is_described_by_a_parameter_file(tmp_path):
    arm = {"joint_names": ["base", "elbow", "hand"]}
    planner = {**arm, "effort_limit": [2.0, 1.0, 0.5], "control_period_s": 0.04, "planners": ["random"]}
    guard = {**arm, "effort_limits": [2.0, 1.0, 0.5], "slew_rates": [5.0, 2.5, 1.0], "damping": [0.0, 0.0, 0.0]}
    file = tmp_path / "three.yaml"
    nodes = {"vjepa_planner": planner, GUARD: guard}
    file.write_text(json.dumps({name: {"ros__parameters": values} for name, values in nodes.items()}))
    options = StackOptions(source="camera", planner="random", guard=True, params_file=str(file))
    given = {node.name: node.parameters for node in build_graph(options)}
    made = EffortGuard(read_parameters(GuardParameters, without_clock(given[GUARD])))
    made.take_command(["hand", "base", "elbow"], [0.1, 0.2, 0.3], time.time_ns())
    known = read_parameters(PlannerParameters, planner)
    assert known.joint_names == ("base", "elbow", "hand")
    assert known.effort_limit == (2.0, 1.0, 0.5)
    assert {name: given["vjepa_planner"][name] for name in planner} == planner


def without_clock(parameters):
    return {name: value for name, value in parameters.items() if name != "use_sim_time"}
