"""How much the action changes at rest, by cases that were computed by hand."""

import numpy as np
import pytest

from vjepa_training.evaluation.action_change import action_change_at_rest


def actions(*pairs):
    return [None if pair is None else np.array(pair, np.float64) for pair in pairs]


def test_only_steps_that_are_both_in_the_target_count():
    rewards = [0.0, 1.0, 1.0, 0.5, 1.0, 1.0]
    done = actions((1.0, 1.0), (-1.0, 0.0), (-0.5, 0.1), (1.0, 1.0), (0.2, 0.2), (0.2, -0.8))
    # Steps 2 to 3: (0.5 + 0.1) / 2 = 0.3; steps 5 to 6: (0 + 1) / 2 = 0.5.
    assert action_change_at_rest([(rewards, done)]) == pytest.approx(0.4)


def test_all_steps_of_all_episodes_weigh_the_same_and_episodes_are_kept_apart():
    flips = ([1.0, 1.0, 1.0, 1.0], actions((1.0,), (-1.0,), (1.0,), (-1.0,)))
    steady = ([1.0, 1.0], actions((0.5,), (0.5,)))
    assert action_change_at_rest([flips]) == 2.0
    assert action_change_at_rest([steady]) == 0.0
    assert action_change_at_rest([flips, steady]) == pytest.approx(3 * 2.0 / 4)


def test_an_action_that_is_not_known_is_in_no_pair():
    assert action_change_at_rest([([1.0] * 4, actions((0.0,), None, (0.3,), (0.4,)))]) == pytest.approx(0.1)


def test_without_two_steps_in_the_target_it_is_not_known():
    nowhere = ([0.0, 1.0, 0.0, 1.0], actions((1.0,), (1.0,), (1.0,), (1.0,)))
    assert action_change_at_rest([nowhere]) is None
    assert action_change_at_rest([]) is None
