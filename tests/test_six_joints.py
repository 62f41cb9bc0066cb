"""An arm of six joints from its model to driving: the road of docs/another-arm.md in a small size."""

import importlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from std_msgs.msg import Float64MultiArray

from sim_bridge.arm_stand_in import ArmStandIn, ArmStandInParameters
from tests.test_demonstrations import vjepa
from vjepa_interfaces import topics
from vjepa_interfaces.bundle import read_bundle
from vjepa_training.data.dataset import Dataset

ROOT = Path(__file__).resolve().parents[1]
JOINTS = [f"joint_{number}" for number in range(1, 7)]
LIMITS = [30.5] * 3 + [6.8] * 3
EPISODES, POSES = 12, 6
MODULES = ("demonstrate", "six_joints", "six_joints_drive")


@pytest.fixture(scope="module")
def examples():
    """Return a function that imports an example as a module."""
    sys.path.insert(0, str(ROOT / "examples"))
    yield importlib.import_module
    sys.path.remove(str(ROOT / "examples"))
    for name in MODULES:
        sys.modules.pop(name, None)


def test_the_model_is_one_that_the_stand_in_takes_and_that_holds_itself(examples, tmp_path):
    six_joints = examples("six_joints")
    six_joints.main(["--out", str(tmp_path), "--episodes", "0"])
    model = str(tmp_path / "model" / "arm.xml")
    with ArmStandIn(ArmStandInParameters(model=model, seed=3), clock=lambda: 0.0) as arm:
        assert list(arm.limits.joint_names) == JOINTS
        begin, far = arm.advance().position, six_joints.distance(arm)
        for _ in range(100):
            reading = arm.advance()
        assert np.abs(reading.position - begin).max() < 1e-3, "no effort is needed against gravity"
        arm.command([100.0] * 6)
        assert arm.advance().effort.tolist() == LIMITS
        assert arm.render().shape == (64, 64, 3)
        demonstrator = six_joints.Demonstrator(Path(model))
        assert demonstrator.hand(reading.position) == pytest.approx(arm.place("site", "hand"), abs=0.01)
        arm.begin(3)
        for _ in range(600):
            arm.command(demonstrator.towards_target(reading))
            reading = arm.advance()
        assert six_joints.distance(arm) < six_joints.NEAR < far


def test_the_page_has_the_figures_of_the_results():
    page = (ROOT / "docs" / "another-arm.md").read_text()
    results = json.loads((ROOT / "results" / "six-joints.json").read_text())
    assert f"within {results['near_m'] * 100:g} cm" in page
    assert f"{len(results['seeds'])} poses" in page
    for name, found in results["driven"].items():
        low, high = (100 * bound for bound in found["interval_95"])
        row = f"{100 * found['share_near']:.0f} % ({low:.0f} to {high:.0f} %) | {found['median_m'] * 1e3:.0f} mm |"
        assert re.search(rf"^\| .*`?{re.escape(name)}`?.* \| {re.escape(row)}$", page, re.MULTILINE), (name, row)


@pytest.fixture(scope="module")
def road(examples, tmp_path_factory) -> Path:
    """A folder with a model, its demonstrations, their dataset and a policy of it."""
    folder = tmp_path_factory.mktemp("jaco")
    examples("six_joints").main(["--out", str(folder), "--episodes", str(EPISODES)])
    bags = sorted((folder / "bags").iterdir())
    arm = ("--joints", ",".join(JOINTS), "--effort-limit", 30.5)
    vjepa("dataset", "build", *bags, "--out", folder / "ds", *arm, "--strict")
    marked = ("--labels", "recorded", "--mark", "outcome=success")
    vjepa("train", "bc", "--data", folder / "ds", "--out", folder / "policy", *marked)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_dozen_demonstrations_bring_the_hand_nearer_from_poses_that_none_began_in(examples, road):
    dataset = Dataset(road / "ds")
    assert list(dataset.info.joint_names) == JOINTS
    policy = road / "policy"
    config = read_bundle(policy, "policy").config
    largest = np.array(config["action_scale"]) * 30.5
    assert (largest <= np.array(LIMITS) + 0.01).all(), "no joint is asked for more than its demonstrator asked for"
    out = road / "driven.json"
    options = ["--model", road / "model" / "arm.xml", "--policy", policy, "--poses", POSES, "--json", out]
    examples("six_joints_drive").main([str(option) for option in options])
    found = json.loads(out.read_text())
    assert found["seeds"] == list(range(200 - POSES, 200))
    driven = {name: np.array(each["distances_m"]) for name, each in found["driven"].items()}
    assert np.median(driven["demonstrator"]) < found["near_m"]
    assert np.median(driven[str(policy)]) < 0.8 * np.median(driven["nothing"]), "a dozen are few, but not nothing"


@pytest.mark.slow
@pytest.mark.real_time
@pytest.mark.timeout(600)
def test_it_drives_six_joints_through_the_guard_and_not_in_its_dry_run(
    road, examples, start_stack, commands, hand_of, tmp_path
):
    file = tmp_path / "arm.yaml"
    guarded = (0.8 * np.array(LIMITS)).tolist()
    parameters = {
        "arm_stand_in": {"model": str(road / "model" / "arm.xml"), "camera_rate_hz": 30.0},
        "vjepa_planner": {
            "planners": ["bc"],
            "fallbacks": [],
            "bc.bundle": str(road / "policy"),
            "joint_names": list(JOINTS),
            "effort_limit": 30.5,
            "control_period_s": 0.0333,
        },
        "effort_guard": {
            "joint_names": list(JOINTS),
            "effort_limits": guarded,
            "slew_rates": [300.0] * 3 + [70.0] * 3,
            "damping": [0.0] * 6,
        },
    }
    file.write_text(yaml.safe_dump({node: {"ros__parameters": values} for node, values in parameters.items()}))
    stack = start_stack(planner="bc", source="camera", guard=True, params_file=str(file), light=False)
    joints, outputs = stack.tap(topics.JOINT_STATES), []
    stack.node.create_subscription(Float64MultiArray, topics.EFFORT_ARRAY.name, lambda m: outputs.append(m.data), 1000)
    commands.start("node", "arm_stand_in", f"params_file:={file}", ROS_DOMAIN_ID=str(stack.domain))
    hand = hand_of(stack)
    stack.wait_for(lambda: len(outputs) > 100 and joints.messages, "the guard and the arm")
    hand.press()
    seen = len(outputs)
    stack.wait_for(lambda: len(outputs) > seen + 100, "a dry run")
    assert np.abs(np.array(outputs)).max() == 0.0
    assert stack.set_parameter("effort_guard", "dry_run", False).successful
    demonstrator = examples("six_joints").Demonstrator(road / "model" / "arm.xml")

    def away() -> float:
        position = dict(zip(joints.messages[-1].name, joints.messages[-1].position, strict=True))
        hand_at = demonstrator.hand(np.array([position[name] for name in JOINTS]))
        return float(np.linalg.norm(hand_at - np.array(examples("six_joints").TARGET)))

    begin = away()
    hand.press_until(lambda _: away() < 0.7 * begin, "the hand nearer to the target")
    assert (np.abs(np.array(outputs)) <= np.array(guarded) + 1e-9).all()
