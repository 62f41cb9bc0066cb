"""Inverse kinematics is the inverse of forward kinematics, within the joint limits."""

import math

import numpy as np
import pytest

from vjepa_planner.contract import Observation, PlannerContext
from vjepa_planner.planners.expert import ExpertConfig, ExpertPlanner
from vjepa_planner.planners.expert_p import ExpertPConfig, ExpertPPlanner
from vjepa_planner.planners.two_link import TwoLinkArm, wrapped
from vjepa_planner.planners.two_link_dynamics import TwoLinkDynamics

CONTEXT = PlannerContext(action_size=2, control_period_s=0.02)


def plan(planner, position, velocity, target):
    planner.reset(0)
    latent = np.zeros((1, 1), np.float32)
    return planner.plan(Observation(1, latent, np.array(position), np.array(velocity), np.array(target))).action


def turning(shoulder, wrist, at_wrist):
    """The action of the expert at rest, for joint errors in rad: both poles at exp(-0.02 / 0.07)."""
    stiffness = ((1 - math.exp(-0.02 / 0.07)) / 0.02) ** 2
    torques = TwoLinkDynamics().torques(at_wrist, (0.0, 0.0), (stiffness * shoulder, stiffness * wrist), 0.02)
    return np.array(torques) / 0.05


@pytest.mark.parametrize("arm", [TwoLinkArm(), TwoLinkArm(0.3, 0.1, math.pi)])
def test_both_elbow_poses_put_the_fingertip_on_a_target_within_reach(arm):
    generator = np.random.default_rng(0)
    nearest = abs(arm.upper_length - arm.lower_length) + 0.05
    for _ in range(500):
        radius = generator.uniform(nearest, arm.upper_length + arm.lower_length)
        angle = generator.uniform(-math.pi, math.pi)
        x, y = radius * math.cos(angle), radius * math.sin(angle)
        poses = arm.angles_to(x, y)
        assert poses[0][1] == -poses[1][1]
        for shoulder, wrist in poses:
            assert arm.fingertip(shoulder, wrist) == pytest.approx((x, y), abs=1e-9)
            assert abs(wrist) <= arm.wrist_limit
            assert abs(shoulder) <= math.pi


def test_a_target_out_of_reach_is_pointed_at_from_as_near_as_the_arm_comes():
    arm = TwoLinkArm()
    for shoulder, wrist in arm.angles_to(0.0, 5.0):
        assert arm.fingertip(shoulder, wrist) == pytest.approx((0.0, 0.24), abs=1e-9)
    folded = 0.24 * math.cos(math.radians(80))
    for shoulder, wrist in arm.angles_to(0.001, 0.0):
        assert abs(wrist) <= math.radians(160) + 1e-12
        assert arm.fingertip(shoulder, wrist) == pytest.approx((folded, 0.0), abs=1e-9)
    assert all(math.isfinite(angle) for pose in arm.angles_to(0.0, 0.0) for angle in pose)


@pytest.mark.parametrize("turns", [-3, 0, 5])
def test_wrapping_keeps_the_direction(turns):
    for angle in (-3.1, -0.5, 0.0, 2.0, 3.1):
        assert wrapped(angle + turns * 2 * math.pi) == pytest.approx(angle, abs=1e-9)


def test_the_expert_turns_the_short_way_round():
    expert = ExpertPlanner(ExpertConfig(), CONTEXT)
    tip = TwoLinkArm().fingertip(-math.pi + 0.01, 0.5)
    short = plan(expert, [math.pi - 0.01, 0.5], [0.0, 0.0], tip)
    assert short == pytest.approx(plan(expert, [-math.pi - 0.01, 0.5], [0.0, 0.0], tip), abs=1e-9)
    assert short == pytest.approx(turning(0.02, 0.0, 0.5), abs=1e-9)


def test_full_turns_of_the_shoulder_change_nothing():
    expert = ExpertPlanner(ExpertConfig(), CONTEXT)
    tip = TwoLinkArm().fingertip(1.0, 0.5)
    once = plan(expert, [0.95, 0.55], [0.1, 0.0], tip)
    assert plan(expert, [0.95 + 6 * math.pi, 0.55], [0.1, 0.0], tip) == pytest.approx(once, abs=1e-9)


@pytest.mark.parametrize("wrist", [1.2, -1.2])
def test_the_expert_takes_the_nearer_elbow(wrist):
    expert = ExpertPlanner(ExpertConfig(), CONTEXT)
    tip = TwoLinkArm().fingertip(0.3, wrist)
    action = plan(expert, [0.25, wrist], [0.0, 0.0], tip)
    assert action == pytest.approx(turning(0.05, 0.0, wrist), abs=1e-9)


def test_the_wrist_never_goes_round_through_its_limit():
    expert = ExpertPlanner(ExpertConfig(), CONTEXT)
    near, far = math.radians(150), math.radians(-150)
    tip = TwoLinkArm().fingertip(0.0, far)
    # Turning the shoulder reaches it with this elbow; 60 degrees of wrist through the limit would not.
    turn = wrapped(TwoLinkArm().angles_to(*tip)[0][0])
    action = plan(expert, [0.0, near], [0.0, 0.0], tip)
    assert action == pytest.approx(np.clip(turning(turn, 0.0, near), -1.0, 1.0), abs=1e-9)


def test_the_expert_brakes_a_joint_that_moves():
    expert = ExpertPlanner(ExpertConfig(), CONTEXT)
    tip = TwoLinkArm().fingertip(0.3, 1.0)
    shoulder, wrist = plan(expert, [0.3, 1.0], [0.5, -0.25], tip)
    assert shoulder < 0
    assert wrist < 0, "the wrist is held against the shoulder's braking, which would throw it forward"


def test_the_p_controller_applies_the_cartesian_way_as_torque():
    planner = ExpertPPlanner(ExpertPConfig(), CONTEXT)
    action = plan(planner, [0.0, 0.0], [9.0, 9.0], [0.20, 0.03, 0.01])
    assert action == pytest.approx([5 * -0.04, 5 * 0.03])


def test_the_links_are_those_of_dm_controls_reacher():
    from dm_control import mjcf
    from dm_control.suite import reacher

    text, assets = reacher.get_model_and_assets()
    model = mjcf.from_xml_string(text, assets=assets)
    arm = TwoLinkArm()
    assert model.find("body", "hand").pos.tolist() == [arm.upper_length, 0, 0]
    assert model.find("body", "finger").pos.tolist() == [arm.lower_length, 0, 0]
    assert model.find("joint", "wrist").range.tolist() == [-160, 160]
    assert arm.wrist_limit == pytest.approx(math.radians(160))
    assert not model.find("joint", "shoulder").limited
