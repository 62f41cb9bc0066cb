"""`bc`: a policy cloned from an expert's actions, with one forward pass per plan."""

from dataclasses import dataclass

import numpy as np
import torch

from vjepa_interfaces.bundle import read_bundle
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
from vjepa_planner.models.novelty import load_novelty
from vjepa_planner.models.policy import KIND, load_policy


@dataclass(frozen=True)
class BcConfig:
    """Options of `bc`.

    Attributes:
        bundle: folder of a policy's bundle; required.
    """

    bundle: str = ""


class BcPlanner(Planner):
    """Returns the policy network's output as action, without search and without state."""

    Config = BcConfig

    def __init__(self, config: BcConfig, context: PlannerContext):
        super().__init__(config, context)
        if not config.bundle:
            raise VjepaError("planner 'bc' has no policy; set its option 'bundle' to the folder of a trained policy")
        self._bundle = read_bundle(config.bundle, KIND)
        self._device = usable_device(context.device)
        self._policy = load_policy(self._bundle, self._device)
        require_joints(f"bc ({config.bundle})", self._policy.config.action_size, context)
        if context.arm is not None:
            self._bundle.check_arm(context.arm)
        self.needs = frozenset({JOINT_STATE}) if self._policy.config.joint_state else frozenset()
        self.encoder_fingerprint = self._bundle.require("encoder_fingerprint", str)
        self.trained_period_s = self._bundle.control_period_s
        self.novelty = load_novelty(self._bundle, self._policy.config.latent_rows, self._policy.config.latent_dim)
        self._warm_up()

    def check_encoder(self, fingerprint: str, name: str = "") -> None:
        """Check that latents come from the policy's encoder, as `Bundle.check_encoder` does."""
        self._bundle.check_encoder(fingerprint, name)

    @torch.inference_mode()
    def _act(self, observation: Observation, deadline_s: float | None) -> Plan:
        arrays = [observation.latent]
        if self._policy.config.joint_state:
            arrays += [observation.joint_position, observation.joint_velocity]  # type: ignore[list-item]
        # torch.tensor copies. torch.from_numpy would warn of an observation's read-only arrays.
        tensors = [torch.tensor(array, dtype=torch.float32, device=self._device) for array in arrays]
        try:
            inputs = self._policy.inputs(*tensors)
        except VjepaError as error:
            raise ObservationRefusedError(str(error)) from error
        return Plan(self._policy(inputs).cpu().numpy().astype(np.float64))

    def _warm_up(self) -> None:
        config = self._policy.config
        joints = np.zeros(config.action_size)
        latent = np.zeros((max(config.latent_rows) + 1, config.latent_dim), np.float32)
        self._act(Observation(0, latent, joints, joints), None)
