"""The scripted experts in dm_control: two near the physical limit, and one with its known flaw."""

import numpy as np
import pytest
from dm_control import suite

from vjepa_planner.contract import Observation, PlannerContext
from vjepa_planner.registry import load_planner

STEPS = 200


def returns_of(planner_name, seeds, domain="reacher", steps=STEPS):
    """Returns (episodes, 2) of the whole episode and of its last step."""
    rewards = drive(planner_name, seeds, domain, steps)[0]
    return np.stack([rewards.sum(1), rewards[:, -1]], axis=1)


def drive(planner_name, seeds, domain="reacher", steps=STEPS, task="easy", late=0):
    """Rewards (episodes, steps) and the actions applied (episodes, steps, 2), each `late` control steps too late."""
    planner = load_planner(planner_name, {}, PlannerContext(2, 0.02))
    latent = np.zeros((1, 1), np.float32)
    rewards, actions = [], []
    for seed in seeds:
        environment = suite.load(domain, task, task_kwargs={"random": seed})
        environment.reset()
        planner.reset(seed)
        physics = environment.physics
        target = physics.named.model.geom_pos["target"].copy()
        waiting = [np.zeros(2)] * late
        for step in range(steps):
            waiting.append(
                planner.plan(Observation(step, latent, physics.position(), physics.velocity(), target)).action
            )
            actions.append(waiting.pop(0))
            rewards.append(environment.step(actions[-1]).reward)
    return np.reshape(rewards, (-1, steps)), np.reshape(actions, (-1, steps, 2))


@pytest.fixture(scope="module")
def seeds():
    return range(12)


def test_the_expert_reaches_every_target_fast(seeds):
    returns = returns_of("expert", seeds)
    assert returns[:, 1].tolist() == [1.0] * len(seeds)
    assert returns[:, 0].mean() > 175
    assert returns[:, 0].min() > 130


@pytest.mark.parametrize("task", ["easy", "hard"])
@pytest.mark.parametrize("late", [0, 1, 2])
def test_the_experts_hands_are_calm_in_the_target_also_where_commands_come_late(seeds, task, late):
    rewards, actions = drive("expert", seeds, task=task, late=late)
    assert rewards[:, -1].tolist() == [1.0] * len(seeds)
    changes = np.abs(np.diff(actions, axis=1)).mean(2)
    assert changes[(rewards[:, 1:] == 1) & (rewards[:, :-1] == 1)].mean() < 0.02
    assert changes[:, -20:].max() < 1e-3, "it comes to rest"


def test_the_p_controller_fails_as_it_did(seeds):
    returns = returns_of("expert-p", seeds)
    assert 20 < returns[:, 0].mean() < 120
    assert (returns[:, 0] > 150).mean() < 0.5


def test_a_pushed_point_gets_to_its_target_and_stays(seeds):
    returns = returns_of("expert-xy", seeds, "point_mass", 1000)
    assert returns[:, 1].min() > 0.99
    assert returns[:, 0].mean() > 880
