"""Forward passes of trained networks in as few operations as they take, equal to the modules' to rounding.

A search imagines thousands of small steps a plan, where an operation's own cost is as large as its arithmetic. So what
is alike in all of them is multiplied out when the networks are loaded: an action held over a prediction takes one row
of weights for each joint, the scale of a change is part of the last layer, and a cloned policy reads a state without
the way back to the latent.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from vjepa_planner.models.conditioning import Conditioning
from vjepa_planner.models.dynamics import MLP, Dynamics, EnsembleLinear, EnsembleNorm
from vjepa_planner.models.policy import Policy
from vjepa_planner.models.reward import RewardModel


class FusedDynamics:
    """What `Dynamics.unroll` gives of one state, for actions each held over a whole prediction."""

    def __init__(self, model: Dynamics):
        """Take the weights of `model`, in evaluation mode."""
        config = model.config
        self._model = model
        self._fused = config.architecture == MLP and config.history == 1
        if not self._fused:
            return
        linears = [layer for layer in model.layers if isinstance(layer, EnsembleLinear)]
        norms = [layer for layer in model.layers if isinstance(layer, EnsembleNorm)]
        size, joints = model.conditioning.config.state_size, model.conditioning.config.joints
        first, last = linears[0], linears[-1]
        self._of_state = first.weight[:, :size].contiguous()
        self._of_action = first.weight[:, size:].unflatten(1, (config.action_repeat, joints)).sum(1)
        self._bias = first.bias
        weights = [linear.weight for linear in linears[1:-1]] + [last.weight * model.delta_scale]
        biases = [linear.bias for linear in linears[1:-1]] + [last.bias * model.delta_scale]
        self._layers = [(norm.weight, norm.bias, *layer) for norm, *layer in zip(norms, weights, biases, strict=True)]

    def unroll(self, history: Tensor, actions: Tensor) -> Tensor:
        """Return the states (H + 1, members, B, S): the present one, then those that follow.

        Args:
            history: (history, S), the present state last.
            actions: (members or 1, B, H, n) in [-1, 1].
        """
        config = self._model.config
        batch, horizon = actions.shape[1:3]
        states = history.new_empty(horizon + 1, config.members, batch, history.shape[-1])
        states[0] = history[-1]
        if not self._fused:
            held = actions[:, :, :, None].expand(-1, -1, -1, config.action_repeat, -1)
            states[1:] = self._model.unroll(history.expand(1, batch, -1, -1), held).movedim(2, 0)
            return states
        in_time = actions.transpose(1, 2).flatten(1, 2).expand(config.members, -1, -1)
        pushed = torch.baddbmm(self._bias, in_time, self._of_action).unflatten(1, (horizon, batch))
        for step in range(horizon):
            x = torch.baddbmm(pushed[:, step], states[step], self._of_state)
            for gain, offset, weight, bias in self._layers:
                x = torch.addcmul(offset, functional.layer_norm(x, x.shape[-1:]), gain).relu_()
                x = torch.baddbmm(bias, x, weight)
            if config.residual:
                x += states[step]
            states[step + 1] = x
        return states


class FusedHeads:
    """What `RewardModel` gives, for actions each held over a whole prediction."""

    def __init__(self, model: RewardModel, joints: int):
        """Take the weights of `model`, in evaluation mode, for an arm of so many joints."""
        first, self._rest = cast(nn.Linear, model.reward_head[0]), model.reward_head[1:]
        size = model.config.state_size
        self._of_state = first.weight[:, :size].T.contiguous()
        self._of_action = first.weight[:, size:].unflatten(1, (-1, joints)).sum(1).T.contiguous()
        self._bias = first.bias
        self.distance = model.distance
        """As `RewardModel.distance`."""

    def reward(self, state: Tensor, action: Tensor) -> Tensor:
        """Return what `RewardModel.reward` does, (B,), of states (B, S) and actions (B, n)."""
        x = torch.addmm(torch.addmm(self._bias, action, self._of_action), state, self._of_state)
        return self._rest(x).squeeze(-1).sigmoid()


class FusedPolicy:
    """What a cloned policy does in a state, which `Conditioning.invert` says what observation belongs to."""

    def __init__(self, policy: Policy, conditioning: Conditioning):
        """Take the weights of both, in evaluation mode."""
        self._policy, self._conditioning = policy, conditioning
        config = policy.config
        self._fused = bool(config.bottleneck and conditioning.config.size)
        if not self._fused:
            return
        size, rows = config.latent_size, list(config.latent_rows)
        narrow = policy.narrow.weight / policy.input_std[:size]

        def read(latent: Tensor) -> Tensor:
            return latent.unflatten(-1, (-1, config.latent_dim))[..., rows, :].flatten(-2)

        mean = (read(conditioning.mean) - policy.input_mean[:size]) @ narrow.T + policy.narrow.bias
        first, self._rest, bottleneck = cast(nn.Linear, policy.layers[0]), policy.layers[1:], config.bottleneck
        of_latent, of_joints = first.weight[:, :bottleneck], first.weight[:, bottleneck:]
        self._of_state = of_latent @ narrow @ read(conditioning.unproject).T
        self._bias = mean @ of_latent.T + first.bias
        if config.joint_state:
            n = config.action_size
            angles, velocities = of_joints.split([2 * n, n], dim=1)
            scaled = velocities * (conditioning.velocity_scale / policy.input_std[-n:])
            self._of_state = torch.cat([self._of_state, angles, scaled], dim=1)
            self._bias = self._bias - velocities @ (policy.input_mean[-n:] / policy.input_std[-n:])

    def __call__(self, state: Tensor) -> Tensor:
        """Return the action (n,) in [-1, 1] in the state (S,)."""
        policy, conditioning = self._policy, self._conditioning
        if not self._fused:
            latent, position, velocity = conditioning.invert(state)
            return policy(policy.inputs(latent, position, velocity))
        if policy.config.joint_state:
            part, joints = conditioning.config.latent_part, policy.config.action_size
            latent, angles, velocity = state.split([part, 2 * joints, joints])
            angles = functional.normalize(angles.unflatten(0, (2, joints)), dim=0).flatten()
            state = torch.cat([latent, angles, velocity])
        else:
            state = state[: conditioning.config.latent_part]
        return self._rest(torch.addmv(self._bias, self._of_state, state)) * policy.action_scale
