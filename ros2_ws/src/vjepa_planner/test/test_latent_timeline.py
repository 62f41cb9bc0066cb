"""Stamps of latents tell where episodes begin and how far apart frames are."""

import math

import pytest

from vjepa_planner.latent_timeline import FEWEST_PERIODS, LatentTimeline

PERIOD_NS = 20_000_000


def test_episodes_begin_with_the_first_latent_a_backward_stamp_and_a_gap():
    timeline = LatentTimeline()
    stamps = [1_000_000_000, 1_020_000_000, 1_000_000_000, 1_020_000_000, 3_000_000_000]
    assert [timeline.advance(stamp_ns) for stamp_ns in stamps] == [True, False, True, False, True]
    assert timeline.episode == 2


@pytest.mark.parametrize(
    ("trained_s", "unlike"),
    [((0.02,), False), ((0.021,), False), ((0.025,), True), ((0.01,), True), ((0.04, 0.02), False), ((), False)],
)
def test_frames_are_compared_with_those_of_the_training_once_there_are_enough(trained_s, unlike):
    timeline = LatentTimeline()
    for i in range(FEWEST_PERIODS):
        timeline.advance(i * PERIOD_NS)
    assert math.isnan(timeline.period_ms)
    assert not timeline.is_unlike(trained_s)
    timeline.advance(FEWEST_PERIODS * PERIOD_NS)
    assert timeline.period_ms == pytest.approx(20.0)
    assert timeline.is_unlike(trained_s) == unlike
