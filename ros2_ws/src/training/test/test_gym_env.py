"""The simulation as a Gymnasium environment: it keeps to that interface, and shows just what planners see."""

import dataclasses

import gymnasium
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
from vjepa_training.envs.gym_env import ConditionedStates, ReacherLatents
from vjepa_training.envs.vec_env import SideBySide
from vjepa_training.evaluation.rollout import RolloutConfig, rollout

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


def starts(env: ReacherLatents, seed: int | None, episodes: int) -> list[tuple[float, ...]]:
    """Return where the joints begin in episodes of which the first one is seeded."""
    seeds = [seed] + [None] * (episodes - 1)
    return [tuple(env.reset(seed=each)[0]["joint_position"]) for each in seeds]


def test_a_seed_is_an_episode_and_decides_all_that_follow(env):
    first = starts(env, SIM.seed, 4)
    assert starts(env, SIM.seed, 4) == first
    with SimEnv(SIM) as simulation:
        assert tuple(simulation.reset(0).joint_position) == first[0]
    assert len(set(first)) == 4


def test_environments_side_by_side_never_repeat_each_other(encoder):
    """Gymnasium seeds environment i with seed + i, and later resets each without a seed."""
    made = [ReacherLatents(SIM, encoder) for _ in range(3)]
    seen = [start for i, each in enumerate(made) for start in starts(each, 40 + i, 5)]
    seen += [start for each in made for start in starts(each, None, 1)]
    unseeded = [ReacherLatents(SIM, encoder) for _ in range(2)]
    seen += [start for each in unseeded for start in starts(each, None, 2)]
    assert len(set(seen)) == len(seen) == 3 * 5 + 3 + 2 * 2
    for each in (*made, *unseeded):
        each.close()


def test_a_vectorised_environment_is_reproducible_and_repeats_no_start(encoder):
    environments = gymnasium.vector.SyncVectorEnv([lambda: ReacherLatents(SIM, encoder)] * 2)

    def run() -> list[np.ndarray]:
        observation, _ = environments.reset(seed=40)
        positions = [observation["joint_position"].copy()]
        for _ in range(2 * (SIM.episode_steps + 1)):
            observation, _, _, _, _ = environments.step(np.zeros((2, 2), np.float32))
            positions.append(observation["joint_position"].copy())
        return positions

    found = run()
    np.testing.assert_array_equal(found, run())
    begun = [tuple(position) for positions in found[:: SIM.episode_steps + 1] for position in positions]
    assert len(set(begun)) == len(begun) == 6
    environments.close()


def test_a_fork_after_the_encoder_was_loaded_is_refused_with_what_to_do(env, encoder):
    """By Gymnasium's own vectorised environment, whose default is to fork on Linux before Python 3.14."""
    environments = gymnasium.vector.AsyncVectorEnv([lambda: ReacherLatents(SIM, encoder)], context="fork")
    try:
        with pytest.raises(VjepaError, match=r"was forked .* used .* already.*spawn.*forkserver.*SyncVectorEnv"):
            environments.reset(seed=0)
    finally:
        environments.close(terminate=True)


@pytest.mark.slow
@pytest.mark.parametrize("context", ["spawn", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_processes_that_are_not_forked_from_this_one_see_what_this_one_sees(env, tiny_encoder, context):
    path = str(tiny_encoder)

    def make() -> ReacherLatents:
        return ReacherLatents(SIM, load_encoder(EncoderConfig(path, "cpu", clip_frames=4, grid=2, threads=1)))

    environments = gymnasium.vector.AsyncVectorEnv([make], context=context)
    try:
        found, _ = environments.reset(seed=5)
        expected, _ = env.reset(seed=5)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name][0], value, rtol=0, atol=1e-5)
    finally:
        environments.close()


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
    with pytest.raises(VjepaError, match=r"seed is -1; expected 0 to"):
        env.begin(-1)
    env.reset(seed=0)
    with pytest.raises(VjepaError, match="not finite"):
        env.step(np.array([np.nan, 0.0]))
    with pytest.raises(
        VjepaError, match="for an arm of 3 joints, but this arm has 2; give a dynamics model of this arm"
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
