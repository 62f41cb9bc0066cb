"""Dynamics, conditioning, reward and distance heads: sizes, what an ensemble is, and what a bundle keeps."""

import json

import pytest
import torch

from vjepa_interfaces.bundle import BundleError
from vjepa_interfaces.errors import VjepaError
from vjepa_planner.models.actor import Actor, ActorConfig, TwinCritic, load_actor, save_actor, two_hot
from vjepa_planner.models.conditioning import Conditioning, ConditioningConfig
from vjepa_planner.models.dynamics import PRESETS, Dynamics, DynamicsConfig, load_dynamics, preset, save_dynamics
from vjepa_planner.models.reward import RewardConfig, RewardModel, load_reward, save_reward

OLD_STATE = ConditioningConfig(latent_dim=1024)
SMALL = ConditioningConfig(latent_dim=8, latent_rows=(0, 1, 2), size=5, joint_state=True)


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "count"),
    [("dynamics-mlp", 1_579_520), ("dynamics-mlp-direct", 1_579_520), ("dynamics-resblock", 10_516_480)],
)
def test_the_networks_of_earlier_work_have_its_number_of_parameters(name, count):
    assert parameters(Dynamics(PRESETS[name], OLD_STATE)) == count


def test_the_reward_head_of_earlier_work_has_its_number_of_parameters():
    assert parameters(RewardModel(RewardConfig())) == 329_985


def test_an_unknown_preset_is_refused_with_those_there_are():
    with pytest.raises(VjepaError, match="unknown dynamics 'nope'; valid are: dynamics-ensemble, dynamics-mlp"):
        preset("nope")


@pytest.mark.parametrize("architecture", ["dynamics-mlp", "dynamics-resblock"])
@pytest.mark.parametrize("residual", [True, False])
def test_an_ensemble_is_its_members_one_by_one(architecture, residual):
    torch.manual_seed(0)
    config = DynamicsConfig(architecture, hidden=16, layers=2, residual=residual, members=3, history=2, action_repeat=4)
    model = Dynamics(config, SMALL).eval()
    states, actions = torch.randn(3, 7, 2, SMALL.state_size), torch.rand(3, 7, 4, 2)
    together = model(states, actions)
    for k in range(3):
        one = Dynamics(preset("dynamics-mlp", **{**vars(config), "members": 1}), SMALL).eval()
        own = {
            name: value[k : k + 1] if name.startswith("layers") else value for name, value in model.state_dict().items()
        }
        one.load_state_dict(own)
        torch.testing.assert_close(one(states[k : k + 1], actions[k : k + 1]), together[k : k + 1])


def test_unrolled_each_member_goes_on_from_its_own_predictions():
    torch.manual_seed(0)
    model = Dynamics(DynamicsConfig(hidden=16, members=2, history=3), SMALL).eval()
    start, actions = torch.randn(1, 5, 3, SMALL.state_size), torch.rand(1, 5, 4, 1, 2)
    found = model.unroll(start, actions)
    assert found.shape == (2, 5, 4, SMALL.state_size)
    states = start.expand(2, -1, -1, -1)
    for step in range(4):
        following = model(states, actions[:, :, step])
        torch.testing.assert_close(found[:, :, step], following)
        states = torch.cat([states[:, :, 1:], following[:, :, None]], dim=2)


def test_disagreement_is_the_deviation_of_the_members_and_can_be_trained_against_where_they_agree():
    model = Dynamics(DynamicsConfig(hidden=8, layers=1, members=3), ConditioningConfig(latent_dim=4))
    model.delta_scale.copy_(torch.tensor([0.5, 1.0, 2.0, 4.0]))
    states = torch.randn(3, 5, 4)
    states[:, 0, 1] = 0.25
    states.requires_grad_()
    spread = model.spread(states)
    expected = (states / model.delta_scale).std(dim=0).mean(dim=-1)
    torch.testing.assert_close(spread, expected, rtol=1e-5, atol=1e-6)
    spread.sum().backward()
    assert torch.isfinite(states.grad).all()
    assert states.grad[:, 1:].abs().min() > 0


def test_a_residual_model_with_silent_layers_predicts_no_change():
    model = Dynamics(DynamicsConfig(hidden=16), SMALL).eval()
    for parameter in model.layers[-1].parameters():
        torch.nn.init.zeros_(parameter)
    state = torch.randn(1, 5, 1, SMALL.state_size)
    torch.testing.assert_close(model(state, torch.rand(1, 5, 1, 2)), state[:, :, 0])


def test_a_state_holds_projected_latent_and_joints_and_gives_them_back():
    torch.manual_seed(0)
    conditioning = Conditioning(ConditioningConfig(latent_dim=8, latent_rows=(0, 2), size=16, joint_state=True))
    basis = torch.linalg.qr(torch.randn(16, 16))[0]
    conditioning.mean.copy_(torch.randn(16))
    conditioning.project.copy_(basis)
    conditioning.unproject.copy_(basis.T)
    conditioning.velocity_scale.copy_(torch.tensor([2.0, 5.0]))
    latent, position, velocity = torch.randn(4, 3, 8), torch.rand(4, 2) * 6 - 3, torch.randn(4, 2)
    state = conditioning(latent, position, velocity)
    assert state.shape == (4, conditioning.config.state_size)
    torch.testing.assert_close(state[:, 16:18], position.sin())
    torch.testing.assert_close(state[:, 20:], velocity / torch.tensor([2.0, 5.0]))
    back = conditioning.invert(state)
    for found, expected in zip(back, (latent[:, [0, 2]], position, velocity), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("latent", "joints", "message"),
    [
        (torch.zeros(3, 9), True, "latent of 3 rows x 9; this model expects dimension 8"),
        (torch.zeros(2, 8), True, r"latent of 2 rows x 8; .* reads rows \[0, 1, 2\]"),
        (torch.zeros(3, 8), False, "joint positions and velocities, but they are missing"),
    ],
)
def test_what_makes_no_state_is_refused(latent, joints, message):
    given = (torch.zeros(2), torch.zeros(2)) if joints else ()
    with pytest.raises(VjepaError, match=message):
        Conditioning(SMALL)(latent, *given)


def test_a_dynamics_bundle_keeps_all_that_predictions_depend_on(tmp_path):
    torch.manual_seed(0)
    model = Dynamics(DynamicsConfig(hidden=16, members=2, history=2, action_repeat=3), SMALL).eval()
    for buffer in model.buffers():
        buffer.uniform_(0.5, 1.5)
    save_dynamics(tmp_path, model, "0123456789abcdef", "# card\n", {"dataset": []})
    found, bundle = load_dynamics(tmp_path)
    assert (found.config, found.conditioning.config) == (model.config, model.conditioning.config)
    states, actions = torch.randn(2, 5, 2, SMALL.state_size), torch.rand(2, 5, 4, 3, 2)
    assert torch.equal(found.unroll(states, actions), model.unroll(states, actions))
    latent, joints = torch.randn(3, 8), torch.randn(2)
    assert torch.equal(found.conditioning(latent, joints, joints), model.conditioning(latent, joints, joints))
    assert bundle.config["latent_rows"] == [0, 1, 2]
    assert bundle.config["kind"] == "dynamics"


def test_a_reward_bundle_keeps_its_heads(tmp_path):
    torch.manual_seed(0)
    model = RewardModel(RewardConfig(state_size=11, action_values=6, hidden=16, distance=True)).eval()
    facts = {"encoder_fingerprint": "0123456789abcdef", "dynamics_sha256": "ab"}
    save_reward(tmp_path, model, SMALL, facts, "# card\n")
    found, _ = load_reward(tmp_path)
    state, actions = torch.randn(4, 11), torch.rand(4, 3, 2)
    reward = found.reward(state, actions)
    assert torch.equal(reward, model.reward(state, actions))
    assert bool(((reward >= 0) & (reward <= 1)).all())
    assert torch.equal(found.distance(state), model.distance(state))
    assert found.distance(state).shape == (4,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "transformer"}, "'architecture' is 'transformer'; expected 'dynamics-mlp'"),
        ({"hidden": 0}, "'hidden' has 0"),
        ({"members": 10**9}, "'members' has 1000000000"),
        ({"dropout": "much"}, "'dropout' is 'much'"),
        ({"layers": 5}, "lacks tensors"),
        ({"hidden": 17}, r"tensor 'layers.0.weight' is F32 of shape \[1, 13, 16\]"),
        ({"conditioning": [1]}, "'conditioning' is"),
        ({"conditioning": {"size": 99, "latent_dim": 8}}, "'size' is 99; expected at most the latent's 8"),
    ],
)
def test_a_damaged_dynamics_bundle_is_refused_naming_what_is_wrong(tmp_path, change, message):
    save_dynamics(tmp_path, Dynamics(DynamicsConfig(hidden=16), SMALL), "0123456789abcdef", "# card\n")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(BundleError, match=message):
        load_dynamics(tmp_path)


def test_actor_and_critic_of_earlier_work_have_its_number_of_parameters():
    assert parameters(Actor(ActorConfig(), OLD_STATE)) == 329_220
    assert parameters(TwinCritic(1024)) == 656_898


def test_an_actor_s_density_is_that_of_its_actions():
    torch.manual_seed(0)
    actor = Actor(ActorConfig(hidden=8, action_size=1), ConditioningConfig(latent_dim=4))
    state = torch.randn(1, 4).expand(200_000, -1)
    with torch.inference_mode():
        actions, density = actor.sample(state)
    assert actions.abs().max() < 1
    order = actions.squeeze(-1).argsort()
    below = torch.cumulative_trapezoid(density[order].exp().double(), actions.squeeze(-1)[order].double())
    torch.testing.assert_close(below, torch.linspace(0, 1, len(below)).double(), rtol=0, atol=0.01)


def test_two_hot_values_are_what_was_put_in():
    critic = TwinCritic(4, bins=41)
    values = torch.tensor([-150.0, -3.2, 0.0, 0.01, 24.9])
    weights = two_hot(values, critic.bins)
    assert torch.equal((weights > 0).sum(-1) <= 2, torch.ones(5, dtype=torch.bool))
    logarithms = weights @ critic.bins
    torch.testing.assert_close(logarithms.sign() * logarithms.abs().expm1(), values, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("bins", [0, 41])
def test_a_critic_learns_the_values_it_is_given(bins):
    torch.manual_seed(0)
    critic = TwinCritic(2, hidden=32, bins=bins)
    optimiser = torch.optim.Adam(critic.parameters(), 3e-3)
    for _ in range(600):
        state = torch.rand(256, 2) * 2 - 1
        optimiser.zero_grad()
        critic.loss(state, 10 * state[:, 0]).backward()
        optimiser.step()
    state = torch.rand(256, 2) * 2 - 1
    assert critic(state).shape == (2, 256)
    assert (critic(state) - 10 * state[:, 0]).abs().mean() < 0.5


def test_an_actor_comes_back_from_its_bundle(tmp_path):
    actor = Actor(ActorConfig(hidden=16), SMALL)
    save_actor(tmp_path, actor, "an-encoder", "# Card")
    found, bundle = load_actor(tmp_path)
    state = torch.randn(3, SMALL.state_size)
    assert torch.equal(found(state), actor(state))
    assert bundle.config["latent_rows"] == [0, 1, 2]
    (tmp_path / "config.json").write_text(
        json.dumps(json.loads((tmp_path / "config.json").read_text()) | {"hidden": 17})
    )
    with pytest.raises(BundleError, match="as in the configuration"):
        load_actor(tmp_path)
