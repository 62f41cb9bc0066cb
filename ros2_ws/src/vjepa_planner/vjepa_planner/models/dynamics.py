"""Dynamics models from state and actions to the next state, single or as an ensemble, and their bundle.

`mlp` and `resblock` are the networks of earlier work on this design; `PRESETS` has their settings. An ensemble has
several networks with weights of their own, which compute together. Source: Chua et al., Deep Reinforcement Learning in
a Handful of Trials using Probabilistic Dynamics Models, 2018.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vjepa_interfaces.bundle import Bundle, BundleError, read_bundle
from vjepa_interfaces.errors import VjepaError
from vjepa_planner.models.conditioning import Conditioning, ConditioningConfig
from vjepa_planner.models.module_bundle import config_from, load_module, require_sizes, save_module

KIND = "dynamics"
MLP, RESBLOCK = "dynamics-mlp", "dynamics-resblock"
MAX_LAYERS = 1000
"""The largest number of layers: each is a module, whose creation takes time before the check of a bundle's weights."""
LEAST_VARIANCE = 1e-12
"""The smallest variance: at 0, where members agree to the bit, a square root has an infinite gradient."""


@dataclass(frozen=True)
class DynamicsConfig:
    """Sizes of a dynamics model.

    Attributes:
        architecture: `dynamics-mlp` or `dynamics-resblock`.
        hidden: width of the hidden layers.
        layers: hidden layers of the MLP; residual blocks of the ResBlock.
        dropout: share of dropped hidden units in training, in the ResBlock's blocks and the MLP's layers.
        residual: whether the network predicts the change of the state, not the next state itself.
        members: size of the ensemble.
        history: number of states that a prediction starts from, with the present one.
        action_repeat: control steps that one prediction spans; it takes the actions of all of them.

    Raises:
        VjepaError: a value is of a wrong type or out of range; the message names it.
    """

    architecture: str = MLP
    hidden: int = 512
    layers: int = 3
    dropout: float = 0.0
    residual: bool = True
    members: int = 1
    history: int = 1
    action_repeat: int = 1

    def __post_init__(self) -> None:
        if self.architecture not in (MLP, RESBLOCK):
            raise VjepaError(f"'architecture' is {self.architecture!r}; expected '{MLP}' or '{RESBLOCK}'")
        for name in ("hidden", "layers", "members", "history", "action_repeat"):
            require_sizes(name, [getattr(self, name)], 1)
        if self.layers > MAX_LAYERS:
            raise VjepaError(f"'layers' is {self.layers}; expected at most {MAX_LAYERS}")
        if isinstance(self.dropout, bool) or not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise VjepaError(f"'dropout' is {self.dropout!r}; expected a number from 0 to below 1")
        if not isinstance(self.residual, bool):
            raise VjepaError(f"'residual' is {self.residual!r}; expected true or false")


PRESETS = {
    "dynamics-mlp": DynamicsConfig(),
    "dynamics-mlp-direct": DynamicsConfig(residual=False),
    "dynamics-resblock": DynamicsConfig(RESBLOCK, hidden=1024, layers=4, dropout=0.1),
    "dynamics-ensemble": DynamicsConfig(hidden=256, layers=2, members=5, action_repeat=4),
}
"""Settings by name: the first three come from earlier work, the last from this project."""


class EnsembleLinear(nn.Module):
    """`members` linear layers at once: (members, B, inputs) to (members, B, outputs)."""

    def __init__(self, members: int, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs))
        self.bias = nn.Parameter(torch.empty(members, 1, outputs))
        bound = 1 / math.sqrt(inputs)  # The initial range of nn.Linear.
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Return each member's outputs (members, B, outputs) for its own inputs (members, B, inputs)."""
        return torch.baddbmm(self.bias, x, self.weight)


class EnsembleNorm(nn.Module):
    """Layer normalisation with a gain and an offset for each member."""

    def __init__(self, members: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(members, 1, width))
        self.bias = nn.Parameter(torch.zeros(members, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension of (members, B, width)."""
        return torch.addcmul(self.bias, functional.layer_norm(x, x.shape[-1:]), self.weight)


class _ResBlock(nn.Module):
    """Adds Linear, LayerNorm, ReLU, Linear, LayerNorm of the input to the input."""

    def __init__(self, members: int, width: int, dropout: float):
        super().__init__()
        self.layers = nn.Sequential(
            EnsembleLinear(members, width, width),
            EnsembleNorm(members, width),
            nn.ReLU(),
            nn.Dropout(dropout),
            EnsembleLinear(members, width, width),
            EnsembleNorm(members, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Dynamics(nn.Module):
    """The state projection, and the ensemble that predicts in its states.

    `delta_scale`, (S,), is the unit of a predicted change in each component: 1 until it is set.
    """

    delta_scale: Tensor

    def __init__(self, config: DynamicsConfig, conditioning: ConditioningConfig):
        super().__init__()
        self.config = config
        self.conditioning = Conditioning(conditioning)
        k, width = config.members, config.hidden
        size, actions = conditioning.state_size, conditioning.joints * config.action_repeat
        layers: list[nn.Module] = [
            EnsembleLinear(k, size * config.history + actions, width),
            EnsembleNorm(k, width),
            nn.ReLU(),
        ]
        if config.architecture == RESBLOCK:
            layers += [_ResBlock(k, width, config.dropout) for _ in range(config.layers)]
        else:
            for _ in range(config.layers - 1):
                layers += [
                    nn.Dropout(config.dropout),
                    EnsembleLinear(k, width, width),
                    EnsembleNorm(k, width),
                    nn.ReLU(),
                ]
        layers.append(EnsembleLinear(k, width, size))
        self.layers = nn.Sequential(*layers)
        self.register_buffer("delta_scale", torch.ones(size))

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        """Return the next states (members, B, S).

        Args:
            states: (members, B, history, S), the newest last; or (1, B, history, S), equal for all members.
            actions: (members or 1, B, action_repeat, n) in [-1, 1], in the order of their application.
        """
        members = self.config.members
        states = states.expand(members, -1, -1, -1)
        x = torch.cat([states.flatten(-2), actions.expand(members, -1, -1, -1).flatten(-2)], dim=-1)
        out = self.layers(x) * self.delta_scale
        return states[..., -1, :] + out if self.config.residual else out

    def unroll(self, states: Tensor, actions: Tensor) -> Tensor:
        """Return the next H states (members, B, H, S). Each member continues from its own predictions.

        Args:
            states: (members or 1, B, history, S).
            actions: (members or 1, B, H, action_repeat, n).
        """
        found = []
        for step in range(actions.shape[2]):
            following = self(states, actions[:, :, step])
            found.append(following)
            newest = following[:, :, None]
            if self.config.history > 1:
                rest = states[:, :, 1:].expand(len(following), -1, -1, -1)
                newest = torch.cat([rest, newest], dim=2)
            states = newest
        return torch.stack(found, dim=2)

    def spread(self, states: Tensor) -> Tensor:
        """Return the disagreement (...) of the members about predictions (members, ..., S).

        It is their standard deviation in units of the usual change, averaged over the components of a state.
        """
        scaled = states / self.delta_scale
        # torch.std over the first dimension takes 20 times as long.
        variance = (scaled - scaled.mean(dim=0)).square().sum(dim=0) / (len(states) - 1)
        return variance.clamp(min=LEAST_VARIANCE).sqrt().mean(dim=-1)

    def disagreement(self, state: Tensor, action: Tensor) -> float | None:
        """Return the disagreement of the members about the next state after `action`, (n,), in `state`, (S,).

        It is None for a single network, or if a prediction needs earlier states.
        """
        if self.config.members == 1 or self.config.history > 1:
            return None
        actions = action.expand(1, 1, self.config.action_repeat, -1)
        return float(self.spread(self(state[None, None, None], actions)))


def save_dynamics(
    path: Path | str, model: Dynamics, encoder_fingerprint: str, card: str, provenance: Mapping[str, Any] | None = None
) -> Bundle:
    """Write `model` as a bundle into the folder `path`; arguments and errors are as in `save_policy`."""
    state = model.conditioning.config.entries(encoder_fingerprint)
    config = {"kind": KIND, **asdict(model.config), **state}
    return save_module(path, model, config, card, provenance)


def load_dynamics(path: Path | str, device: str | torch.device = "cpu") -> tuple[Dynamics, Bundle]:
    """Return the dynamics model in the bundle `path`, in evaluation mode, on `device`, and the bundle.

    Raises:
        BundleError: the bundle does not exist, its configuration is out of range, or its weights do not fit.
    """
    bundle = read_bundle(path, KIND)
    conditioning = ConditioningConfig.of(bundle)
    config = config_from(bundle, DynamicsConfig, bundle.config)
    model = load_module(bundle, lambda: Dynamics(config, conditioning), device)
    if not bool((model.delta_scale > 0).all()):
        raise BundleError(f"{bundle.weights}: tensor 'delta_scale' has values that are not above 0")
    return model, bundle


def preset(name: str, **changes: Any) -> DynamicsConfig:
    """Return the settings `name` of `PRESETS` with `changes`.

    Raises:
        VjepaError: there are no such settings; the message lists all names.
    """
    if name not in PRESETS:
        raise VjepaError(f"unknown dynamics '{name}'; valid are: {', '.join(sorted(PRESETS))}")
    return replace(PRESETS[name], **changes)
