"""From stamped steps to returns, success and intervals."""

import math

import numpy as np
import pytest

from sim_bridge.score import Episode, ScoreKeeper
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.messages import FIRST, LAST, MID
from vjepa_training.evaluation.bootstrap import bootstrap_interval
from vjepa_training.evaluation.score import PROTOCOLS, Protocol, protocol_named, summarise

TARGET = np.array([0.1, 0.0, 0.01])
INSIDE = TARGET + np.array([0.03, 0.0, 0.5])
OUTSIDE = TARGET + np.array([0.07, 0.0, 0.0])


@pytest.fixture
def keeper() -> ScoreKeeper:
    return ScoreKeeper("reacher-easy")


def play(keeper: ScoreKeeper, first_ns: int, rewards: list[float], start=OUTSIDE, end=OUTSIDE) -> int:
    """Give a whole episode of the `rewards`, one nanosecond a step, and return the stamp of its last step."""
    keeper.add(first_ns, 0.0, FIRST, TARGET, start)
    for i, reward in enumerate(rewards, 1):
        last = i == len(rewards)
        keeper.add(first_ns + i, reward, LAST if last else MID, TARGET, end if last else OUTSIDE)
    return first_ns + len(rewards)


def test_a_return_is_the_sum_of_the_rewards_after_the_first_step(keeper):
    keeper.add(1, 9.0, FIRST, TARGET, OUTSIDE)
    keeper.add(2, 0.5, MID, TARGET, OUTSIDE)
    assert keeper.finished == []
    keeper.add(3, 1.0, LAST, TARGET, INSIDE)
    assert keeper.finished == [Episode(1.5, 2, started_in_target=False, in_target_at_end=True, done=True)]


def test_episodes_are_kept_apart(keeper):
    last = play(keeper, 1, [1.0, 1.0], start=INSIDE)
    play(keeper, last + 10, [0.0, 0.0, 1.0], end=INSIDE)
    assert [episode.episode_return for episode in keeper.finished] == [2.0, 1.0]
    assert [episode.steps for episode in keeper.finished] == [2, 3]
    assert [episode.started_in_target for episode in keeper.finished] == [True, False]
    assert [episode.in_target_at_end for episode in keeper.finished] == [False, True]


def test_in_the_target_is_within_its_radius_in_the_plane():
    for task, radius in (("reacher-easy", 0.06), ("reacher-hard", 0.025)):
        keeper = ScoreKeeper(task)
        for i, offset in enumerate((radius - 1e-6, radius + 1e-6)):
            keeper.add(10 * i + 1, 0.0, FIRST, TARGET, TARGET + np.array([0.0, offset, 1.0]))
        assert [episode.started_in_target for episode in keeper.episodes] == [True, False]


def test_a_task_without_a_target_has_no_in_target():
    keeper = ScoreKeeper("finger-spin")
    play(keeper, 1, [1.0])
    assert (keeper.finished[0].started_in_target, keeper.finished[0].in_target_at_end) == (None, None)


def test_a_repeated_step_counts_once(keeper):
    keeper.add(1, 0.0, FIRST, TARGET, OUTSIDE)
    keeper.add(1, 0.0, FIRST, TARGET, OUTSIDE)
    for _ in range(3):
        keeper.add(2, 1.0, MID, TARGET, OUTSIDE)
    for _ in range(2):
        keeper.add(3, 1.0, LAST, TARGET, OUTSIDE)
    assert [(episode.episode_return, episode.steps) for episode in keeper.episodes] == [(2.0, 2)]


def test_steps_of_no_episode_are_ignored(keeper):
    keeper.add(1, 1.0, MID, TARGET, OUTSIDE)
    keeper.add(2, 1.0, LAST, TARGET, OUTSIDE)
    assert keeper.episodes == []
    last = play(keeper, 10, [1.0])
    keeper.add(last + 1, 1.0, MID, TARGET, OUTSIDE)
    assert keeper.finished[0].episode_return == 1.0


def test_an_episode_cut_short_by_a_reset_is_not_finished(keeper):
    keeper.add(1, 0.0, FIRST, TARGET, OUTSIDE)
    keeper.add(2, 1.0, MID, TARGET, OUTSIDE)
    play(keeper, 10, [0.5])
    assert len(keeper.episodes) == 2
    assert [episode.episode_return for episode in keeper.finished] == [0.5]


def test_a_simulation_that_starts_again_is_scored_from_its_first_episode(keeper):
    """It plays the same seeds again, so nothing may count twice and no episode be mixed of two."""
    last = play(keeper, 1_000, [1.0, 1.0])
    keeper.add(last + 10, 0.0, FIRST, TARGET, OUTSIDE)
    keeper.add(last + 11, 5.0, MID, TARGET, OUTSIDE)
    play(keeper, 1_000, [1.0, 0.0, 1.0])
    assert [(episode.episode_return, episode.steps) for episode in keeper.episodes] == [(2.0, 3)]


def test_actions_are_matched_by_stamp_whatever_comes_first():
    keeper = ScoreKeeper("reacher-easy", effort_limit=0.02)
    keeper.add(1, 0.0, FIRST, TARGET, OUTSIDE)
    keeper.apply(2, np.array([0.01, 0.0]))
    keeper.add(2, 1.0, MID, TARGET, OUTSIDE)
    keeper.add(3, 1.0, MID, TARGET, OUTSIDE)
    keeper.add(4, 1.0, LAST, TARGET, OUTSIDE)
    keeper.apply(4, np.array([-0.02, 0.02]))
    keeper.apply(3, np.array([0.0, -0.01]))
    (episode,) = keeper.finished
    assert [action.tolist() for action in episode.actions] == [[0.5, 0.0], [0.0, -0.5], [-1.0, 1.0]]
    # (0.5 + 0.5) / 2 and (1 + 1.5) / 2.
    assert summarise([episode], PROTOCOLS["short"])["action_change_at_rest"] == pytest.approx(0.875)


def test_each_joint_of_an_action_has_the_scale_of_its_own_limit():
    keeper = ScoreKeeper("reacher-easy", effort_limit=(0.02, 0.01))
    keeper.add(1, 0.0, FIRST, TARGET, OUTSIDE)
    keeper.add(2, 1.0, LAST, TARGET, OUTSIDE)
    keeper.apply(2, np.array([0.01, -0.01]))
    assert keeper.finished[0].actions[0].tolist() == [0.5, -1.0]


def test_efforts_without_steps_are_not_kept_for_ever(keeper):
    for stamp_ns in range(10_000):
        keeper.apply(stamp_ns, np.zeros(2))
    assert len(keeper._efforts) == 1000


def test_an_unknown_task_or_protocol_is_refused_with_the_valid_ones():
    with pytest.raises(VjepaError, match=r"unknown task 'reacher'; valid are: .*reacher-easy"):
        ScoreKeeper("reacher")
    with pytest.raises(VjepaError, match="unknown protocol 'long'; valid are: full, old, short"):
        protocol_named("long")


def test_the_protocols_are_those_of_the_earlier_work_and_of_the_literature():
    assert protocol_named("short") == Protocol("short", 200, 150.0)
    assert protocol_named("full") == Protocol("full", 1000, None)
    assert protocol_named("old") == Protocol("old", 100, None)


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


def test_success_is_not_defined_where_there_is_no_target():
    summary = summarise([Episode(10.0, 1000, None, None, True)], PROTOCOLS["full"])
    assert summary["success"] == [None]
    assert math.isnan(summary["success_rate"])


def test_an_approach_is_measured_by_the_distances_at_the_start_at_the_least_and_at_the_end():
    ways = ([4.0, 1.0, 3.0], [2.0, 2.5, 1.0])
    episodes = [Episode(0.0, 2, False, False, True, way) for way in ways]
    summary = summarise(episodes, PROTOCOLS["old"])
    assert summary["goal_distance"] == {"start": [4.0, 2.0], "least": [1.0, 1.0], "end": [3.0, 1.0]}
    assert summary["closer"] == pytest.approx((0.25 + 0.5) / 2)


def test_an_approach_is_set_against_the_fingertips_way_to_the_target():
    ways = [([3.0, 2.0, 1.0], [0.3, 0.2, 0.1]), ([3.0, 2.0, 1.0], [0.1, 0.2, 0.2])]
    episodes = [Episode(0.0, 2, False, False, True, to_goal, metres) for to_goal, metres in ways]
    summary = summarise(episodes, PROTOCOLS["old"])
    assert summary["target_distance"] == {"start": [0.3, 0.1], "end": [0.1, 0.2]}
    assert summary["goal_correlation"] == pytest.approx(
        np.corrcoef([3, 2, 1, 3, 2, 1], [0.3, 0.2, 0.1, 0.1, 0.2, 0.2])[0, 1]
    )
    still = Episode(0.0, 1, False, False, True, [1.0, 1.0], [0.1, 0.1])
    assert math.isnan(summarise([still], PROTOCOLS["old"])["goal_correlation"])


def test_an_approach_that_starts_at_the_goal_has_no_figure():
    assert math.isnan(summarise([Episode(0.0, 1, False, False, True, [0.0, 1.0])], PROTOCOLS["old"])["closer"])


def test_without_a_goal_no_approach_is_measured():
    assert (
        not {"goal_distance", "closer", "target_distance"}
        & summarise([Episode(0.0, 1, False, False, True)], PROTOCOLS["old"]).keys()
    )
