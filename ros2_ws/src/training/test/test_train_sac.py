"""Soft actor-critic in the simulator: it learns a bundle that plans, a kill costs little, misfits are refused."""

import dataclasses

import numpy as np
import pytest
import torch

from sim_bridge.env import SimConfig
from vjepa_interfaces.errors import VjepaError
from vjepa_perception.encoder import EncoderConfig, load_encoder
from vjepa_planner.models.actor import load_actor
from vjepa_planner.models.dynamics import load_dynamics
from vjepa_training.evaluation.rollout import RolloutConfig, rollout
from vjepa_training.trainers import train_sac as module
from vjepa_training.trainers.configs import Job
from vjepa_training.trainers.train_dynamics import DynamicsTraining, train_dynamics
from vjepa_training.trainers.train_sac import SacTraining, train_sac

SIM = SimConfig(image_size=(32, 32))
QUICK = SacTraining(
    steps=240,
    episode_steps=10,
    envs=4,
    action_repeat=2,
    random_steps=40,
    updates=0.5,
    batch_size=16,
    hidden=32,
    checkpoint_every=40,
)


@pytest.fixture(scope="module")
def encoder(tiny_encoder):
    return load_encoder(EncoderConfig(str(tiny_encoder), "cpu", clip_frames=4, grid=2))


@pytest.fixture(scope="module")
def dynamics(small_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dynamics")
    training = DynamicsTraining(members=1, action_repeat=1, horizon=1, components=8, epochs=1, batch_size=64)
    train_dynamics(small_data, training, Job(folder / "dynamics", folder / "work", "x"))
    return folder / "dynamics"


def trained(encoder, dynamics, folder, training=QUICK, **more):
    return train_sac(encoder, SIM, dynamics, training, Job(folder / "out", folder / "work", "the command", **more))


def killed_at(step):
    def on_step(done, steps, figures):
        if done >= step:
            raise KeyboardInterrupt

    return on_step


@pytest.fixture(scope="module")
def finished(encoder, dynamics, tmp_path_factory):
    """The folder of a finished training, its facts, and what Stable-Baselines3 trained."""
    folder, kept, export = tmp_path_factory.mktemp("finished"), [], module.exported
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "exported", lambda sac, *rest: kept.append(sac) or export(sac, *rest))
        facts = trained(encoder, dynamics, folder)
    return folder, facts, kept[0]


def test_what_it_trains_is_a_bundle_that_plans(encoder, finished):
    folder, facts, _ = finished
    sim = dataclasses.replace(SIM, episode_steps=5)
    config = RolloutConfig("sac", sim, options={"bundle": str(folder / "out")}, episodes=1)
    (episode,), _ = rollout(config, encoder)
    assert episode.steps == 5
    assert load_actor(folder / "out")[1].control_periods_s == (0.02,)
    assert "the command" in (folder / "out" / "MODEL_CARD.md").read_text()
    assert [step for step, _ in facts["curve"]["return"]] == [40, 80, 120, 160, 200, 240]
    assert facts["figures"]["return"] == facts["curve"]["return"][-1][1]


def test_the_bundle_acts_as_stable_baselines_does_without_noise(dynamics, finished):
    folder, _, sac = finished
    actor, _ = load_actor(folder / "out")
    states = np.random.default_rng(0).normal(size=(200, actor.conditioning.config.state_size)).astype(np.float32)
    expected, _ = sac.predict(states, deterministic=True)
    np.testing.assert_allclose(actor(torch.from_numpy(states)), expected, rtol=0, atol=1e-5)
    assert expected.std() > 0.01
    conditioning = load_dynamics(dynamics)[0].conditioning.state_dict()
    assert all(torch.equal(value, conditioning[name]) for name, value in actor.conditioning.state_dict().items())


def test_learning_changes_the_actor_and_no_learning_does_not(encoder, dynamics, finished, tmp_path):
    def weights(folder):
        return load_actor(folder / "out")[0].layers[0].weight

    for name, random_steps in (("a", 40), ("b", 60)):
        trained(encoder, dynamics, tmp_path / name, dataclasses.replace(QUICK, steps=40, random_steps=random_steps))
    assert torch.equal(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not torch.equal(weights(tmp_path / "a"), weights(finished[0]))


@pytest.mark.slow
def test_killed_it_goes_on_with_what_it_had_learned_and_seen(encoder, dynamics, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        trained(encoder, dynamics, tmp_path, on_step=killed_at(160))
    saved = torch.load(tmp_path / "work" / "checkpoint.pt", weights_only=True)
    reported = []
    facts = trained(encoder, dynamics, tmp_path, on_step=lambda done, steps, figures: reported.append(done))
    finished = torch.load(tmp_path / "work" / "checkpoint.pt", weights_only=True)
    assert saved["step"] == 120
    assert reported == [120, 160, 200, 240], "where it goes on, then each report"
    assert [step for step, _ in facts["curve"]["return"]] == [40, 80, 120, 160, 200, 240]
    assert torch.equal(finished["replay"]["observations"][:15], saved["replay"]["observations"])
    assert len(finished["replay"]["observations"]) == 30
    learned = [state["networks"]["actor.optimizer"]["state"][0]["step"] for state in (saved, finished)]
    assert learned == [2 * (15 - 5), 2 * (30 - 5)]


@pytest.mark.slow
def test_no_episode_is_run_twice(encoder, dynamics, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        trained(encoder, dynamics, tmp_path, on_step=killed_at(160))
    trained(encoder, dynamics, tmp_path)
    replay = torch.load(tmp_path / "work" / "checkpoint.pt", weights_only=True)["replay"]
    starts = replay["observations"][::5].flatten(0, 1)
    assert len(starts) == 24
    assert len(torch.unique(starts, dim=0)) == 24


@pytest.mark.slow
def test_a_finished_run_only_writes_its_bundle_anew(encoder, dynamics, tmp_path):
    facts = trained(encoder, dynamics, tmp_path)
    weights = (tmp_path / "out" / "model.safetensors").read_bytes()
    again = trained(encoder, dynamics, tmp_path, on_step=killed_at(0))
    assert again["curve"] == facts["curve"]
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == weights


def test_what_does_not_fit_together_is_refused(tiny_encoder, encoder, dynamics, tmp_path):
    other = load_encoder(EncoderConfig(str(tiny_encoder), "cpu", clip_frames=4, grid=1))
    with pytest.raises(VjepaError, match=rf"of encoder tiny \({encoder.fingerprint}\), but these come from tiny"):
        trained(other, dynamics, tmp_path)
    trained(encoder, dynamics, tmp_path, dataclasses.replace(QUICK, steps=40))
    with pytest.raises(VjepaError, match="is from a run with other steps; give another --work folder"):
        trained(encoder, dynamics, tmp_path)
    with pytest.raises(VjepaError, match="envs is 0; expected at least 1"):
        SacTraining(envs=0)
    with pytest.raises(VjepaError, match=r"updates is 0.1 with 4 environments; expected at least 1 for all"):
        SacTraining(envs=4, updates=0.1)
    with pytest.raises(VjepaError, match="seed is 6001; expected at least 0 and at most 6000"):
        SacTraining(seed=6001)
