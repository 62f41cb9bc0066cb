"""How much the action changes at rest, by cases that were computed by hand."""

import numpy as np
import pytest

from sim_bridge.action_change import ActionChange


def change_of(rewards, actions) -> ActionChange:
    change = ActionChange()
    for reward, action in zip(rewards, actions, strict=True):
        change.add(reward, np.array(action, np.float64))
    return change


def test_only_steps_that_are_both_in_the_target_count():
    rewards = [0.0, 1.0, 1.0, 0.5, 1.0, 1.0]
    actions = ((1.0, 1.0), (-1.0, 0.0), (-0.5, 0.1), (1.0, 1.0), (0.2, 0.2), (0.2, -0.8))
    # Steps 2 to 3: (0.5 + 0.1) / 2 = 0.3; steps 5 to 6: (0 + 1) / 2 = 0.5.
    assert change_of(rewards, actions).mean == pytest.approx(0.4)


def test_a_steady_torque_has_none_and_a_reversed_one_the_most():
    assert change_of([1.0] * 4, ((1.0,), (-1.0,), (1.0,), (-1.0,))) == ActionChange(6.0, 3)
    assert change_of([1.0] * 4, ((1.0,), (-1.0,), (1.0,), (-1.0,))).mean == 2.0
    assert change_of([1.0, 1.0], ((0.5,), (0.5,))).mean == 0.0


def test_without_two_steps_in_the_target_it_is_not_known():
    assert change_of([0.0, 1.0, 0.0, 1.0], [(1.0,)] * 4).mean is None
    assert ActionChange().mean is None
