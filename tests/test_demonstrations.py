"""From demonstrations that know nothing of the simulator to an arm that moves: the page of that name, step by step."""

import contextlib
import importlib.util
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from std_msgs.msg import Float64MultiArray

from sim_bridge.arm_stand_in import ArmStandIn, ArmStandInParameters
from vjepa_cli.cli import main
from vjepa_interfaces import topics
from vjepa_interfaces.bundle import find_bundle
from vjepa_perception.clip import ClipBuffer
from vjepa_perception.encoder import EncoderConfig, load_encoder
from vjepa_planner.contract import Observation, PlannerContext
from vjepa_planner.registry import load_planner
from vjepa_training.data.dataset import Dataset

pytestmark = [pytest.mark.slow, pytest.mark.real_time, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[1]
SPEC = importlib.util.spec_from_file_location("demonstrate", ROOT / "examples" / "demonstrate.py")
demonstrate = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(demonstrate)
CAMERA_HZ, RATE_HZ, fingertip = demonstrate.CAMERA_HZ, demonstrate.RATE_HZ, demonstrate.fingertip
DEMONSTRATIONS = 50
NEAR_M = 0.06
"""As near as the task's own target is large: its radius and the finger's."""
DRIVE_S = 6.0


def vjepa(*words) -> str:
    """Run a command of the command line in this process and return what it printed."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert ended.value.code == 0, said.getvalue()
    return said.getvalue()


@pytest.fixture(scope="module")
def demonstrated(tmp_path_factory) -> Path:
    """A folder with the bags, their dataset and a policy of it."""
    folder = tmp_path_factory.mktemp("demonstrations")
    script = ROOT / "examples" / "demonstrate.py"
    options = ["--out", folder / "bags", "--episodes", str(DEMONSTRATIONS)]
    subprocess.run([sys.executable, "-P", script, *options], check=True, capture_output=True, timeout=300)
    bags = sorted((folder / "bags").iterdir())
    arm = ("--joints", "shoulder,wrist", "--effort-limit", 0.05)
    vjepa("dataset", "build", *bags, "--out", folder / "ds", *arm, "--strict")
    said = vjepa("train", "bc", "--data", folder / "ds", "--out", folder / "policy", "--mark", "outcome=success")
    went_well = sum("outcome: success" in (bag / "metadata.yaml").read_text() for bag in bags)
    assert went_well >= DEMONSTRATIONS - 5
    assert f"of {went_well} of {DEMONSTRATIONS} episodes, with the recorded efforts as labels" in said
    return folder


@pytest.fixture
def exits():
    """What is to be done at the end of a test."""
    with contextlib.ExitStack() as stack:
        yield stack


def test_the_dataset_has_the_torques_of_the_demonstrator_and_no_trace_of_a_simulator(demonstrated):
    dataset = Dataset(demonstrated / "ds")
    assert len(dataset.episodes) == DEMONSTRATIONS
    assert dataset.info.task == ""
    assert not np.isfinite(np.asarray(dataset["target"])).any()
    efforts = np.asarray(dataset["effort"])[np.asarray(dataset["has_next"])]
    assert np.isfinite(efforts).all()
    assert 0.01 < np.abs(efforts).max() <= 0.05


def test_the_policy_reaches_the_target_from_poses_that_no_demonstration_began_in(demonstrated):
    encoder = load_encoder(EncoderConfig(find_bundle("encoder-small"), "cpu", threads=1))
    policy = load_planner("bc", {"bundle": str(demonstrated / "policy")}, PlannerContext(2, 1 / CAMERA_HZ))
    random = np.random.default_rng(1)
    away = []
    arm = ArmStandIn(ArmStandInParameters(rate_hz=float(RATE_HZ)), clock=lambda: 0.0)
    target = arm.place("geom", "target")[:2]
    for _ in range(10):
        pose = random.uniform(-np.pi, np.pi), random.uniform(-2.0, 2.0)
        reading = arm.advance()
        for _ in range(400):
            arm.command(demonstrate.to_pose(pose, reading.position, reading.velocity))
            reading = arm.advance()
        clip = ClipBuffer(encoder.clip_frames)
        policy.reset(0)
        frames = 0
        arm.command(np.zeros(2))
        for step in range(int(DRIVE_S * RATE_HZ)):
            if step * CAMERA_HZ >= frames * RATE_HZ:
                latent = encoder.encode([clip.push(frames + 1, encoder.preprocess(arm.render()))])[0]
                plan = policy.plan(Observation(frames, latent, reading.position, reading.velocity))
                arm.command(0.05 * plan.action)
                frames += 1
            reading = arm.advance()
        away.append(float(np.linalg.norm(fingertip(reading.position) - target)))
    arm.close()
    assert sum(distance < NEAR_M for distance in away) >= 8, away


def test_it_drives_through_the_guard_and_not_in_its_dry_run(demonstrated, start_stack, hand_of, tmp_path, exits):
    parameters = {
        "vjepa_planner": {
            "planners": ["bc"],
            "fallbacks": [],
            "bc.bundle": str(demonstrated / "policy"),
            "joint_names": ["shoulder", "wrist"],
            "effort_limit": 0.05,
            "control_period_s": 1 / CAMERA_HZ,
        },
        "effort_guard": {"joint_names": ["shoulder", "wrist"], "effort_limits": [0.05, 0.05], "slew_rates": [1.0, 1.0]},
    }
    file = tmp_path / "arm.yaml"
    file.write_text(yaml.safe_dump({node: {"ros__parameters": values} for node, values in parameters.items()}))
    stack = start_stack(planner="bc", source="camera", guard=True, params_file=str(file), light=False)
    joints, outputs = stack.tap(topics.JOINT_STATES), []
    stack.node.create_subscription(Float64MultiArray, topics.EFFORT_ARRAY.name, lambda m: outputs.append(m.data), 1000)
    code = "from sim_bridge.arm_stand_in_node import main; main()"
    stand_in = [sys.executable, "-P", "-c", code, "--ros-args", "-p", f"camera_rate_hz:={CAMERA_HZ:.1f}"]
    exits.callback(
        subprocess.Popen(stand_in, env=stack.supervisor.variables_of(stack.supervisor.children[0].node)).kill
    )
    hand = hand_of(stack)
    stack.wait_for(lambda: len(outputs) > 100, "the guard")
    hand.press()
    seen = len(outputs)
    stack.wait_for(lambda: len(outputs) > seen + 100, "a dry run")
    assert np.abs(np.array(outputs)).max() == 0.0
    assert stack.set_parameter("effort_guard", "dry_run", False).successful
    arm = ArmStandIn(ArmStandInParameters())
    target = arm.place("geom", "target")[:2]
    arm.close()

    def reached() -> bool:
        if not joints.messages:  # The stand-in takes its time to start.
            return False
        position = dict(zip(joints.messages[-1].name, joints.messages[-1].position, strict=True))
        return float(np.linalg.norm(fingertip([position["shoulder"], position["wrist"]]) - target)) < NEAR_M

    hand.press_until(lambda _: reached(), "the fingertip at the target")
    assert np.abs(np.array(outputs)).max() <= 0.05
