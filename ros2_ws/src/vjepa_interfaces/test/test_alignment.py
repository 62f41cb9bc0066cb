"""Joins by stamp give what the frame caused, and only readings from its past."""

import pytest

from vjepa_interfaces.alignment import StampRing
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
