"""`shooting`: random sequences of actions, imagined once; the best one's first action is taken."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from vjepa_interfaces.parameters import Range
from vjepa_planner.planners.cem import MOST, CemConfig, CemPlanner, Count


@dataclass(frozen=True)
class ShootingConfig(CemConfig):
    """Options of `shooting`, as `CemConfig` has them; the distribution is uniform, and nothing is kept.

    Attributes:
        samples: sequences drawn.
        elites: the best.
        iterations: it draws once.
        proposals: sequences drawn around the policy's; 0 for none.
    """

    samples: Count = 1000
    elites: Count = 1
    iterations: Count = 1
    proposals: Annotated[int, Range(low=0, high=MOST)] = 0


class ShootingPlanner(CemPlanner):
    """Random shooting (Nagabandi et al., Neural Network Dynamics for Model-Based Deep RL, 2018)."""

    Config = ShootingConfig

    def _draw(self, mean: Tensor, std: Tensor, proposed: Tensor | None) -> Tensor:
        shape = (self.config.samples, *mean.shape)
        drawn = torch.rand(shape, generator=self._generator, device=mean.device) * 2 - 1
        if proposed is not None and self.config.proposals:
            noise = torch.randn(shape, generator=self._generator, device=mean.device)[: self.config.proposals]
            drawn[: self.config.proposals] = (proposed + self.config.proposal_std * noise).clamp(-1, 1)
        return drawn
