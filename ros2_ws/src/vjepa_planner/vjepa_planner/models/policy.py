"""The policy networks of behaviour cloning, `bc-mlp` and `bc-bottleneck`, and their bundle.

`bc-mlp`: Linear(D, 256), LayerNorm, ReLU, Linear(256, 64), ReLU, Linear(64, n), Tanh, after normalisation of the input.
The D inputs are the chosen latent rows and, if the policy reads them, joint positions and velocities, and the control
period. `bc-bottleneck` first passes the latent through a narrow linear layer, so that it cannot memorise its few
hundred training targets. It reads joint angles as sine and cosine.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vjepa_interfaces.bundle import Bundle, BundleError
from vjepa_interfaces.errors import VjepaError
from vjepa_planner.models.module_bundle import config_from, load_module, require_sizes, save_module

KIND = "policy"
MLP, BOTTLENECK = "bc-mlp", "bc-bottleneck"


@dataclass(frozen=True)
class PolicyConfig:
    """Sizes and inputs of a policy.

    Attributes:
        latent_dim: dimension of a latent row.
        latent_rows: rows that the policy reads, in order; row 0 is the mean of all tokens.
        joint_state: whether the policy also reads joint positions (rad) and velocities (rad/s).
        action_size: number of joints, n.
        hidden: widths of the two hidden layers.
        bottleneck: width of the narrow layer of `bc-bottleneck`; 0 for `bc-mlp`, which has none.
        action_scale: largest action of each joint, above 0 and at most 1; empty for 1.
        control_period: whether the policy also reads the control period (s), because it was trained at several rates.

    Raises:
        VjepaError: a value is of a wrong type or out of range; the message names it.
    """

    latent_dim: int = 1024
    latent_rows: tuple[int, ...] = (0,)
    joint_state: bool = False
    action_size: int = 2
    hidden: tuple[int, int] = (256, 64)
    bottleneck: int = 0
    action_scale: tuple[float, ...] = ()
    control_period: bool = False

    def __post_init__(self) -> None:
        for name in ("latent_rows", "hidden", "action_scale"):
            value = getattr(self, name)
            if not isinstance(value, list | tuple):
                raise VjepaError(f"'{name}' is {value!r}; expected a list of numbers")
            object.__setattr__(self, name, tuple(value))
        require_sizes("latent_dim", [self.latent_dim], 1)
        require_sizes("latent_rows", self.latent_rows, 0)
        require_sizes("action_size", [self.action_size], 1)
        require_sizes("hidden", self.hidden, 1)
        require_sizes("bottleneck", [self.bottleneck], 0)
        if not self.latent_rows or len(set(self.latent_rows)) != len(self.latent_rows):
            raise VjepaError(f"'latent_rows' is {list(self.latent_rows)}; expected one row or more, each once")
        if len(self.hidden) != 2:
            raise VjepaError(f"'hidden' is {list(self.hidden)}; expected two widths")
        numbers = all(isinstance(s, int | float) and 0 < s <= 1 for s in self.action_scale)
        if not numbers or len(self.action_scale) not in (0, self.action_size):
            raise VjepaError(
                f"'action_scale' is {list(self.action_scale)}; expected a number above 0 and at most 1 for each of "
                f"{self.action_size} joints, or none"
            )
        for name in ("joint_state", "control_period"):
            if not isinstance(getattr(self, name), bool):
                raise VjepaError(f"'{name}' is {getattr(self, name)!r}; expected true or false")

    @property
    def architecture(self) -> str:
        """`bc-mlp` or `bc-bottleneck`."""
        return BOTTLENECK if self.bottleneck else MLP

    @property
    def latent_size(self) -> int:
        """Number of values in the latent rows that the policy reads."""
        return len(self.latent_rows) * self.latent_dim

    @property
    def input_size(self) -> int:
        """D, the length of the vector that `Policy.inputs` returns."""
        return self.latent_size + (2 * self.action_size if self.joint_state else 0) + self.control_period


class Policy(nn.Module):
    """Maps inputs to actions. A new network normalises with mean 0 and deviation 1 until `set_statistics`."""

    input_mean: Tensor
    input_std: Tensor
    action_scale: Tensor

    def __init__(self, config: PolicyConfig):
        super().__init__()
        self.config = config
        first, second = config.hidden
        read = config.input_size
        if config.bottleneck:
            self.narrow = nn.Linear(config.latent_size, config.bottleneck)
            read = config.bottleneck + (3 * config.action_size if config.joint_state else 0) + config.control_period
        self.layers = nn.Sequential(
            nn.Linear(read, first),
            nn.LayerNorm(first),
            nn.ReLU(),
            nn.Linear(first, second),
            nn.ReLU(),
            nn.Linear(second, config.action_size),
            nn.Tanh(),
        )
        self.register_buffer("input_mean", torch.zeros(config.input_size))
        self.register_buffer("input_std", torch.ones(config.input_size))
        scale = torch.tensor(config.action_scale or [1.0] * config.action_size, device="cpu")
        self.register_buffer("action_scale", scale, persistent=False)  # The configuration has it.

    def inputs(
        self,
        latent: Tensor,
        joint_position: Tensor | None = None,
        joint_velocity: Tensor | None = None,
        control_period: Tensor | None = None,
    ) -> Tensor:
        """Return the network's inputs (..., D), before normalisation. Training and planning both call this method.

        Args:
            latent: (..., rows, latent_dim) float32, all rows of the topic.
            joint_position: (..., n) rad; needed if `config.joint_state` is set, else ignored.
            joint_velocity: (..., n) rad/s; the same.
            control_period: (...) s; needed if `config.control_period` is set, else ignored.

        Raises:
            VjepaError: the latent has another dimension or too few rows, or another input is missing.
        """
        rows, dim = latent.shape[-2:]
        if dim != self.config.latent_dim or rows <= max(self.config.latent_rows):
            raise VjepaError(
                f"latent of {rows} rows x {dim}; this policy expects dimension {self.config.latent_dim} and reads "
                f"rows {list(self.config.latent_rows)}"
            )
        read = [latent[..., list(self.config.latent_rows), :].flatten(-2)]
        if self.config.joint_state:
            if joint_position is None or joint_velocity is None:
                raise VjepaError("this policy reads joint positions and velocities, but they are missing")
            read += [joint_position, joint_velocity]
        if self.config.control_period:
            if control_period is None:
                raise VjepaError("this policy reads the control period, but it is missing")
            read.append(control_period.unsqueeze(-1))
        return torch.cat([part.to(read[0]) for part in read], dim=-1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return actions (..., n) in [-1, 1] for inputs (..., D) from `inputs`."""
        normal = (inputs - self.input_mean) / self.input_std
        if not self.config.bottleneck:
            return self.layers(normal) * self.action_scale
        size, n = self.config.latent_size, self.config.action_size
        read = [self.narrow(normal[..., :size])]
        if self.config.joint_state:
            angles = inputs[..., size : size + n]
            read += [angles.sin(), angles.cos()]
            size += n
        read.append(normal[..., size:])
        return self.layers(torch.cat(read, dim=-1)) * self.action_scale

    @torch.no_grad()
    def at_period(self, control_period_s: float) -> "Policy":
        """Return the policy of one control period, in evaluation mode: the same actions, without that input."""
        if not self.config.control_period:
            return self
        state = dict(self.state_dict())
        weight, mean, std = state["layers.0.weight"], self.input_mean, self.input_std
        state["layers.0.bias"] = state["layers.0.bias"] + weight[:, -1] * (control_period_s - mean[-1]) / std[-1]
        state |= {"layers.0.weight": weight[:, :-1], "input_mean": mean[:-1], "input_std": std[:-1]}
        policy = Policy(replace(self.config, control_period=False)).to(mean.device)
        policy.load_state_dict(state)
        return policy.eval().requires_grad_(False)

    @torch.no_grad()
    def set_statistics(self, mean: Tensor, std: Tensor, least_std: float = 1e-3) -> None:
        """Set the normalisation of inputs to `mean` and `std`, both (D,); smaller deviations become `least_std`."""
        self.input_mean.copy_(mean)
        self.input_std.copy_(std.clamp(min=least_std))


def save_policy(
    path: Path | str, policy: Policy, encoder_fingerprint: str, card: str, provenance: Mapping[str, Any] | None = None
) -> Bundle:
    """Write `policy` as a bundle into the folder `path`, and return the bundle.

    Args:
        path: folder of the bundle, created if missing.
        policy: the network; its statistics are saved with its weights.
        encoder_fingerprint: fingerprint of the encoder that made the training's latents.
        card: text of MODEL_CARD.md.
        provenance: further entries of config.json, such as the dataset and the command.

    Raises:
        VjepaError: an entry of `provenance` has the name of an entry that this function writes.
    """
    config = asdict(policy.config) | {
        "kind": KIND,
        "architecture": policy.config.architecture,
        "encoder_fingerprint": encoder_fingerprint,
    }
    return save_module(path, policy, config, card, provenance)


def load_policy(bundle: Bundle, device: str | torch.device = "cpu", control_period_s: float | None = None) -> Policy:
    """Return the policy in `bundle`, in evaluation mode, on `device`.

    It compares tensor shapes with the configuration before it allocates memory.

    Args:
        bundle: the bundle of a policy.
        device: device of the weights.
        control_period_s: the one control period at which the policy acts, s, see `Policy.at_period`. With None the
            policy reads the period, if it was trained to.

    Raises:
        BundleError: the architecture is another, the configuration is out of range, or the weights are missing, do not
            fit or are not finite.
    """
    architecture = bundle.require("architecture", str)
    bundle.require("encoder_fingerprint", str)
    config = config_from(bundle, PolicyConfig, bundle.config)
    if architecture != config.architecture:
        raise BundleError(
            f"{bundle.path} is a policy of architecture '{architecture}'; expected '{MLP}', or '{BOTTLENECK}' with a "
            f"'bottleneck' above 0 (it is {config.bottleneck})"
        )
    policy = load_module(bundle, lambda: Policy(config), device)
    if not bool((policy.input_std > 0).all()):
        raise BundleError(f"{bundle.weights}: tensor 'input_std' has values that are not above 0")
    return policy if control_period_s is None else policy.at_period(control_period_s)
