"""Fused forward passes give what the modules they were made of give."""

import pytest
import torch

from vjepa_planner.models.conditioning import Conditioning, ConditioningConfig
from vjepa_planner.models.dynamics import RESBLOCK, Dynamics, DynamicsConfig
from vjepa_planner.models.fused import FusedDynamics, FusedHeads, FusedPolicy
from vjepa_planner.models.policy import Policy, PolicyConfig
from vjepa_planner.models.reward import RewardConfig, RewardModel

CONDITIONING = ConditioningConfig(latent_dim=8, latent_rows=(0, 1, 2), size=5, joint_state=True)
EQUAL = {"rtol": 1e-4, "atol": 1e-5}


def scrambled(module):
    """Return `module` with every parameter and buffer drawn anew, so that none is a neutral 0 or 1."""
    torch.manual_seed(0)
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data.uniform_(0.2, 0.9)
        tensor.data.mul_(torch.randint(2, tensor.shape) * 2 - 1 if tensor.dim() > 1 else 1)
    return module.eval().requires_grad_(False)


@pytest.mark.parametrize("of_all", [True, False], ids=["each-its-own", "all-the-same"])
@pytest.mark.parametrize(
    "config",
    [
        DynamicsConfig(hidden=16, layers=2, members=3, action_repeat=4),
        DynamicsConfig(hidden=16, layers=1, members=1, residual=False),
        DynamicsConfig(hidden=16, layers=3, members=2, history=3),
        DynamicsConfig(RESBLOCK, hidden=16, layers=2, members=2, action_repeat=2, dropout=0.1),
    ],
    ids=["ensemble", "direct", "history", RESBLOCK],
)
def test_imagined_states_are_those_of_the_model(config, of_all):
    model = scrambled(Dynamics(config, CONDITIONING))
    history = torch.randn(config.history, CONDITIONING.state_size)
    actions = torch.rand(config.members if of_all else 1, 7, 4, 2) * 2 - 1
    states = FusedDynamics(model).unroll(history, actions)
    held = actions[:, :, :, None].expand(-1, -1, -1, config.action_repeat, -1)
    expected = model.unroll(history.expand(1, 7, -1, -1), held)
    assert states.shape == (5, config.members, 7, CONDITIONING.state_size)
    torch.testing.assert_close(states[1:].movedim(0, 2), expected, **EQUAL)
    assert torch.equal(states[0], history[-1].expand_as(states[0]))


def test_rewards_and_distances_are_those_of_the_heads():
    model = scrambled(RewardModel(RewardConfig(state_size=11, action_values=6, hidden=16, distance=True)))
    states, actions = torch.randn(9, 11), torch.rand(9, 2) * 2 - 1
    heads = FusedHeads(model, joints=2)
    held = actions[:, None].expand(-1, 3, -1)
    torch.testing.assert_close(heads.reward(states, actions), model.reward(states, held), **EQUAL)
    assert torch.equal(heads.distance(states), model.distance(states))


@pytest.mark.parametrize("bottleneck", [6, 0])
@pytest.mark.parametrize("joint_state", [True, False])
def test_a_policy_acts_in_a_state_as_on_the_observation_it_stands_for(bottleneck, joint_state):
    conditioning = scrambled(Conditioning(CONDITIONING))
    config = PolicyConfig(
        latent_dim=8, latent_rows=(2, 0), joint_state=joint_state, hidden=(16, 16), bottleneck=bottleneck
    )
    policy = scrambled(Policy(config))
    policy.layers[-2].weight.mul_(0.02)  # Else tanh says 1 whatever it is given.
    fused = FusedPolicy(policy, conditioning)
    actions = []
    for state in torch.randn(5, CONDITIONING.state_size):  # Sine and cosine off the circle, as models predict them.
        actions.append(policy(policy.inputs(*conditioning.invert(state))))
        torch.testing.assert_close(fused(state), actions[-1], **EQUAL)
    assert torch.stack(actions).std(0).min() > 1e-3, "or a constant would pass"
