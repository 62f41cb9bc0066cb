"""Forward passes of trained networks in few operations, equal to the modules' to rounding.

A search imagines thousands of small steps for each plan, where the overhead of an operation is as large as its
arithmetic. So the constructors multiply out the constant parts. An action that is held over a prediction takes one row
of weights for each joint. The scale of a change is part of the last layer. A cloned policy reads a state directly, not
the latent.
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
    """Computes `Dynamics.unroll` from one state, for actions that are each held over a whole prediction."""

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
        """Return the states (H + 1, members, B, S): the present one, then the predictions.

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
    """Computes `RewardModel`, for actions that are each held over a whole prediction."""

    def __init__(self, model: RewardModel, joints: int):
        """Take the weights of `model`, in evaluation mode, for an arm with this number of joints."""
        first, self._rest = cast(nn.Linear, model.reward_head[0]), model.reward_head[1:]
        size = model.config.state_size
        self._of_state = first.weight[:, :size].T.contiguous()
        self._of_action = first.weight[:, size:].unflatten(1, (-1, joints)).sum(1).T.contiguous()
        self._bias = first.bias
        self.distance = model.distance
        """The method `RewardModel.distance`."""

    def reward(self, state: Tensor, action: Tensor) -> Tensor:
        """Return the rewards (B,) of states (B, S) and actions (B, n), as `RewardModel.reward` does."""
        x = torch.addmm(torch.addmm(self._bias, action, self._of_action), state, self._of_state)
        return self._rest(x).squeeze(-1).sigmoid()


class FusedPolicy:
    """Computes a cloned policy's action in a state: `Policy` after `Conditioning.invert`, fused into one layer.

    A state is s = (c, sin, cos, v'). It has the latent's components c (part,), sines and cosines (n,) of the angles,
    and velocities v' = v / velocity_scale (n,). The first layer of a `bc-bottleneck` policy computes

        h = W_l z + W_a (sin, cos) + W_v (v - mean_v) / std_v + b.

    The bottleneck's values z come from the latent x, which `invert` computes from c with a linear map, U transposed:

        z = N ((x - mean_x) / std_x) + b_N,    x = U^T c + m.

    All of this is linear in c and v', so with N' = N / std_x, column by column, it is one product and one bias:

        h = [W_l N' U^T,  W_a,  W_v velocity_scale / std_v] s
            + W_l (N' (m - mean_x) + b_N) - W_v mean_v / std_v + b.

    A model predicts sine and cosine off the unit circle, so they are normalised first, as `invert` does through the
    angle. Means and deviations belong to the policy's inputs; m and U contain only the rows that the policy reads. A
    policy without a bottleneck, or a state with an unprojected latent, uses `invert`.
    """

    def __init__(self, policy: Policy, conditioning: Conditioning):
        """Take the weights of both, in evaluation mode."""
        self._policy, self._conditioning = policy, conditioning
        config = policy.config
        self._fused = bool(config.bottleneck and conditioning.config.size)
        if not self._fused:
            return
        size, rows, n = config.latent_size, list(config.latent_rows), config.action_size

        def read(latents: Tensor) -> Tensor:
            """Return the rows (..., size) that the policy reads, from latents (..., all rows of a state)."""
            return latents.unflatten(-1, (-1, config.latent_dim))[..., rows, :].flatten(-2)

        narrow = policy.narrow.weight / policy.input_std[:size]  # N', (bottleneck, size)
        mean = (read(conditioning.mean) - policy.input_mean[:size]) @ narrow.T + policy.narrow.bias  # z for c = 0
        first, self._rest = cast(nn.Linear, policy.layers[0]), policy.layers[1:]
        of_latent, of_joints = first.weight.tensor_split([config.bottleneck], dim=1)  # W_l, and W_a beside W_v
        self._of_state = of_latent @ narrow @ read(conditioning.unproject).T  # (hidden, part)
        self._bias = mean @ of_latent.T + first.bias  # (hidden,)
        if config.joint_state:
            of_angles, of_velocities = of_joints.split([2 * n, n], dim=1)
            scaled = of_velocities * (conditioning.velocity_scale / policy.input_std[-n:])
            self._of_state = torch.cat([self._of_state, of_angles, scaled], dim=1)  # (hidden, part + 3 n)
            self._bias = self._bias - of_velocities @ (policy.input_mean[-n:] / policy.input_std[-n:])

    def __call__(self, state: Tensor) -> Tensor:
        """Return the action (n,) in [-1, 1] in the state (S,)."""
        policy, conditioning = self._policy, self._conditioning
        if not self._fused:
            latent, position, velocity = conditioning.invert(state)
            return policy(policy.inputs(latent, position, velocity))
        part, n = conditioning.config.latent_part, policy.config.action_size
        read = state[:part]
        if policy.config.joint_state:
            latent, angles, velocity = state.split([part, 2 * n, n])
            on_circle = functional.normalize(angles.unflatten(0, (2, n)), dim=0).flatten()
            read = torch.cat([latent, on_circle, velocity])
        return self._rest(torch.addmv(self._bias, self._of_state, read)) * policy.action_scale
