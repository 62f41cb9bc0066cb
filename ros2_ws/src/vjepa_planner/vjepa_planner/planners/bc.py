"""`bc`: a policy cloned from an expert's actions, with one forward pass per plan."""

from dataclasses import dataclass

import numpy as np
import torch

from vjepa_interfaces.bundle import read_bundle
from vjepa_interfaces.errors import VjepaError
from vjepa_planner.contract import Observation, ObservationRefusedError, Plan, PlannerContext
from vjepa_planner.device import tensors_of, usable_device
from vjepa_planner.models.policy import KIND, load_policy
from vjepa_planner.planners.one_network import OneNetworkPlanner


@dataclass(frozen=True)
class BcConfig:
    """Options of `bc`.

    Attributes:
        bundle: folder of a policy's bundle; required.
    """

    bundle: str = ""


class BcPlanner(OneNetworkPlanner):
    """Returns the policy network's output as action, without search and without state."""

    Config = BcConfig

    def __init__(self, config: BcConfig, context: PlannerContext):
        super().__init__(config, context)
        if not config.bundle:
            raise VjepaError("planner 'bc' has no policy; set its option 'bundle' to the folder of a trained policy")
        bundle = read_bundle(config.bundle, KIND)
        self._device = usable_device(context.device)
        self._policy = load_policy(bundle, self._device, context.control_period_s)
        self._use(f"bc ({config.bundle})", bundle, self._policy.config, self._policy.config.action_size)

    @torch.inference_mode()
    def _act(self, observation: Observation, deadline_s: float | None) -> Plan:
        try:
            inputs = self._policy.inputs(*tensors_of(observation, self._device))
        except VjepaError as error:
            raise ObservationRefusedError(str(error)) from error
        return Plan(self._policy(inputs).cpu().numpy().astype(np.float64))
