"""The simulation as a Gymnasium environment: it keeps to that interface, and shows just what planners see."""

import dataclasses

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_for_stable_baselines

from sim_bridge.env import SimConfig, SimEnv
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.messages import LAST
from vjepa_perception.encoder import EncoderConfig, load_encoder
from vjepa_planner.contract import Observation, PlannerContext
from vjepa_planner.models.conditioning import Conditioning, ConditioningConfig
from vjepa_planner.registry import load_planner
from vjepa_training.gym_env import ConditionedStates, ReacherLatents
from vjepa_training.rollout import RolloutConfig, rollout
from vjepa_training.vec_env import SideBySide

SIM = SimConfig(episode_steps=6, image_size=(32, 32), seed=7)


@pytest.fixture(scope="module")
def encoder(tiny_encoder):
    return load_encoder(EncoderConfig(str(tiny_encoder), "cpu", clip_frames=4, grid=2))


@pytest.fixture(scope="module")
def conditioning():
    """One that projects the latents of `encoder` at random."""
    torch.manual_seed(0)
    made = Conditioning(ConditioningConfig(latent_dim=32, latent_rows=(0, 1, 4), size=5, joint_state=True))
    made.project.normal_()
    return made


@pytest.fixture
def env(encoder):
    made = ReacherLatents(SIM, encoder)
    yield made
    made.close()


def test_the_checkers_of_gymnasium_and_stable_baselines_pass(env, conditioning):
    check_env(env)
    check_env_for_stable_baselines(env)
    check_env_for_stable_baselines(ConditionedStates(env, conditioning))


def test_it_shows_what_an_evaluation_of_the_same_seed_and_actions_shows(env, encoder):
    seen: list[tuple] = []
    config = RolloutConfig("random", SIM, episodes=2)
    scores, _ = rollout(config, encoder, on_latent=lambda episode, step, latent: seen.append((episode, step, latent)))
    planner = load_planner("random", {}, PlannerContext(action_size=2, control_period_s=0.02))
    rows = iter(seen)
    for episode, score in enumerate(scores):
        planner.reset(SIM.seed + episode)
        observation, _ = env.reset(seed=SIM.seed + episode)
        over, earned = False, 0.0
        while not over:
            number, step, latent = next(rows)
            assert number == episode
            assert np.array_equal(observation["latent"], latent)
            assert np.array_equal(observation["joint_position"], step.joint_position)
            assert np.array_equal(observation["joint_velocity"], step.joint_velocity)
            action = planner.plan(Observation(step.stamp_ns, latent)).action
            observation, reward, _, over, _ = env.step(action)
            earned += reward
        assert earned == score.episode_return
    assert next(rows, None) is None


def test_a_seed_is_an_episode_and_the_next_reset_goes_on_from_there(env):
    first, _ = env.reset()
    again, _ = env.reset(seed=SIM.seed)
    assert np.array_equal(first["joint_position"], again["joint_position"])
    following, _ = env.reset()
    given, _ = env.reset(seed=SIM.seed + 1)
    assert np.array_equal(following["joint_position"], given["joint_position"])
    assert not np.array_equal(first["joint_position"], given["joint_position"])


def test_nothing_privileged_is_shown(env):
    observation, info = env.reset(seed=0)
    assert observation.keys() == {"latent", "joint_position", "joint_velocity"}
    assert info == {}
    assert env.step(np.zeros(2, np.float32))[4] == {}


def test_time_truncates_an_episode_and_the_task_terminates_it(env, monkeypatch):
    env.reset(seed=0)
    ends = [env.step(np.zeros(2))[2:4] for _ in range(SIM.episode_steps)]
    assert ends == [(False, False)] * (SIM.episode_steps - 1) + [(False, True)]
    with pytest.raises(VjepaError, match="is over; call reset"):
        env.step(np.zeros(2))
    env.reset()
    step = SimEnv.step
    over = {"step_type": LAST, "discount": 0.0}
    monkeypatch.setattr(SimEnv, "step", lambda self, effort: dataclasses.replace(step(self, effort), **over))
    assert env.step(np.zeros(2))[2:4] == (True, False)


def test_what_it_renders_is_the_frame_that_was_encoded(env, encoder):
    observation, _ = env.reset(seed=3)
    frame = env.render()
    assert frame.shape == (32, 32, 3)
    clip = [encoder.preprocess(frame)] * encoder.clip_frames
    assert np.array_equal(encoder.encode([clip])[0], observation["latent"])


def test_what_the_simulation_cannot_do_is_refused(env, encoder):
    with pytest.raises(VjepaError, match=r"seed is -1; the simulation takes 0 to"):
        env.begin(-1)
    env.reset(seed=0)
    with pytest.raises(VjepaError, match="not finite"):
        env.step(np.array([np.nan, 0.0]))
    with pytest.raises(
        VjepaError, match="of an arm of 3 joints, but this one has 2; give a dynamics model of this arm"
    ):
        ConditionedStates(env, Conditioning(ConditioningConfig(latent_dim=32, joints=3)))


@pytest.mark.parametrize("held", [(1, 1, 1, 1, 1, 1), (4, 2)])
def test_side_by_side_each_sees_what_it_would_see_alone(env, encoder, conditioning, held):
    """At other batch sizes the encoder sums in another order, hence not to the bit."""
    made = [ConditionedStates(ReacherLatents(SIM, encoder), conditioning) for _ in range(3)]
    several, alone = SideBySide(made, seed=40, action_repeat=held[0]), ConditionedStates(env, conditioning)
    found, states = [], several.reset()
    for action in np.random.default_rng(0).uniform(-1, 1, (2, len(held), 3, 2)).reshape(-1, 3, 2):
        found.append((states.copy(), action, *several.step(action)))
        states = found[-1][2]
    several.close()
    assert several.next_seed == 40 + 9
    for number in range(3):
        rows = iter(found)
        for part in range(2):
            state, _ = alone.reset(seed=40 + 3 * part + number)
            for steps in held:
                shown, action, following, rewards, ended, infos = next(rows)
                np.testing.assert_allclose(shown[number], state, rtol=0, atol=1e-4)
                outcomes = [alone.step(action[number]) for _ in range(steps)]
                state, over = outcomes[-1][0], outcomes[-1][3]
                assert rewards[number] == sum(outcome[1] for outcome in outcomes)
                assert ended[number] == infos[number]["TimeLimit.truncated"] == over
                last = infos[number]["terminal_observation"] if over else following[number]
                np.testing.assert_allclose(last, state, rtol=0, atol=1e-4)
            assert over
