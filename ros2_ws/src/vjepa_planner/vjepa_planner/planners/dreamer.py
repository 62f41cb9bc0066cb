"""`dreamer`: an actor trained in imagined rollouts, with one forward pass per plan."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from vjepa_interfaces.bundle import BundleError
from vjepa_interfaces.errors import VjepaError
from vjepa_planner.contract import (
    JOINT_STATE,
    Observation,
    ObservationRefusedError,
    Plan,
    Planner,
    PlannerContext,
    require_joints,
)
from vjepa_planner.device import usable_device
from vjepa_planner.models.actor import load_actor
from vjepa_planner.models.dynamics import load_dynamics
from vjepa_planner.models.novelty import load_novelty
from vjepa_planner.planners.world import tensors_of


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


class DreamerPlanner(Planner):
    """Returns the mode of its actor's distribution as action, without search and without state."""

    Config: ClassVar[type] = DreamerConfig

    def __init__(self, config: DreamerConfig, context: PlannerContext):
        super().__init__(config, context)
        name = type(self).__name__
        if not config.bundle:
            raise VjepaError(f"{name} has no actor; set its option 'bundle' to the folder of a trained one")
        self._device = usable_device(context.device)
        self._actor, self._bundle = load_actor(config.bundle, self._device)
        require_joints(f"{name} ({config.bundle})", self._actor.config.action_size, context)
        if context.arm is not None:
            self._bundle.check_arm(context.arm)
        self._dynamics = load_dynamics(config.dynamics, self._device)[0] if config.dynamics else None
        if self._dynamics is not None and not _alike(self._dynamics.conditioning, self._actor.conditioning):
            raise BundleError(
                f"{config.dynamics} predicts other states than {config.bundle} reads; give the dynamics model of the "
                "actor's training"
            )
        read = self._actor.conditioning.config
        self.needs = frozenset({JOINT_STATE}) if read.joint_state else frozenset()
        self.encoder_fingerprint = self._bundle.require("encoder_fingerprint", str)
        self.trained_period_s = self._bundle.control_period_s
        self.novelty = load_novelty(self._bundle, read.latent_rows, read.latent_dim)
        self._warm_up()

    def check_encoder(self, fingerprint: str, name: str = "") -> None:
        """Check that latents come from the actor's encoder, as `Bundle.check_encoder` does."""
        self._bundle.check_encoder(fingerprint, name)

    @torch.inference_mode()
    def _act(self, observation: Observation, deadline_s: float | None) -> Plan:
        try:
            state = self._actor.conditioning(*tensors_of(observation, self._device))
        except VjepaError as error:
            raise ObservationRefusedError(str(error)) from error
        action = self._actor(state)
        disagreement = None if self._dynamics is None else self._dynamics.disagreement(state, action)
        return Plan(action.cpu().numpy().astype(np.float64), disagreement=disagreement)

    def _warm_up(self) -> None:
        config = self._actor.conditioning.config
        joints = np.zeros(config.joints)
        latent = np.zeros((max(config.latent_rows) + 1, config.latent_dim), np.float32)
        self._act(Observation(0, latent, joints, joints), None)


def _alike(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
