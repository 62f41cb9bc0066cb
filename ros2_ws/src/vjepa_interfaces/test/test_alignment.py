"""Joins by stamp give what the frame caused, and only readings from its past."""

import numpy as np
import pytest

from vjepa_interfaces.alignment import StampRing, causal_join, exact_join
from vjepa_interfaces.stamps import begins_episode


def test_ring_gives_the_newest_reading_at_or_before_and_never_a_later_one():
    ring = StampRing()
    for stamp in (100, 110, 120):
        ring.add(stamp, stamp)
    assert ring.at_or_before(115, 50) == 110
    assert ring.at_or_before(110, 50) == 110
    assert ring.at_or_before(99, 50) is None


def test_ring_refuses_a_reading_older_than_the_limit():
    ring = StampRing()
    ring.add(100, "old")
    assert ring.at_or_before(150, 50) == "old"
    assert ring.at_or_before(151, 50) is None


def test_ring_holds_what_is_younger_than_its_span_whatever_the_rate():
    for period in (1, 7, 50):
        ring = StampRing(span_ns=100)
        for stamp in range(0, 2000, period):
            ring.add(stamp, stamp)
            assert ring.at_or_before(max(0, stamp - 100), period) is not None
            assert stamp - ring.stamps()[0] <= 200 + period


def test_ring_never_holds_more_than_its_size():
    ring = StampRing(size=8)
    for stamp in range(1000):
        ring.add(stamp, stamp)
        assert len(ring) <= 8
        assert ring.at(max(0, stamp - 3)) is not None


def test_a_repeated_message_changes_nothing():
    ring = StampRing()
    ring.add(1, "a")
    ring.add(2, "b")
    ring.add(1, "again")
    ring.add(2, "again")
    assert (ring.at(1), ring.at(2), len(ring)) == ("a", "b", 2)


def test_time_going_backwards_forgets_the_old_time_line():
    ring = StampRing()
    ring.add(1000, "old")
    ring.add(10, "new")
    assert ring.at_or_before(2000, 10_000) == "new"
    assert len(ring) == 1


@pytest.mark.parametrize("seed", range(5))
def test_the_offline_join_equals_the_live_ring(seed):
    random = np.random.default_rng(seed)
    sensor = np.unique(random.integers(0, 1000, 60))
    frames = np.sort(random.integers(0, 1100, 40))
    offline = causal_join(frames, sensor, 30)
    for frame, index in zip(frames, offline, strict=True):
        ring = StampRing()
        for i, stamp in enumerate(sensor):
            ring.add(int(stamp), i)
        live = ring.at_or_before(int(frame), 30)
        assert index == (-1 if live is None else live)


def test_offline_joins_survive_an_empty_side():
    frames = np.array([1, 2], np.int64)
    empty = np.array([], np.int64)
    assert causal_join(frames, empty, 10).tolist() == [-1, -1]
    assert exact_join(frames, empty).tolist() == [-1, -1]
    assert exact_join(empty, frames).tolist() == []


def test_exact_join_finds_equal_stamps_in_any_order():
    assert exact_join(np.array([5, 7, 9]), np.array([9, 1, 5])).tolist() == [2, -1, 0]


@pytest.mark.parametrize(
    ("previous", "stamp", "begins"),
    [
        (None, 0, True),
        (100, 99, True),
        (100, 100, False),
        (0, 500_000_000, False),
        (0, 500_000_001, True),
    ],
)
def test_an_episode_begins_at_a_backward_stamp_or_a_gap(previous, stamp, begins):
    assert begins_episode(previous, stamp) is begins
