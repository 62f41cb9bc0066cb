"""The base class of planners with one network, whatever its architecture."""

import numpy as np

from vjepa_interfaces.bundle import Bundle
from vjepa_planner.contract import JOINT_STATE, Observation, Planner, require_joints
from vjepa_planner.models.conditioning import ConditioningConfig
from vjepa_planner.models.novelty import load_novelty
from vjepa_planner.models.policy import PolicyConfig


class OneNetworkPlanner(Planner):
    """A planner with one network, which reads latents and, if it was trained so, joint states."""

    _bundle: Bundle

    def _use(self, name: str, bundle: Bundle, reads: PolicyConfig | ConditioningConfig, joints: int) -> None:
        """Set what follows from the bundle of a loaded network, and warm the network up.

        Args:
            name: name of the planner with its bundle, for messages.
            bundle: bundle of the network.
            reads: configuration with the rows that the network reads, and whether it reads joint states.
            joints: number of joints of its actions.

        Raises:
            VjepaError: the network is for another arm, or the file of its novelty cannot be used.
        """
        require_joints(name, joints, self.context)
        if self.context.arm is not None:
            bundle.check_arm(self.context.arm)
        self._bundle = bundle
        self.needs = frozenset({JOINT_STATE}) if reads.joint_state else frozenset()
        self.encoder_fingerprint = bundle.require("encoder_fingerprint", str)
        self.trained_periods_s = bundle.control_periods_s
        self.novelty = load_novelty(bundle, reads.latent_rows, reads.latent_dim)
        latent = np.zeros((max(reads.latent_rows) + 1, reads.latent_dim), np.float32)
        self._act(Observation(0, latent, np.zeros(joints), np.zeros(joints)), None)

    def check_encoder(self, fingerprint: str, name: str = "") -> None:
        """Check that latents come from the network's encoder, as `Bundle.check_encoder` does."""
        self._bundle.check_encoder(fingerprint, name)
