"""The expert's dynamics are those of the simulated arm, and its joints are critically damped."""

import math

import numpy as np
import pytest
from dm_control import suite

from vjepa_interfaces.effort import EffortLimits
from vjepa_interfaces.errors import VjepaError
from vjepa_planner.contract import Observation, PlannerContext
from vjepa_planner.planners.two_link import TwoLinkArm
from vjepa_planner.planners.two_link_dynamics import TwoLinkDynamics
from vjepa_planner.registry import load_planner

EFFORT, PERIOD_S = 0.05, 0.02


@pytest.fixture(scope="module")
def environment():
    return suite.load("reacher", "easy", task_kwargs={"random": 0})


def start(environment, position, velocity):
    environment.reset()
    with environment.physics.reset_context():
        environment.physics.data.qpos[:] = position
        environment.physics.data.qvel[:] = velocity
    return environment.physics


def test_a_torque_gives_the_acceleration_that_it_is_for(environment):
    random = np.random.default_rng(0)
    for _ in range(50):
        position, velocity = random.uniform(-2.5, 2.5, 2), random.uniform(-3.0, 3.0, 2)
        acceleration = random.uniform(-10.0, 10.0, 2)
        torques = TwoLinkDynamics().torques(position[1], tuple(velocity), tuple(acceleration), PERIOD_S)
        if max(map(abs, torques)) > EFFORT:
            continue
        physics = start(environment, position, velocity)
        environment.step(np.array(torques) / EFFORT)
        assert (physics.velocity() - velocity) / PERIOD_S == pytest.approx(acceleration, abs=0.05)


def test_an_error_near_the_target_dies_away_at_both_poles_and_without_overshoot(environment):
    goal, pole = np.array([0.3, 1.2]), math.exp(-PERIOD_S / 0.07)
    target = np.array(TwoLinkArm().fingertip(*goal))
    expert = load_planner("expert", {}, PlannerContext(2, PERIOD_S))
    expert.reset(0)
    physics = start(environment, goal - [0.04, -0.03], [0.0, 0.0])
    errors = [goal - physics.position()]
    for step in range(30):
        observation = Observation(step, np.zeros((1, 1), np.float32), physics.position(), physics.velocity(), target)
        environment.step(expert.plan(observation).action)
        errors.append(goal - physics.position())
    # From rest the error of a discrete double integrator with a double pole p is p^k (1 + k (1 - p)) of the first.
    expected = [pole**k * (1 + k * (1 - pole)) for k in range(31)]
    assert np.array(errors) / errors[0] == pytest.approx(np.stack([expected, expected], axis=1), abs=0.01)


def test_inertias_that_no_arm_has_are_refused():
    with pytest.raises(VjepaError, match=r"shoulder_inertia 0\.1, wrist_inertia 0\.1 .* are impossible together"):
        TwoLinkDynamics(shoulder_inertia=0.1, wrist_inertia=0.1)
    with pytest.raises(VjepaError, match="are impossible together"):
        load_planner("expert", {"coupling_inertia": 1.0}, PlannerContext(2, PERIOD_S))


def test_a_weaker_motor_gets_the_same_torque_by_a_larger_action():
    target = np.array(TwoLinkArm().fingertip(0.3, 1.2))
    near = Observation(0, np.zeros((1, 1), np.float32), np.array([0.29, 1.2]), np.zeros(2), target)
    actions = []
    for limit in (EFFORT, (EFFORT / 4, EFFORT / 2)):
        limits = EffortLimits.of(("shoulder", "wrist"), limit)
        expert = load_planner("expert", {}, PlannerContext.of(limits, PERIOD_S))
        expert.reset(0)
        actions.append(expert.plan(near).action)
    assert actions[1] == pytest.approx([4, 2] * actions[0])
    assert actions[0].max() > 0.01
