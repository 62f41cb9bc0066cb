"""From scores of episodes to success and intervals."""

import math

import numpy as np
import pytest

from sim_bridge.action_change import ActionChange
from sim_bridge.score import Episode
from vjepa_interfaces.errors import VjepaError
from vjepa_training.evaluation.bootstrap import bootstrap_interval
from vjepa_training.evaluation.score import PROTOCOLS, Protocol, protocol_named, summarise


def test_an_unknown_protocol_is_refused_with_the_valid_ones():
    with pytest.raises(VjepaError, match="unknown protocol 'long'; valid are: baseline, full, short"):
        protocol_named("long")


def test_the_protocols_are_those_of_the_earlier_work_and_of_the_literature():
    assert protocol_named("short") == Protocol("short", 200, 150.0)
    assert protocol_named("full") == Protocol("full", 1000, None)
    assert protocol_named("baseline") == Protocol("baseline", 100, None)


def test_the_interval_holds_the_mean_and_shrinks_with_more_episodes():
    random = np.random.default_rng(0)
    widths = []
    for count in (10, 1000):
        values = random.normal(50.0, 10.0, count).tolist()
        low, high = bootstrap_interval(values)
        assert low < np.mean(values) < high
        widths.append(high - low)
        assert widths[-1] == pytest.approx(2 * 1.96 * np.std(values) / math.sqrt(count), rel=0.1)
    assert widths[1] < widths[0] / 5


def test_the_interval_covers_the_true_mean_as_often_as_it_claims():
    random = np.random.default_rng(1)
    covered = 0
    for i in range(200):
        low, high = bootstrap_interval(random.uniform(0.0, 1.0, 30), seed=i, resamples=500)
        covered += low <= 0.5 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_the_interval_is_the_same_each_time():
    values = [1.0, 5.0, 2.0, 8.0]
    assert bootstrap_interval(values) == bootstrap_interval(values)


def test_the_interval_of_equal_values_is_the_value_and_of_none_is_unknown():
    assert bootstrap_interval([172.0]) == (172.0, 172.0)
    assert bootstrap_interval([3.0] * 20) == (3.0, 3.0)
    assert all(map(math.isnan, bootstrap_interval([])))
    assert all(map(math.isnan, bootstrap_interval([1.0, math.nan])))


def test_the_interval_does_not_depend_on_the_memory_it_is_given(monkeypatch):
    values = np.random.default_rng(2).normal(size=(30, 2))
    whole = bootstrap_interval(values, lambda means: means[:, 0] / means[:, 1])
    monkeypatch.setattr("vjepa_training.evaluation.bootstrap.BLOCK_VALUES", 100)
    assert bootstrap_interval(values, lambda means: means[:, 0] / means[:, 1]) == whole


def test_success_is_a_return_above_150_in_the_short_protocol():
    episodes = [Episode(value, 200, False, at_end, True) for value, at_end in ((150.0, True), (151.0, False))]
    summary = summarise(episodes, PROTOCOLS["short"])
    assert summary["success"] == [False, True]
    assert summary["success_rate"] == 0.5


def test_success_is_the_target_at_the_end_in_the_full_protocol():
    episodes = [Episode(value, 1000, True, at_end, True) for value, at_end in ((10.0, True), (990.0, False))]
    summary = summarise(episodes, PROTOCOLS["full"])
    assert summary["success"] == [True, False]
    assert summary["started_in_target"] == [True, True]
    assert summary["steps"] == [1000, 1000]
    assert summary["mean_return"] == 500.0
    assert summary["interval_95"] == [10.0, 990.0]


def test_all_pairs_of_steps_at_rest_weigh_the_same():
    episodes = [
        Episode(0.0, 2, change=change) for change in (ActionChange(6.0, 3), ActionChange(0.0, 1), ActionChange())
    ]
    assert summarise(episodes, PROTOCOLS["short"])["action_change_at_rest"] == 1.5
    assert summarise(episodes[2:], PROTOCOLS["short"])["action_change_at_rest"] is None


def test_success_is_not_defined_where_there_is_no_target():
    summary = summarise([Episode(10.0, 1000, None, None, True)], PROTOCOLS["full"])
    assert summary["success"] == [None]
    assert math.isnan(summary["success_rate"])


def test_an_approach_is_measured_by_the_distances_at_the_start_at_the_least_and_at_the_end():
    ways = ([4.0, 1.0, 3.0], [2.0, 2.5, 1.0])
    episodes = [Episode(0.0, 2, False, False, True, way) for way in ways]
    summary = summarise(episodes, PROTOCOLS["baseline"])
    assert summary["goal_distance"] == {"start": [4.0, 2.0], "least": [1.0, 1.0], "end": [3.0, 1.0]}
    assert summary["closer"] == pytest.approx((0.25 + 0.5) / 2)


def test_an_approach_is_set_against_the_fingertips_way_to_the_target():
    ways = [([3.0, 2.0, 1.0], [0.3, 0.2, 0.1]), ([3.0, 2.0, 1.0], [0.1, 0.2, 0.2])]
    episodes = [Episode(0.0, 2, False, False, True, to_goal, metres) for to_goal, metres in ways]
    summary = summarise(episodes, PROTOCOLS["baseline"])
    assert summary["target_distance"] == {"start": [0.3, 0.1], "end": [0.1, 0.2]}
    assert summary["goal_correlation"] == pytest.approx(
        np.corrcoef([3, 2, 1, 3, 2, 1], [0.3, 0.2, 0.1, 0.1, 0.2, 0.2])[0, 1]
    )
    still = Episode(0.0, 1, False, False, True, [1.0, 1.0], [0.1, 0.1])
    assert math.isnan(summarise([still], PROTOCOLS["baseline"])["goal_correlation"])


def test_an_approach_that_starts_at_the_goal_has_no_figure():
    assert math.isnan(summarise([Episode(0.0, 1, False, False, True, [0.0, 1.0])], PROTOCOLS["baseline"])["closer"])


def test_without_a_goal_no_approach_is_measured():
    assert (
        not {"goal_distance", "closer", "target_distance"}
        & summarise([Episode(0.0, 1, False, False, True)], PROTOCOLS["baseline"]).keys()
    )
