"""`dreamer`: an actor trained in imagined rollouts, with one forward pass per plan."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from vjepa_interfaces.bundle import BundleError
from vjepa_interfaces.errors import VjepaError
from vjepa_planner.contract import Observation, ObservationRefusedError, Plan, PlannerContext
from vjepa_planner.device import tensors_of, usable_device
from vjepa_planner.models.actor import load_actor
from vjepa_planner.models.dynamics import load_dynamics
from vjepa_planner.planners.one_network import OneNetworkPlanner


@dataclass(frozen=True)
class DreamerConfig:
    """Options of `dreamer`.

    Attributes:
        bundle: folder of an actor's bundle; required.
        dynamics: folder of the bundle of the ensemble that the actor was trained in; empty for none. Each plan then
            contains the members' disagreement about the action's effect.
    """

    bundle: str = ""
    dynamics: str = ""


class DreamerPlanner(OneNetworkPlanner):
    """Returns the mode of its actor's distribution as action, without search and without state."""

    Config: ClassVar[type] = DreamerConfig

    def __init__(self, config: DreamerConfig, context: PlannerContext):
        super().__init__(config, context)
        name = type(self).__name__
        if not config.bundle:
            raise VjepaError(f"{name} has no actor; set its option 'bundle' to the folder of a trained one")
        self._device = usable_device(context.device)
        self._actor, bundle = load_actor(config.bundle, self._device)
        self._dynamics = load_dynamics(config.dynamics, self._device)[0] if config.dynamics else None
        if self._dynamics is not None and not _alike(self._dynamics.conditioning, self._actor.conditioning):
            raise BundleError(
                f"{config.dynamics} predicts other states than {config.bundle} reads; give the dynamics model of the "
                "actor's training"
            )
        actor = self._actor
        self._use(f"{name} ({config.bundle})", bundle, actor.conditioning.config, actor.config.action_size)

    @torch.inference_mode()
    def _act(self, observation: Observation, deadline_s: float | None) -> Plan:
        try:
            state = self._actor.conditioning(*tensors_of(observation, self._device))
        except VjepaError as error:
            raise ObservationRefusedError(str(error)) from error
        action = self._actor(state)
        disagreement = None if self._dynamics is None else self._dynamics.disagreement(state, action)
        return Plan(action.cpu().numpy().astype(np.float64), disagreement=disagreement)


def _alike(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
