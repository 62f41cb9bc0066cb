"""The table of tasks says of each arm what its model says."""

import pytest

from sim_bridge.env import SimConfig, SimEnv
from sim_bridge.tasks import TASKS


@pytest.mark.parametrize("name", sorted(TASKS))
def test_joints_limits_and_rate_are_those_of_the_model(name):
    task = TASKS[name]
    with SimEnv(SimConfig(task=name)) as env:
        assert task.joint_names == env.limits.joint_names
        assert task.effort_limit == env.limits.limit
        assert task.control_period_s == env.control_period_ns * 1e-9
