"""State projection: from a latent and the joints to the state in which world models predict.

Consecutive latents are nearly alike (a cosine of about 0.998). To bring out their changes, the projection centres them,
projects them on a few dozen directions and whitens them. The state also has the sine and cosine of joint angles, and
joint velocities in units of their standard deviation. Earlier work on this design projected nothing: `size` 0.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vjepa_interfaces.bundle import Bundle
from vjepa_interfaces.errors import VjepaError
from vjepa_planner.models.module_bundle import config_from, require_sizes


@dataclass(frozen=True)
class ConditioningConfig:
    """The parts of an observation that make up a state.

    Attributes:
        latent_dim: dimension of a latent row.
        latent_rows: rows that the state reads, in order; row 0 is the mean of all tokens.
        size: components of the projected latent; 0 for the latent itself.
        joint_state: whether joint positions (rad) and velocities (rad/s) are part of the state.
        joints: number of joints, n.

    Raises:
        VjepaError: a value is of a wrong type or out of range; the message names it.
    """

    latent_dim: int = 1024
    latent_rows: tuple[int, ...] = (0,)
    size: int = 0
    joint_state: bool = False
    joints: int = 2

    def __post_init__(self) -> None:
        if not isinstance(self.latent_rows, list | tuple):
            raise VjepaError(f"'latent_rows' is {self.latent_rows!r}; expected a list of integers")
        object.__setattr__(self, "latent_rows", tuple(self.latent_rows))
        require_sizes("latent_dim", [self.latent_dim], 1)
        require_sizes("latent_rows", self.latent_rows, 0)
        require_sizes("size", [self.size], 0)
        require_sizes("joints", [self.joints], 1)
        if not self.latent_rows or len(set(self.latent_rows)) != len(self.latent_rows):
            raise VjepaError(f"'latent_rows' is {list(self.latent_rows)}; expected one row or more, each once")
        if self.size > self.latent_size:
            raise VjepaError(f"'size' is {self.size}; expected at most the latent's {self.latent_size} values")
        if not isinstance(self.joint_state, bool):
            raise VjepaError(f"'joint_state' is {self.joint_state!r}; expected true or false")

    @classmethod
    def of(cls, bundle: Bundle) -> "ConditioningConfig":
        """Return the settings in a bundle that has `entries`.

        Raises:
            BundleError: an entry is missing, of a wrong type or out of range.
        """
        bundle.require("encoder_fingerprint", str)
        settings: ConditioningConfig = config_from(bundle, cls, bundle.require("conditioning", dict))
        return settings

    def entries(self, encoder_fingerprint: str) -> dict[str, Any]:
        """Return the entries of these settings, and of the encoder of the latents, for a bundle's config.json."""
        return {
            "conditioning": asdict(self),
            "encoder_fingerprint": encoder_fingerprint,
            "latent_rows": list(self.latent_rows),
        }

    @property
    def latent_size(self) -> int:
        """Number of values in the latent rows that the state reads."""
        return len(self.latent_rows) * self.latent_dim

    @property
    def latent_part(self) -> int:
        """Number of a state's values from the latent; the values of the joints follow them."""
        return self.size or self.latent_size

    @property
    def state_size(self) -> int:
        """S, the number of values in a state."""
        return self.latent_part + (3 * self.joints if self.joint_state else 0)


class Conditioning(nn.Module):
    """Maps observations to states and, within the projection, back."""

    mean: Tensor
    project: Tensor
    unproject: Tensor
    velocity_scale: Tensor

    def __init__(self, config: ConditioningConfig):
        super().__init__()
        self.config = config
        if config.size:
            self.register_buffer("mean", torch.zeros(config.latent_size))
            self.register_buffer("project", torch.zeros(config.latent_size, config.size))
            self.register_buffer("unproject", torch.zeros(config.size, config.latent_size))
        if config.joint_state:
            self.register_buffer("velocity_scale", torch.ones(config.joints))

    def forward(
        self, latent: Tensor, joint_position: Tensor | None = None, joint_velocity: Tensor | None = None
    ) -> Tensor:
        """Return states (..., S).

        Args:
            latent: (..., rows, latent_dim), all rows of the topic.
            joint_position: (..., n) rad; needed if `config.joint_state` is set, else ignored.
            joint_velocity: (..., n) rad/s; the same.

        Raises:
            VjepaError: the latent has another dimension or too few rows, or the joint state is missing.
        """
        state = self.of_latent(latent)
        if not self.config.joint_state:
            return state
        if joint_position is None or joint_velocity is None:
            raise VjepaError("this model reads joint positions and velocities, but they are missing")
        joints = [joint_position.sin(), joint_position.cos(), joint_velocity / self.velocity_scale]
        return torch.cat([state, *(part.to(state) for part in joints)], dim=-1)

    def of_latent(self, latent: Tensor) -> Tensor:
        """Return the state's values (..., latent_part) from the latent (..., rows, latent_dim).

        Raises:
            VjepaError: the latent has another dimension or too few rows.
        """
        config = self.config
        rows, dim = latent.shape[-2:]
        if dim != config.latent_dim or rows <= max(config.latent_rows):
            raise VjepaError(
                f"latent of {rows} rows x {dim}; this model expects dimension {config.latent_dim} and reads rows "
                f"{list(config.latent_rows)}"
            )
        read = latent[..., list(config.latent_rows), :].flatten(-2)
        return (read - self.mean) @ self.project if config.size else read

    def invert(self, state: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the latent rows (..., len(latent_rows), latent_dim), joint positions and velocities of a state.

        Components outside the projection have their mean; angles are within [-pi, pi].
        """
        config = self.config
        latent = state[..., : config.latent_part]
        if config.size:
            latent = latent @ self.unproject + self.mean
        latent = latent.unflatten(-1, (len(config.latent_rows), config.latent_dim))
        if not config.joint_state:
            return latent, None, None
        sine, cosine, velocity = state[..., config.latent_part :].split(config.joints, dim=-1)
        return latent, torch.atan2(sine, cosine), velocity * self.velocity_scale
