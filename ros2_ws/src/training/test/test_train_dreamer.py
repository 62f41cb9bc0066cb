"""Training an actor in imagination: it gets better there, goes on after a kill, and says what does not fit together."""

import dataclasses

import numpy as np
import pytest
import torch

from vjepa_interfaces.bundle import read_bundle
from vjepa_interfaces.errors import VjepaError
from vjepa_planner.models.actor import load_actor
from vjepa_planner.models.dynamics import load_dynamics
from vjepa_planner.models.novelty import load_novelty
from vjepa_planner.models.policy import load_policy
from vjepa_training.data.dataset import LATENT
from vjepa_training.trainers.configs import DreamerTraining, Job, dreamer_preset
from vjepa_training.trainers.train_bc import BcTraining, labelled_frames, train_bc, write_policy
from vjepa_training.trainers.train_dreamer import train_dreamer
from vjepa_training.trainers.train_dynamics import DynamicsTraining, train_dynamics
from vjepa_training.trainers.train_reward import RewardTraining, train_reward

QUICK = DreamerTraining(
    horizon=3, imagined_rollouts=32, steps=60, cloning_steps=0, cloning_weight=0.0, checkpoint_every=10
)


@pytest.fixture(scope="module")
def world(small_data, tmp_path_factory):
    """Quickly trained dynamics, heads and a cloned policy: their folders by the names that `train_dreamer` has."""
    folder = tmp_path_factory.mktemp("world")
    dynamics = DynamicsTraining(members=2, action_repeat=2, horizon=2, components=12, epochs=8, batch_size=32)
    train_dynamics(small_data, dynamics, Job(folder / "dynamics", folder / "work", "x"))
    heads = RewardTraining(hidden=32, epochs=20, batch_size=64)
    train_reward(small_data, folder / "dynamics", heads, Job(folder / "reward", folder / "work.reward", "x"))
    cloning = BcTraining(epochs=3, bottleneck=8, hidden=(32, 32))
    outcome = train_bc(labelled_frames(small_data, cloning), cloning)
    write_policy(folder / "policy", outcome, cloning, [small_data], "x")
    return {name: folder / name for name in ("dynamics", "reward", "policy")}


def trained(small_data, world, tmp_path, training, name="out", on_step=None, **more):
    parts = {"dynamics": world["dynamics"], "reward": world["reward"], **more}
    job = Job(tmp_path / name, tmp_path / "w", "x", on_step)
    facts = train_dreamer(small_data, training=training, job=job, **parts)
    return load_actor(tmp_path / name)[0], facts


def states_of(small_data, actor, rows):
    names = (LATENT, "observation.joint_position", "observation.joint_velocity")
    return actor.conditioning(*(torch.from_numpy(small_data[name][rows].astype(np.float32)) for name in names))


@pytest.mark.slow
def test_dreams_become_better(small_data, world, tmp_path):
    _, facts = trained(small_data, world, tmp_path, QUICK)
    losses = [loss for _, loss in facts["curve"]["validation"]]
    assert losses[-1] < losses[0]
    assert facts["validation"] == losses[-1]


def test_the_actor_knows_the_latents_that_its_dynamics_was_trained_on(small_data, world, tmp_path):
    trained(small_data, world, tmp_path, QUICK)
    latents = np.asarray(small_data[LATENT], np.float32)
    shape = latents.shape[1:]
    found = [
        load_novelty(read_bundle(folder), tuple(range(shape[0])), shape[1])
        for folder in (world["dynamics"], tmp_path / "out")
    ]
    known = [novelty.of(latents) for novelty in found if novelty is not None]
    assert len(known) == 2
    assert np.array_equal(*known)
    assert np.mean(known[0] > 1) < 0.1
    assert np.median(known[0]) < 1 < np.median(found[0].of(latents + latents.std()))


def test_the_actor_reads_the_states_of_its_dynamics(small_data, world, tmp_path):
    actor, _ = trained(small_data, world, tmp_path, QUICK)
    assert load_actor(tmp_path / "out")[1].control_periods_s == (0.02,)
    conditioning = load_dynamics(world["dynamics"])[0].conditioning
    for name, value in conditioning.state_dict().items():
        assert torch.equal(actor.conditioning.state_dict()[name], value)


@pytest.mark.slow
def test_it_starts_from_the_policy_and_stays_near_it(small_data, world, tmp_path):
    training = dataclasses.replace(QUICK, steps=200, cloning_steps=200, learning_rate=2e-3)
    actor, facts = trained(small_data, world, tmp_path, training, prior=world["policy"])
    from vjepa_interfaces.bundle import read_bundle

    policy = load_policy(read_bundle(world["policy"], "policy"))
    rows = np.arange(100)
    names = (LATENT, "observation.joint_position", "observation.joint_velocity")
    inputs = policy.inputs(*(torch.from_numpy(small_data[name][rows].astype(np.float32)) for name in names))
    with torch.inference_mode():
        wanted, found = policy(inputs), actor(states_of(small_data, actor, rows))
    assert (found - wanted).square().mean() < 0.3 * wanted.var(0).mean()
    assert facts["figures"]["from_policy"] < 1


def test_with_a_start_it_goes_on_from_that_actor(small_data, world, tmp_path):
    first, _ = trained(small_data, world, tmp_path, QUICK)
    one_step = dataclasses.replace(QUICK, steps=1, learning_rate=1e-5)
    second, _ = trained(small_data, world, tmp_path / "more", one_step, start=tmp_path / "out")
    state = states_of(small_data, first, np.arange(50))
    torch.testing.assert_close(second(state), first(state), rtol=0, atol=1e-2)


@pytest.mark.parametrize("name", ["baseline-dreamer", "dreamer-hybrid"])
def test_the_settings_of_earlier_work_train(small_data, world, tmp_path, name):
    training = dataclasses.replace(dreamer_preset(name), steps=3)
    assert (training.horizon, training.imagined_rollouts, training.discount, training.lambda_) == (15, 64, 0.99, 0.95)
    _, facts = trained(small_data, world, tmp_path, training)
    assert np.isfinite(facts["validation"])


@pytest.mark.slow
def test_killed_and_gone_on_it_is_the_same_to_the_bit(small_data, world, tmp_path):
    def killed_at_35(step, steps, figures):
        if step >= 35:
            raise KeyboardInterrupt

    whole, _ = trained(small_data, world, tmp_path / "whole", QUICK)
    with pytest.raises(KeyboardInterrupt):
        trained(small_data, world, tmp_path / "killed", QUICK, on_step=killed_at_35)
    resumed, _ = trained(small_data, world, tmp_path / "killed", QUICK)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_a_price_on_disagreement_is_paid(small_data, world, tmp_path):
    free, _ = trained(small_data, world, tmp_path / "free", dataclasses.replace(QUICK, disagreement_weight=0.0))
    careful, _ = trained(small_data, world, tmp_path / "dear", dataclasses.replace(QUICK, disagreement_weight=20.0))
    model, _ = load_dynamics(world["dynamics"])
    state = states_of(small_data, free, np.arange(200))

    def spread(actor):
        actions = actor(state)[None, :, None].expand(-1, -1, model.config.action_repeat, -1)
        return float(model.spread(model(state[None, :, None], actions)).mean())

    assert spread(careful) < spread(free)


def test_what_does_not_fit_together_is_refused(small_data, world, tmp_path):
    with pytest.raises(VjepaError, match="needs heads; give them with --reward"):
        trained(small_data, world, tmp_path, QUICK, reward="")
    with pytest.raises(VjepaError, match="unknown preset 'nope'; valid are: baseline-dreamer, dreamer, dreamer-hybrid"):
        dreamer_preset("nope")
    with pytest.raises(VjepaError, match="horizon is 0; expected at least 1"):
        dataclasses.replace(dreamer_preset("dreamer"), horizon=0)
