"""`shooting`: random sequences of actions, imagined once; the plan is the first action of the best."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from vjepa_interfaces.parameters import Range
from vjepa_planner.planners.cem import MOST, CemConfig, CemPlanner, Count


@dataclass(frozen=True)
class ShootingConfig(CemConfig):
    """Options of `shooting`: the options of `cem`. The distribution is uniform and does not change.

    Attributes:
        samples: sequences drawn.
        elites: number of best sequences.
        iterations: rounds of drawing.
        proposals: policy-prior trajectories; 0 for none.
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
