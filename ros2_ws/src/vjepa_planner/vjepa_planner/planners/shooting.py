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
        prior_samples: policy-prior trajectories; 0 for none.
    """

    samples: Count = 1000
    elites: Count = 1
    iterations: Count = 1
    prior_samples: Annotated[int, Range(low=0, high=MOST)] = 0


class ShootingPlanner(CemPlanner):
    """Random shooting (Nagabandi et al., Neural Network Dynamics for Model-Based Deep RL, 2018)."""

    Config = ShootingConfig

    def _draw(self, mean: Tensor, std: Tensor, prior: Tensor | None) -> Tensor:
        shape = (self.config.samples, *mean.shape)
        drawn = torch.rand(shape, generator=self._generator, device=mean.device) * 2 - 1
        if prior is not None and self.config.prior_samples:
            noise = torch.randn(shape, generator=self._generator, device=mean.device)[: self.config.prior_samples]
            drawn[: self.config.prior_samples] = (prior + self.config.prior_std * noise).clamp(-1, 1)
        return drawn
