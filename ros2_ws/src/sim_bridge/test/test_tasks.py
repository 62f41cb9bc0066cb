"""The table of tasks says of each arm what its model says."""

import numpy as np
import pytest

from sim_bridge.env import SimConfig, SimEnv
from sim_bridge.tasks import TASKS


@pytest.mark.parametrize("name", sorted(TASKS))
def test_joints_limits_and_rate_are_those_of_the_model(name):
    task = TASKS[name]
    with SimEnv(SimConfig(task=name)) as env:
        assert task.joint_names == env.limits.joint_names
        assert set(env.limits.limits) == {task.effort_limit}
        assert task.control_period_s == env.control_period_s


@pytest.mark.parametrize("name", sorted(TASKS))
def test_fingertip_and_target_keep_to_the_plane(name):
    (across,) = {0, 1, 2} - set(TASKS[name].plane)
    rng = np.random.default_rng(0)
    with SimEnv(SimConfig(task=name, episode_steps=50)) as env:
        steps = [env.reset()]
        limits = env.limits
        steps += [env.step(limits.effort_of(rng.uniform(-1, 1, len(limits.joint_names)))) for _ in range(50)]
    for points in (np.array([step.fingertip for step in steps]), np.array([step.target for step in steps])):
        np.testing.assert_allclose(points[:, across], points[0, across], atol=1e-9)
    assert np.ptp(np.array([step.fingertip for step in steps]), axis=0)[list(TASKS[name].plane)].max() > 1e-3
