"""Losses counted from publication numbers are never negative, and none where publishers only take turns."""

import random

import pytest

from vjepa_bags.bag_audit import PublicationCounter


@pytest.mark.parametrize("seed", range(200))
def test_publishers_joined_mid_run_never_count_less_than_nothing(seed):
    rng = random.Random(seed)
    counter = PublicationCounter()
    next_number = [rng.randrange(1, 40) for _ in range(rng.randrange(2, 6))]
    for _ in range(200):
        publisher = rng.randrange(len(next_number))
        counter.observe(next_number[publisher])
        next_number[publisher] += 1
        assert counter.lost >= 0


@pytest.mark.parametrize("numbers", [(1, 1), (3, 17), (40, 2, 9), (5, 30, 12, 21, 8)])
def test_publishers_that_take_turns_lose_nothing(numbers):
    counter = PublicationCounter()
    for turn in range(100):
        for first in numbers:
            counter.observe(first + turn)
    assert counter.lost == 0
