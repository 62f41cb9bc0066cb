"""From steps to the scores of episodes, here and in a process that reads them from messages."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from sim_bridge.action_change import ActionChange
from sim_bridge.score import Episode, RunScores, ScoreKeeper, ScoreMessage
from sim_bridge.tasks import task_named
from vjepa_interfaces.effort import EffortLimits
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.messages import FIRST, LAST, MID

TARGET = np.array([0.1, 0.0, 0.01])
INSIDE = TARGET + np.array([0.03, 0.0, 0.5])
OUTSIDE = TARGET + np.array([0.07, 0.0, 0.0])


def step_of(kind: int, reward: float = 0.0, fingertip: np.ndarray = OUTSIDE, effort=(0.0, 0.0)) -> SimpleNamespace:
    efforts = np.array(effort)
    return SimpleNamespace(step_type=kind, reward=reward, target=TARGET, fingertip=fingertip, joint_effort=efforts)


def keeper_of(task: str = "reacher-easy") -> ScoreKeeper:
    return ScoreKeeper(task, EffortLimits(task_named(task).joint_names, 0.02))


def test_a_return_is_the_sum_of_the_rewards_after_the_first_step():
    keeper = keeper_of()
    for step in (step_of(FIRST, 9.0), step_of(MID, 0.5)):
        keeper.add(step)
    assert keeper.episode == Episode(0.5, 1, started_in_target=False)
    keeper.add(step_of(LAST, 0.75, INSIDE))
    assert keeper.episode == Episode(1.25, 2, started_in_target=False, in_target_at_end=True, done=True)
    assert keeper.distance_m == pytest.approx(0.03)


def test_a_first_step_begins_the_next_episode_and_leaves_the_last_one_as_it_was():
    keeper = keeper_of()
    for step in (step_of(FIRST, 0.0, INSIDE), step_of(MID, 0.5)):
        keeper.add(step)
    before = keeper.episode
    keeper.add(step_of(FIRST))
    assert before == Episode(0.5, 1, started_in_target=True)
    assert keeper.episode == Episode(started_in_target=False)


@pytest.mark.parametrize(("task", "radius"), [("reacher-easy", 0.06), ("reacher-hard", 0.025)])
def test_in_the_target_is_within_its_radius_in_the_plane(task, radius):
    for offset, expected in ((radius - 1e-6, True), (radius + 1e-6, False)):
        keeper = keeper_of(task)
        keeper.add(step_of(FIRST, 0.0, TARGET + np.array([0.0, offset, 1.0])))
        assert keeper.episode.started_in_target == expected


def test_a_task_without_a_target_has_no_score_of_reaching_one():
    keeper = keeper_of("finger-spin")
    for step in (step_of(FIRST), step_of(LAST, 1.0)):
        keeper.add(step)
    assert (keeper.episode.started_in_target, keeper.episode.in_target_at_end) == (None, None)


def test_the_change_of_the_action_is_that_of_the_efforts_over_their_limit():
    keeper = keeper_of()
    efforts = ((0.01, 0.0), (0.0, -0.01), (-0.02, 0.02))
    for step in (step_of(FIRST), *(step_of(MID, 1.0, effort=effort) for effort in efforts)):
        keeper.add(step)
    # (0.5 + 0.5) / 2 and (1 + 1.5) / 2.
    assert keeper.episode.change == ActionChange(pytest.approx(1.75), 2)


def test_an_unknown_task_is_refused_with_the_valid_ones():
    with pytest.raises(VjepaError, match=r"unknown task 'reacher'; valid are: .*reacher-easy"):
        ScoreKeeper("reacher", EffortLimits(("shoulder", "wrist"), 0.05))


def text_of(number: int, steps: int, value: float = 0.0, done: bool = False, run: int = 1) -> str:
    return ScoreMessage(run, number, 0.1 * steps, Episode(value, steps, False, done or None, done)).text()


def test_a_score_that_was_a_message_is_the_same_to_the_bit():
    score = Episode(0.1 + 0.2, 200, True, False, True, change=ActionChange(1 / 3, 7))
    scores = RunScores()
    scores.read(ScoreMessage(5, 0, 2 / 3, score).text())
    assert scores.finished == [score]
    assert scores.distance_m == 2 / 3


def test_new_steps_and_rewards_are_counted_from_the_first_progress_on():
    scores = RunScores()
    assert scores.read(text_of(4, 10, 3.0)) == (0, 0.0)
    assert scores.read(text_of(2, 100, 70.0, done=True)) == (0, 0.0), "it ended before"
    assert scores.read(text_of(4, 15, 5.0)) == (5, 2.0)
    assert scores.read(text_of(4, 20, 6.0, done=True)) == (5, 1.0)
    assert scores.read(text_of(4, 20, 6.0, done=True)) == (0, 0.0)
    assert scores.read(text_of(5, 20, 9.0, done=True)) == (20, 9.0), "it was shorter than the time between two messages"
    assert [episode.episode_return for episode in scores.finished] == [70.0, 6.0, 9.0]


def test_episodes_are_in_order_whatever_came_first():
    scores = RunScores()
    for text in (text_of(2, 7), text_of(0, 20, 1.0, done=True), text_of(1, 20, 2.0, done=True)):
        scores.read(text)
    assert [episode.steps for episode in scores.episodes] == [20, 20, 7]
    assert [episode.episode_return for episode in scores.finished_from(1)] == [2.0]
    assert (scores.begun, scores.steps) == (3, 47)
    assert scores.distance_m == pytest.approx(0.7), "that of the newest episode"


def test_an_episode_cut_short_by_a_reset_is_not_finished():
    scores = RunScores()
    for text in (text_of(0, 3), text_of(1, 20, 2.0, done=True)):
        scores.read(text)
    assert (len(scores.episodes), len(scores.finished), scores.begun) == (2, 1, 2)


def test_a_simulation_that_was_configured_again_is_scored_from_its_first_episode():
    scores = RunScores()
    for text in (text_of(0, 20, 1.0, done=True), text_of(1, 7)):
        scores.read(text)
    assert scores.read(text_of(0, 0, run=2)) == (0, 0.0)
    assert scores.read(text_of(0, 3, 2.0, run=2)) == (3, 2.0)
    assert [episode.steps for episode in scores.episodes] == [3]


def test_silence_ends_with_each_step_and_not_with_a_message_that_repeats_one(monkeypatch):
    now_s = 100.0
    monkeypatch.setattr("sim_bridge.score.time.monotonic", lambda: now_s)
    scores = RunScores()
    silences = []
    for text in (text_of(0, 0), text_of(0, 0), text_of(0, 1), text_of(0, 1, done=True), text_of(1, 0)):
        now_s += 2.0
        scores.read(text)
        silences.append(scores.silence_s)
    assert silences == [0.0, 2.0, 0.0, 2.0, 0.0]


@pytest.mark.parametrize(
    "change", [{"steps": None}, {"return": "much"}, {"run": []}, {"episode": "first"}, {"action_pairs": {}}]
)
def test_what_is_no_score_is_refused(change):
    with pytest.raises(ValueError, match="not the score of an episode"):
        RunScores().read(json.dumps({**json.loads(text_of(0, 1)), **change}))


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_a_text_without_the_parts_of_a_score_is_refused(text):
    with pytest.raises(ValueError, match=r"this is not the score|Expecting value|expected a JSON object"):
        RunScores().read(text)
