"""The scripted experts in dm_control: two near the physical limit, and one with its known flaw."""

import numpy as np
import pytest
from dm_control import suite

from vjepa_planner.contract import Observation, PlannerContext
from vjepa_planner.registry import load_planner

STEPS = 200


def returns_of(planner_name, seeds, domain="reacher", steps=STEPS):
    """Returns (episodes, 2) of the whole episode and of its last step."""
    planner = load_planner(planner_name, {}, PlannerContext(2, 0.02))
    latent = np.zeros((1, 1), np.float32)
    returns = []
    for seed in seeds:
        environment = suite.load(domain, "easy", task_kwargs={"random": seed})
        environment.reset()
        planner.reset(seed)
        physics = environment.physics
        target = physics.named.model.geom_pos["target"].copy()
        rewards = []
        for step in range(steps):
            action = planner.plan(Observation(step, latent, physics.position(), physics.velocity(), target)).action
            rewards.append(environment.step(action).reward)
        returns.append((sum(rewards), rewards[-1]))
    return np.array(returns)


@pytest.fixture(scope="module")
def seeds():
    return range(12)


def test_the_expert_reaches_every_target_fast(seeds):
    returns = returns_of("expert", seeds)
    assert returns[:, 1].tolist() == [1.0] * len(seeds)
    assert returns[:, 0].mean() > 175
    assert returns[:, 0].min() > 130


def test_the_p_controller_fails_as_it_did(seeds):
    returns = returns_of("expert-p", seeds)
    assert 20 < returns[:, 0].mean() < 120
    assert (returns[:, 0] > 150).mean() < 0.5


def test_a_pushed_point_gets_to_its_target_and_stays(seeds):
    returns = returns_of("expert-xy", seeds, "point_mass", 1000)
    assert returns[:, 1].min() > 0.99
    assert returns[:, 0].mean() > 880
