"""Scores of a running stack, which its simulation keeps: complete for whoever joins, and credited to who drove."""

import json
from itertools import pairwise

import pytest
from std_srvs.srv import Trigger

from sim_bridge.score import RunScores
from vjepa_bringup.monitor import Monitor
from vjepa_interfaces import topics

SWAP_STEPS = 15
"""Control steps in 0.3 s: the time between two messages about an episode, and what a busy machine may add."""


def test_a_monitor_that_joins_late_sees_the_episodes_that_have_ended(lockstep_stack):
    stack = lockstep_stack(planner="expert", episodes=3, episode_steps=20, seed=100)
    stack.wait_finished()
    stack.wait_for_episodes(3)
    scores = RunScores()
    with Monitor(stack.domain, scores=scores) as late:
        assert late.wait_until(lambda: len(scores.finished) == 3, 20.0)
        assert late.by_planner() == {}, "it saw nobody drive"
    assert scores.finished == stack.scores.finished
    assert [episode.steps for episode in scores.finished] == [20] * 3
    assert stack.monitor.by_planner()["expert"]["steps"] == 60


def test_an_episode_that_is_cut_short_is_not_finished_and_the_next_one_is_scored(lockstep_stack):
    stack = lockstep_stack(planner="expert", episodes=2, episode_steps=1000, seed=100)
    stack.wait_for_steps(5)
    assert stack.call(Trigger, "sim_bridge/reset", Trigger.Request()).success
    stack.wait_for(lambda: stack.scores.begun == 2, "the next episode")
    assert not stack.scores.finished
    stack.wait_for(lambda: stack.scores.episodes[1].steps > 5, "its steps")


@pytest.mark.real_time
def test_each_planner_is_credited_with_the_steps_that_it_drove(start_stack):
    stack = start_stack(planner="random", episodes=1, episode_steps=200)
    plans = stack.tap(topics.PLAN)
    stack.wait_for_steps(60)
    assert stack.set_planner("expert").successful
    stack.wait_for_episodes(1)
    drivers = {plan["stamp"]: plan["planner"] for plan in (json.loads(message.data) for message in plans.messages)}
    swapped_ns = next(now for before, now in pairwise(sorted(drivers)) if drivers[before] != drivers[now])
    steps = {name: found["steps"] for name, found in stack.monitor.by_planner().items()}
    assert sum(steps.values()) == 200
    assert steps["random"] == pytest.approx((swapped_ns - 1_000_000_000) / 20_000_000, abs=SWAP_STEPS)
