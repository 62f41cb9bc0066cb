"""Which episodes are held out: as many as asked for, the same ones whatever is added behind them."""

import numpy as np
import pytest

from vjepa_interfaces.errors import VjepaError
from vjepa_training.data.split import split_episodes


@pytest.mark.parametrize("share", [0.02, 0.1, 0.15, 0.25, 1 / 3, 0.6, 0.9])
def test_each_episode_is_on_one_side_and_the_share_is_what_was_asked_for(share):
    train, held_out = split_episodes(np.arange(600), share, seed=0)
    assert sorted([*train, *held_out]) == list(range(600))
    assert len(held_out) == pytest.approx(600 * share, abs=1)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.02, 0.15, 0.9])
def test_episodes_that_are_added_change_nothing_for_those_before_them(share, seed):
    first = split_episodes(np.arange(60), share, seed)[1]
    for count in (61, 75, 200):
        more = split_episodes(np.arange(count), share, seed)[1]
        assert first.tolist() == more[more < 60].tolist()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [2, 3, 9])
def test_however_few_there_are_both_sides_have_one(count, seed):
    for share in (0.001, 0.1, 0.999):
        assert all(len(part) for part in split_episodes(np.arange(count), share, seed))


def test_another_seed_holds_out_others():
    assert split_episodes(np.arange(100), 0.1, 0)[1].tolist() != split_episodes(np.arange(100), 0.1, 1)[1].tolist()


def test_the_episodes_may_be_those_of_rows_and_have_any_numbers():
    numbers = np.array([3, 17, 40, 41, 90, 91, 99])
    train, held_out = split_episodes(np.repeat(numbers, 5), 0.25, seed=2)
    places = split_episodes(np.arange(7), 0.25, seed=2)
    assert (train.tolist(), held_out.tolist()) == tuple(numbers[part].tolist() for part in places)


def test_one_episode_is_refused():
    with pytest.raises(VjepaError, match="1 episodes cannot be split into training and validation; give more episodes"):
        split_episodes(np.zeros(30), 0.1, seed=0)
