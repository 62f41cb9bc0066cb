"""Actor and critic on the states of a world model, and the actor's bundle.

Both have two hidden layers of 256 with ELU, as in earlier work on this design. The actor is a Gaussian squashed by
tanh (Haarnoja et al., Soft Actor-Critic, 2018). The critic is a twin whose smaller value counts (Fujimoto et al., TD3,
2018). Each network returns a number, or two-hot weights of evenly spaced bins after a symmetric logarithm (Hafner et
al., DreamerV3, 2023). The bundle contains the actor with its state projection, and no critic.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vjepa_interfaces.bundle import Bundle, read_bundle
from vjepa_interfaces.errors import VjepaError
from vjepa_planner.models.conditioning import Conditioning, ConditioningConfig
from vjepa_planner.models.module_bundle import config_from, load_module, require_sizes, save_module

KIND = "actor"
ARCHITECTURE = "actor-gaussian"
LEAST_LOG_STD, LARGEST_LOG_STD = -5.0, 1.0
LARGEST_VALUE = 200.0
"""The bins cover the values between this and its negative."""


@dataclass(frozen=True)
class ActorConfig:
    """Sizes of an actor.

    Attributes:
        hidden: width of the two hidden layers.
        action_size: number of joints, n.

    Raises:
        VjepaError: a value is of a wrong type or out of range; the message names it.
    """

    hidden: int = 256
    action_size: int = 2

    def __post_init__(self) -> None:
        for name in ("hidden", "action_size"):
            require_sizes(name, [getattr(self, name)], 1)


class Actor(nn.Module):
    """Maps states to a distribution of actions in [-1, 1]^n."""

    def __init__(self, config: ActorConfig, conditioning: ConditioningConfig):
        super().__init__()
        self.config = config
        self.conditioning = Conditioning(conditioning)
        self.layers = _layers(conditioning.state_size, config.hidden, 2 * config.action_size)

    def forward(self, state: Tensor) -> Tensor:
        """Return the modes (..., n) of the actions' distributions in states (..., S)."""
        return self.layers(state).chunk(2, dim=-1)[0].tanh()

    def sample(self, state: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw actions (..., n), through which gradients flow, and return them with their log density (...,).

        Args:
            state: (..., S).
            generator: draws the noise; None for torch's own.
        """
        mean, spread = self.layers(state).chunk(2, dim=-1)
        log_std = LEAST_LOG_STD + (LARGEST_LOG_STD - LEAST_LOG_STD) * spread.sigmoid()
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        before = mean + log_std.exp() * noise
        gaussian = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        squashed = 2 * (math.log(2) - before - functional.softplus(-2 * before))  # log(1 - tanh²), stable.
        return before.tanh(), (gaussian - squashed).sum(-1)


class TwinCritic(nn.Module):
    """Maps states to values, with two networks."""

    bins: Tensor

    def __init__(self, state_size: int, hidden: int = 256, bins: int = 0):
        """Create both networks.

        Args:
            state_size: S.
            hidden: width of the two hidden layers.
            bins: number of bins of two-hot values; 0 for plain numbers.

        Raises:
            VjepaError: `bins` is 1, but a value lies between two bins.
        """
        super().__init__()
        if bins == 1:
            raise VjepaError("bins is 1; expected 0 for plain numbers, or at least 2")
        self.networks = nn.ModuleList(_layers(state_size, hidden, bins or 1) for _ in range(2))
        if bins:
            largest = math.log1p(LARGEST_VALUE)
            self.register_buffer("bins", torch.linspace(-largest, largest, bins), persistent=False)
        self._two_hot = bool(bins)

    def forward(self, state: Tensor) -> Tensor:
        """Return the values (2, ...) of both networks in states (..., S)."""
        out = torch.stack([network(state) for network in self.networks])
        return _symexp(out.softmax(-1) @ self.bins) if self._two_hot else out.squeeze(-1)

    def loss(self, state: Tensor, value: Tensor) -> Tensor:
        """Return the mean loss of both networks: cross-entropy of two-hot values, or squared error.

        Args:
            state: (..., S).
            value: (...,), the wanted values.
        """
        if not self._two_hot:
            return (self(state) - value).square().mean()
        wanted = two_hot(value, self.bins)
        return -torch.stack([(wanted * network(state).log_softmax(-1)).sum(-1) for network in self.networks]).mean()


def two_hot(value: Tensor, bins: Tensor) -> Tensor:
    """Return weights (..., K) of the two of `bins`, (K,), between which the symmetric logarithm of `value` lies."""
    logarithm = (value.sign() * value.abs().log1p()).clamp(bins[0], bins[-1])
    place = (logarithm - bins[0]) / (bins[1] - bins[0])
    return (1 - (place[..., None] - torch.arange(len(bins), device=bins.device)).abs()).clamp(min=0)


def save_actor(
    path: Path | str, actor: Actor, encoder_fingerprint: str, card: str, provenance: Mapping[str, Any] | None = None
) -> Bundle:
    """Write `actor` as a bundle into the folder `path`; arguments and errors are as in `save_policy`."""
    state = actor.conditioning.config.entries(encoder_fingerprint)
    config = {"kind": KIND, "architecture": ARCHITECTURE, **asdict(actor.config), **state}
    return save_module(path, actor, config, card, provenance)


def load_actor(path: Path | str, device: str | torch.device = "cpu") -> tuple[Actor, Bundle]:
    """Return the actor in the bundle `path`, in evaluation mode, on `device`, and the bundle.

    Raises:
        BundleError: the bundle does not exist, its configuration is out of range, or its weights do not fit.
    """
    bundle = read_bundle(path, KIND)
    conditioning = ConditioningConfig.of(bundle)
    config = config_from(bundle, ActorConfig, bundle.config)
    return load_module(bundle, lambda: Actor(config, conditioning), device), bundle


def _layers(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ELU(), nn.Linear(hidden, hidden), nn.ELU(), nn.Linear(hidden, outputs)
    )


def _symexp(value: Tensor) -> Tensor:
    return value.sign() * value.abs().expm1()
