"""Reward and distance heads on the states of a dynamics model, and their bundle.

The reward head reads a state and its actions, as in earlier work on this design. Its layers are Linear, LayerNorm,
ReLU, Linear, LayerNorm, ReLU, Linear, sigmoid. The distance head reads the state alone, and returns the offset from
fingertip to target. The length of the offset is the distance, which a planner needs far from any reward.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vjepa_interfaces.bundle import Bundle, read_bundle
from vjepa_interfaces.errors import VjepaError
from vjepa_planner.models.conditioning import ConditioningConfig
from vjepa_planner.models.module_bundle import config_from, load_module, require_sizes, save_module

KIND = "reward"
ARCHITECTURE = "reward-mlp"


@dataclass(frozen=True)
class RewardConfig:
    """Sizes of the heads.

    Attributes:
        state_size: S, number of values in a state.
        action_values: number of action values that the reward head reads: joints times action repeat.
        hidden: width of the two hidden layers of each head.
        distance: whether there is a distance head.

    Raises:
        VjepaError: a value is of a wrong type or out of range; the message names it.
    """

    state_size: int = 1024
    action_values: int = 2
    hidden: int = 256
    distance: bool = False

    def __post_init__(self) -> None:
        for name in ("state_size", "action_values", "hidden"):
            require_sizes(name, [getattr(self, name)], 1)
        if not isinstance(self.distance, bool):
            raise VjepaError(f"'distance' is {self.distance!r}; expected true or false")


class RewardModel(nn.Module):
    """The heads; `reward` and `offset` state their inputs and outputs."""

    def __init__(self, config: RewardConfig):
        super().__init__()
        self.config = config
        self.reward_head = _head(config.state_size + config.action_values, config.hidden, 1)
        if config.distance:
            self.distance_head = _head(config.state_size, config.hidden, 2)

    def reward(self, state: Tensor, actions: Tensor) -> Tensor:
        """Return the mean reward (...,), in [0, 1], of the control steps that `actions` span.

        Args:
            state: (..., S).
            actions: (..., action_repeat, n) in [-1, 1].
        """
        return self.reward_head(torch.cat([state, actions.flatten(-2)], dim=-1)).squeeze(-1).sigmoid()

    def offset(self, state: Tensor) -> Tensor:
        """Return the offset (..., 2) in m from fingertip to target in states (..., S)."""
        return self.distance_head(state) * OFFSET_UNIT

    def distance(self, state: Tensor) -> Tensor:
        """Return the distance (...,) in m from fingertip to target in states (..., S)."""
        return torch.linalg.vector_norm(self.offset(state), dim=-1)


OFFSET_UNIT = 0.1
"""Metres in one unit of the distance head's output."""


def save_reward(
    path: Path | str, model: RewardModel, conditioning: ConditioningConfig, facts: Mapping[str, Any], card: str
) -> Bundle:
    """Write `model` as a bundle into the folder `path`.

    Args:
        path: folder of the bundle, created if missing.
        model: the heads.
        conditioning: state projection of the states that the heads read.
        facts: further entries of config.json. Two are needed: `encoder_fingerprint`, and `dynamics_sha256` of the
            dynamics model's weights.
        card: text of MODEL_CARD.md.
    """
    config = {
        "kind": KIND,
        "architecture": ARCHITECTURE,
        **asdict(model.config),
        "latent_rows": list(conditioning.latent_rows),
    }
    return save_module(path, model, config, card, facts)


def load_reward(path: Path | str, device: str | torch.device = "cpu") -> tuple[RewardModel, Bundle]:
    """Return the heads in the bundle `path`, in evaluation mode, on `device`, and the bundle.

    Raises:
        BundleError: the bundle does not exist, its configuration is out of range, or its weights do not fit.
    """
    bundle = read_bundle(path, KIND)
    for name in ("encoder_fingerprint", "dynamics_sha256"):
        bundle.require(name, str)
    config = config_from(bundle, RewardConfig, bundle.config)
    return load_module(bundle, lambda: RewardModel(config), device), bundle


def _head(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.LayerNorm(hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.LayerNorm(hidden),
        nn.ReLU(),
        nn.Linear(hidden, outputs),
    )
