"""Goals are latents of frames that the expert reached elsewhere, and evaluations measure how near they come."""

from dataclasses import replace

import numpy as np
import pytest

from sim_bridge.env import SimConfig, SimEnv
from vjepa_interfaces.errors import VjepaError
from vjepa_perception.encoder import EncoderConfig, load_encoder
from vjepa_planner.contract import GOAL, Plan, Planner
from vjepa_planner.planners.expert import ExpertConfig, ExpertPlanner
from vjepa_training.data.dataset import LATENT, DatasetError
from vjepa_training.data.dataset_tools import reward_by_goal
from vjepa_training.evaluation import rollout as module
from vjepa_training.evaluation.goals import OTHER_SEED, goal_latent
from vjepa_training.evaluation.rollout import RolloutConfig, rollout
from vjepa_training.evaluation.score import PROTOCOLS, summarise

SIM = SimConfig(seed=60, image_size=(32, 32), episode_steps=40)


@pytest.fixture(scope="module")
def encoder(tiny_encoder):
    return load_encoder(EncoderConfig(str(tiny_encoder), "cpu", clip_frames=4, grid=2, threads=1))


class Seeker(Planner):
    """A planner for tests: keeps what it was given, and stands still."""

    needs = frozenset({GOAL})

    def __init__(self, context):
        super().__init__(None, context)
        self.seen = []

    def _act(self, observation, deadline_s):
        self.seen.append((observation.latent, observation.goal))
        return Plan(np.zeros(2))


@pytest.fixture
def roll_out(monkeypatch, encoder):
    """Return a function that rolls planners of the test's out and returns their scores, and the planners."""

    def run(make, **changes):
        made = []

        def load(name, options, context):
            made.append(make(context))
            return made[-1]

        monkeypatch.setattr(module, "load_planner", load)
        config = RolloutConfig("of_a_test", SIM, episodes=2, **changes)
        return rollout(config, encoder)[0], made

    return run


def expert(context):
    return ExpertPlanner(ExpertConfig(), context)


def test_the_same_target_is_reached_in_the_very_frame_in_which_the_expert_ends(roll_out):
    episodes, _ = roll_out(expert, goal="same")
    for episode in episodes:
        assert episode.goal_distances[-1] == pytest.approx(0.0, abs=1e-4)
        assert len(episode.goal_distances) == SIM.episode_steps + 1
    summary = summarise(episodes, PROTOCOLS["baseline"])
    assert min(summary["goal_distance"]["start"]) > 0.01
    assert summary["closer"] == pytest.approx(1.0, abs=1e-2)


def test_another_target_is_that_of_a_seed_far_away(encoder):
    same, other = (goal_latent(SIM, encoder, 1, goal) for goal in ("same", "other"))
    assert same.shape == other.shape == encoder.shape
    assert same.dtype == np.float32
    far = replace(SIM, seed=SIM.seed + OTHER_SEED)
    np.testing.assert_array_equal(other, goal_latent(far, encoder, 1, "same"))
    with SimEnv(SIM) as env, SimEnv(far) as far_env:
        assert np.linalg.norm(env.reset(1).target - far_env.reset(1).target) > 0.01


def test_a_planner_is_given_the_goal_of_its_episode_with_every_latent(roll_out, encoder):
    episodes, planners = roll_out(Seeker, goal="other", batch_size=2)
    assert [len(planner.seen) for planner in planners] == [SIM.episode_steps] * 2
    goals = [planner.seen[0][1] for planner in planners]
    expected = [goal_latent(SIM, encoder, number, "other") for number in range(2)]
    assert sorted(goal.tobytes() for goal in goals) == sorted(goal.tobytes() for goal in expected)
    assert not np.array_equal(*goals)
    for planner in planners:
        distances = [float(np.linalg.norm(latent[0] - goal[0])) for latent, goal in planner.seen]
        assert distances in [episode.goal_distances[:-1] for episode in episodes]


def test_a_planner_that_seeks_a_goal_is_refused_where_there_is_none(roll_out):
    with pytest.raises(VjepaError, match=r"'of_a_test' seeks a goal latent, and none is given; add --goal same or"):
        roll_out(Seeker)


def test_an_unknown_goal_is_refused_with_the_valid_ones():
    with pytest.raises(VjepaError, match="unknown goal 'nearer'; valid are: other, same"):
        RolloutConfig("random", SIM, goal="nearer")


@pytest.mark.slow
def test_a_goal_picture_gives_rewards_that_rise_to_one_at_the_goal(small_data, tmp_path):
    _, stop = small_data.episodes[3]
    goal = np.asarray(small_data[LATENT][int(stop) - 1])
    rewarded = reward_by_goal(small_data, tmp_path / "rewarded", goal, {"command": "vjepa dataset reward"})
    rewards, has_next = np.asarray(rewarded["next.reward"]), np.asarray(rewarded["has_next"])
    assert np.isnan(rewards[~has_next]).all()
    assert ((rewards[has_next] >= 0) & (rewards[has_next] <= 1)).all()
    assert rewards[stop - 2] == pytest.approx(1.0), "the step that leads to the goal"
    assert rewards[has_next].max() == rewards[stop - 2]
    assert 0.0 < rewards[has_next].mean() < 1.0
    for name in (LATENT, "action", "target"):
        assert np.array_equal(np.asarray(rewarded[name]), np.asarray(small_data[name]), equal_nan=True)
    assert rewarded.info.sources[-1]["command"] == "vjepa dataset reward"
    with pytest.raises(DatasetError, match="contains a dataset already"):
        reward_by_goal(small_data, tmp_path / "rewarded", goal, {})
    with pytest.raises(DatasetError, match="the goal latent has shape"):
        reward_by_goal(small_data, tmp_path / "other", goal[:1], {})
