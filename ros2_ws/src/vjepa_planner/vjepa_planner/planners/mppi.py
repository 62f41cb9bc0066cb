"""`mppi`: the search of `cem` with weights of the elites that fall exponentially with their cost."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from vjepa_interfaces.parameters import Range
from vjepa_planner.planners.cem import CemConfig, CemPlanner, Count


@dataclass(frozen=True)
class MppiConfig(CemConfig):
    """Options of `mppi`: the options of `cem`, and the temperature.

    Attributes:
        elites: number of best sequences; all others have weight 0.
        temperature: difference in cost at which a weight falls to 1/e.
    """

    elites: Count = 12
    temperature: Annotated[float, Range(low=1e-6, high=1e6)] = 0.05


class MppiPlanner(CemPlanner):
    """Model-predictive path integral control (Williams et al. 2017), iterated over elites as in TD-MPC (2022)."""

    Config = MppiConfig

    def _weights(self, cost: Tensor) -> Tensor:
        return torch.softmax(-cost / self.config.temperature, dim=0)
