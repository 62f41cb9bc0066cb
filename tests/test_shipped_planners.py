"""The planners that ship, with the weights that ship, in the graph: each drives, and a search reaches the target."""

import json

import numpy as np
import pytest

from vjepa_interfaces import topics

LEARNED = ("bc", "cem", "mppi", "shooting", "dreamer", "sac")


def test_every_learned_planner_drives_when_it_is_chosen(lockstep_stack):
    stack = lockstep_stack(planner="expert", light=False, episode_steps=1000)
    plans = stack.tap(topics.PLAN)

    def thoughts(name: str) -> list[dict]:
        return [thought for thought in (json.loads(m.data) for m in plans.messages) if thought["planner"] == name]

    stack.wait_for_steps(5)
    for name in LEARNED:
        result = stack.set_planner(name)
        assert result.successful, result.reason
        stack.wait_for(lambda name=name: stack.driver == name, f"{name} to drive")
        stack.wait_for(lambda name=name: len(thoughts(name)) >= 10, f"ten plans of {name}")
    assert stack.monitor.value("vjepa_planner", "refused_latents") == 0
    assert stack.monitor.value("vjepa_planner", "fallbacks") == 0
    for name in LEARNED:
        own = thoughts(name)
        searches = name in ("cem", "mppi", "shooting")
        assert all((thought["iterations"] > 0) == searches for thought in own)
        assert all((thought["disagreement"] is not None) == searches for thought in own)
        assert 0 < np.median([thought["novelty"] for thought in own]) < 1, "it knows what it sees"


@pytest.mark.slow
def test_a_search_reaches_the_target_and_stays(lockstep_stack):
    """In most episodes: where the wrist stands at its limit, the model may imagine a way through."""
    stack = lockstep_stack(planner="cem", episodes=3, episode_steps=200)
    stack.wait_for(lambda: len(stack.scores.finished) == 3, "three episodes", 180.0)
    stack.wait_for_value("vjepa_planner", "commands", lambda count: count >= 600)
    assert sum(bool(episode.in_target_at_end) for episode in stack.scores.finished) >= 2
    assert sum(episode.episode_return > 150 for episode in stack.scores.finished) >= 2
    assert stack.monitor.value("vjepa_planner", "fallbacks") == 0
