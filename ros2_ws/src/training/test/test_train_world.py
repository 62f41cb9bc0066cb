"""Models of the world from a dataset: conditioning, transitions, dynamics and heads, and going on after a kill."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from vjepa_interfaces.errors import VjepaError
from vjepa_planner.models.conditioning import ConditioningConfig
from vjepa_planner.models.dynamics import PRESETS, RESBLOCK, Dynamics, DynamicsConfig, load_dynamics
from vjepa_planner.models.reward import load_reward
from vjepa_training.data.dataset import LATENT
from vjepa_training.data.transitions import Transitions, open_transitions
from vjepa_training.trainers.configs import BASELINE_DYNAMICS, DynamicsTraining, Job
from vjepa_training.trainers.fit_conditioning import fit_conditioning
from vjepa_training.trainers.train_dynamics import open_loop, train_dynamics
from vjepa_training.trainers.train_reward import RewardTraining, train_reward

ALL = ConditioningConfig(latent_dim=32, latent_rows=(0, 1, 2, 3, 4), size=12, joint_state=True)
QUICK = DynamicsTraining(members=2, action_repeat=2, horizon=2, components=12, epochs=8, batch_size=32)
EPISODES = np.arange(18)


@pytest.fixture(scope="module")
def dynamics(small_data, tmp_path_factory):
    """A quickly trained dynamics model: its folder, and what its trainer returned."""
    folder = tmp_path_factory.mktemp("dynamics")
    return folder / "out", train_dynamics(
        small_data, QUICK, Job(folder / "out", folder / "work", "vjepa train dynamics")
    )


# Conditioning.


@pytest.mark.parametrize("method", ["pca", "probe"])
def test_states_are_centred_of_variance_one_and_not_correlated(small_data, tmp_path, method):
    model = fit_conditioning(small_data, ALL, method, EPISODES, 0, tmp_path)
    rows = np.concatenate([np.arange(*small_data.episodes[episode]) for episode in EPISODES])
    names = (LATENT, "observation.joint_position", "observation.joint_velocity")
    states = model(*(torch.from_numpy(small_data[name][rows].astype(np.float32)) for name in names))
    latent, velocity = states[:, :12].double(), states[:, -2:]
    torch.testing.assert_close(latent.mean(0), torch.zeros(12).double(), rtol=0, atol=1e-2)
    torch.testing.assert_close(latent.T @ latent / len(rows), torch.eye(12).double(), rtol=0, atol=2e-2)
    torch.testing.assert_close(velocity.std(0), torch.ones(2), rtol=0.01, atol=0)


@pytest.mark.parametrize("method", ["pca", "probe"])
def test_the_way_back_is_nearer_to_the_latent_than_its_mean(small_data, tmp_path, method):
    model = fit_conditioning(small_data, ALL, method, EPISODES, 0, tmp_path)
    latent = torch.from_numpy(small_data[LATENT][:].astype(np.float32))
    joints = torch.zeros(len(latent), 2)
    back, _, _ = model.invert(model(latent, joints, joints))
    assert (back - latent).square().sum() < 0.7 * (latent - latent.mean(0)).square().sum()


def test_a_fitted_conditioning_is_kept_and_another_one_fitted_anew(small_data, tmp_path):
    first = fit_conditioning(small_data, ALL, "probe", EPISODES, 0, tmp_path)
    again = fit_conditioning(small_data, ALL, "probe", EPISODES, 0, tmp_path)
    other = fit_conditioning(small_data, ALL, "probe", EPISODES[:-1], 0, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert torch.equal(first.project, again.project)
    assert not torch.equal(first.project, other.project)


def test_an_unknown_method_is_refused(small_data, tmp_path):
    with pytest.raises(VjepaError, match="state_projection is 'magic'; expected probe or pca"):
        fit_conditioning(small_data, ALL, "magic", EPISODES, 0, tmp_path)


# Transitions.


def test_transitions_are_the_rows_of_the_dataset(small_data, tmp_path):
    model = fit_conditioning(small_data, ALL, "pca", EPISODES, 0, tmp_path)
    data = open_transitions(small_data, model, tmp_path)
    start, stop = small_data.episodes[3]
    actions = small_data["action"][start : stop - 1].astype(np.float32)
    np.testing.assert_array_equal(data.actions[start : stop - 1], actions)
    assert data.left[start:stop].tolist() == list(range(stop - start))[::-1]
    way = small_data["target"][start] - small_data["fingertip"][start]
    np.testing.assert_allclose(data.offsets[start], way[:2], atol=1e-6)
    states = np.asarray(open_transitions(small_data, model, tmp_path).states)
    np.testing.assert_array_equal(states, data.states)
    assert isinstance(data.states, np.memmap)


def test_runs_of_rows_do_not_cross_gaps_or_episodes():
    nothing = np.zeros((8, 2), np.float32)
    left = np.array([2, 1, 0, 1, 0, 2, 1, 0])  # Episode 0: 3 rows, a gap, 2 rows; episode 1: 3 rows.
    data = Transitions(nothing, nothing, nothing[:, 0], nothing, left, np.array([0, 0, 0, 0, 0, 1, 1, 1]))
    assert data.rows(np.array([0, 1]), 1, 1).tolist() == [0, 1, 3, 5, 6]
    assert data.rows(np.array([0, 1]), 1, 2).tolist() == [0, 5]
    assert data.rows(np.array([0, 1]), 2, 1).tolist() == [1, 6]
    assert data.rows(np.array([1]), 3, 0).tolist() == [7]
    assert data.rows(np.array([0, 1]), 3, 0).tolist() == [2, 7]


# Dynamics.


def test_it_predicts_better_than_that_nothing_changes(dynamics):
    _, facts = dynamics
    assert [entry["steps"] for entry in facts["open_loop"]] == [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]
    for entry in facts["open_loop"][:3]:
        assert entry["state"] < 0.9 * entry["no_change_state"]
    assert facts["curve"]["train"][-1][1] < facts["curve"]["train"][0][1]


def test_nothing_changes_is_what_a_silent_model_says(small_data, tmp_path):
    conditioning = fit_conditioning(small_data, ALL, "pca", EPISODES, 0, tmp_path)
    model = Dynamics(DynamicsConfig(hidden=16, action_repeat=5), ALL).eval()
    model.conditioning = conditioning
    torch.nn.init.zeros_(model.layers[-1].weight)
    torch.nn.init.zeros_(model.layers[-1].bias)
    entries = open_loop(model, open_transitions(small_data, conditioning, tmp_path), EPISODES, np.array([18, 19]))
    assert [entry["steps"] for entry in entries] == [5, 10, 15, 20]
    for entry in entries:
        assert entry["state"] == pytest.approx(entry["no_change_state"])
        assert entry["metres"] == pytest.approx(entry["no_change_metres"])


@pytest.mark.parametrize("dropout", [False, True])
def test_killed_and_gone_on_it_is_the_same_to_the_bit(small_data, tmp_path, dropout, monkeypatch):
    monkeypatch.setitem(PRESETS, "dynamics-resblock", DynamicsConfig(RESBLOCK, hidden=32, layers=2, dropout=0.1))
    training = dataclasses.replace(QUICK, epochs=2, checkpoint_every=5)
    if dropout:
        training = dataclasses.replace(training, preset="dynamics-resblock", members=1)

    def killed_at_13(step, steps, figures):
        if step > 10:
            raise KeyboardInterrupt

    def train(name, on_step=None):
        train_dynamics(small_data, training, Job(tmp_path / name, tmp_path / f"{name}.work", "x", on_step))
        return load_dynamics(tmp_path / name)[0].state_dict()

    whole = train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("killed", killed_at_13)
    assert not (tmp_path / "killed").exists()
    resumed = train("killed")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_run_with_other_settings_is_not_gone_on_with(small_data, tmp_path):
    train_dynamics(small_data, dataclasses.replace(QUICK, epochs=1), Job(tmp_path / "out", tmp_path / "work", "x"))
    with pytest.raises(VjepaError, match="from a run with other horizon"):
        train_dynamics(
            small_data, dataclasses.replace(QUICK, epochs=1, horizon=1), Job(tmp_path / "out", tmp_path / "work", "x")
        )


def test_the_old_settings_take_the_mean_row_as_it_is(small_data, tmp_path):
    training = dataclasses.replace(BASELINE_DYNAMICS, preset="dynamics-mlp", epochs=1)
    train_dynamics(small_data, training, Job(tmp_path / "out", tmp_path / "work", "x"))
    model, bundle = load_dynamics(tmp_path / "out")
    assert model.conditioning.config == ConditioningConfig(latent_dim=32, latent_rows=(0,))
    assert bundle.config["latent_rows"] == [0]
    assert bundle.control_periods_s == (0.02,)
    assert torch.equal(model.delta_scale, torch.ones(32))


def test_episodes_shorter_than_the_unrolled_loss_are_refused(small_data, tmp_path):
    training = dataclasses.replace(QUICK, action_repeat=8, horizon=3)
    with pytest.raises(VjepaError, match="too few episodes of more than 24 steps"):
        train_dynamics(small_data, training, Job(tmp_path / "out", tmp_path / "work", "x"))


def test_with_a_start_it_goes_on_in_the_same_states(small_data, dynamics, tmp_path):
    folder, facts = dynamics
    one_step = dataclasses.replace(QUICK, epochs=1, learning_rate=1e-6)
    again = train_dynamics(small_data, one_step, Job(tmp_path / "out", tmp_path / "work", "x"), start=folder)
    assert again["validation"] == pytest.approx(facts["validation"], rel=1e-2)
    first, second = (load_dynamics(path)[0].conditioning.state_dict() for path in (folder, tmp_path / "out"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = dataclasses.replace(one_step, members=3)
    with pytest.raises(VjepaError, match="a model of other sizes or states than this training's"):
        train_dynamics(small_data, other, Job(tmp_path / "other", tmp_path / "other.work", "x"), start=folder)


# Heads.


def test_heads_read_the_reward_and_the_distance_off_states(small_data, dynamics, tmp_path):
    folder, _ = dynamics
    training = RewardTraining(hidden=32, epochs=60, batch_size=64, noise=0.0)
    facts = train_reward(small_data, folder, training, Job(tmp_path / "out", tmp_path / "work", "vjepa train reward"))
    losses = [loss for _, loss in facts["curve"]["train"]]
    assert losses[-1] < 0.3 * losses[0], "on the few episodes that it sees; twenty targets are too few for others"
    assert {"loss", "reward_mse", "distance_rmse_m"} <= facts["figures"].keys()
    model, bundle = load_reward(tmp_path / "out")
    assert bundle.config["dynamics_sha256"] == json.loads((tmp_path / "out/config.json").read_text())["dynamics_sha256"]
    assert model.config.action_values == 4


def test_heads_with_a_start_go_on_from_it(small_data, dynamics, tmp_path):
    folder, _ = dynamics
    training = RewardTraining(hidden=32, epochs=20, batch_size=64, noise=0.0)
    first = train_reward(small_data, folder, training, Job(tmp_path / "out", tmp_path / "work", "x"))
    little = dataclasses.replace(training, epochs=1, learning_rate=1e-6)
    start = tmp_path / "out"
    second = train_reward(small_data, folder, little, Job(tmp_path / "more", tmp_path / "more.work", "x"), start=start)
    assert second["validation"] == pytest.approx(first["validation"], rel=1e-2)
    bigger = dataclasses.replace(training, hidden=64)
    with pytest.raises(VjepaError, match="heads of other sizes"):
        train_reward(small_data, folder, bigger, Job(tmp_path / "big", tmp_path / "big.work", "x"), start=start)


def test_heads_of_a_dynamics_model_of_another_encoder_are_refused(small_data, dynamics, tmp_path):
    folder, _ = dynamics
    config = json.loads((folder / "config.json").read_text()) | {"encoder_fingerprint": "0123456789abcdef"}
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps(config))
    (other / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(VjepaError, match=r"of encoder tiny \(0123456789abcdef\), but these come from tiny \("):
        train_reward(small_data, other, RewardTraining(), Job(tmp_path / "out", tmp_path / "work", "x"))
