"""The models of a search, loaded from bundles: dynamics, reward and distance heads, and a cloned policy."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from vjepa_interfaces.bundle import Bundle, BundleError, read_bundle
from vjepa_interfaces.errors import VjepaError
from vjepa_planner.contract import Observation, ObservationRefusedError, PlannerContext, require_joints
from vjepa_planner.device import tensors_of, usable_device
from vjepa_planner.models.dynamics import Dynamics, load_dynamics
from vjepa_planner.models.fused import FusedDynamics, FusedHeads, FusedPolicy
from vjepa_planner.models.policy import KIND as POLICY
from vjepa_planner.models.policy import Policy, load_policy
from vjepa_planner.models.reward import RewardModel, load_reward


@dataclass(frozen=True)
class World:
    """The models that a search needs for imagined rollouts.

    Attributes:
        bundle: bundle of the dynamics model, whose encoder all parts share.
        dynamics: the dynamics model.
        heads: reward and distance heads; None for another objective.
        policy: a policy for policy-prior trajectories; None for none.
        device: device of all parts.
    """

    bundle: Bundle
    dynamics: Dynamics
    heads: RewardModel | None
    policy: Policy | None
    device: torch.device

    @property
    def needs_joint_state(self) -> bool:
        """Whether any part reads joint positions and velocities."""
        policy = self.policy is not None and self.policy.config.joint_state
        return policy or self.dynamics.conditioning.config.joint_state

    def tensors(self, observation: Observation) -> list[Tensor]:
        """Return the tensors of `tensors_of` on the world's device."""
        return tensors_of(observation, self.device)

    def state(self, tensors: list[Tensor]) -> Tensor:
        """Return the state (S,) of the tensors from `tensors`.

        Raises:
            ObservationRefusedError: the latent's shape is not the shape of the model's training.
        """
        try:
            return self.dynamics.conditioning(*tensors)
        except VjepaError as error:
            raise ObservationRefusedError(str(error)) from error

    @cached_property
    def _dynamics(self) -> FusedDynamics:
        return FusedDynamics(self.dynamics)

    @cached_property
    def _heads(self) -> FusedHeads:
        assert self.heads is not None
        return FusedHeads(self.heads, self.dynamics.conditioning.config.joints)

    @cached_property
    def _policy(self) -> FusedPolicy:
        assert self.policy is not None
        return FusedPolicy(self.policy, self.dynamics.conditioning)

    def imagine(self, history: Tensor, actions: Tensor) -> Tensor:
        """Return the states (H + 1, members, B, S) of sequences of actions: the present one, then the predictions.

        Args:
            history: (history, S), the present state last.
            actions: (members or 1, B, H, n) in [-1, 1], each held over a whole prediction.
        """
        return self._dynamics.unroll(history, actions)

    def costs(self, states: Tensor, actions: Tensor, distance_weight: float) -> Tensor:
        """Return the mean cost per prediction of sequences, (members, B): minus reward, plus weighted distance.

        Args:
            states: (H + 1, members, B, S), from `imagine`.
            actions: (members or 1, B, H, n), the actions of these states.
            distance_weight: cost of a metre; it has no effect without a distance head.
        """
        assert self.heads is not None
        horizon, members, batch, size = len(states) - 1, *states.shape[1:]
        in_time = actions.movedim(2, 0).expand(-1, members, -1, -1)
        costs = -self._heads.reward(states[:-1].reshape(-1, size), in_time.reshape(-1, actions.shape[-1]))
        if self.heads.config.distance:
            costs = costs + distance_weight * self._heads.distance(states[1:].reshape(-1, size))
        return costs.view(horizon, members, batch).mean(0)

    def prior_actions(self, history: Tensor, tensors: list[Tensor], horizon: int) -> Tensor:
        """Return the policy's actions (horizon, n) in the states that the model predicts for them.

        Args:
            history: (history, S), the present state last.
            tensors: the present observation, the input of the first action.
            horizon: predictions ahead; the policy acts once in each.
        """
        assert self.policy is not None
        actions = [self.policy(self.policy.inputs(*tensors))]
        while len(actions) < horizon:
            state = self.imagine(history, actions[-1][None, None, None])[1].mean(0)
            history = torch.cat([history[1:], state])
            actions.append(self._policy(state[0]))
        return torch.stack(actions)


def load_world(dynamics: str, reward: str, policy: str, context: PlannerContext, planner: str) -> World:
    """Load the bundles of a world. All must have the same encoder, and the heads must be for this dynamics model.

    Args:
        dynamics: folder of the dynamics model's bundle; required.
        reward: folder of the heads' bundle, or empty.
        policy: folder of the policy's bundle, or empty.
        context: the arm and the device.
        planner: name of the planner, for messages.

    Raises:
        VjepaError: a bundle is missing, damaged, or for another encoder, other dynamics or another arm.
    """
    if not dynamics:
        raise VjepaError(
            f"planner '{planner}' has no dynamics model; set its option 'dynamics' to the folder of a trained one"
        )
    device = usable_device(context.device)
    model, bundle = load_dynamics(dynamics, device)
    fingerprint = bundle.require("encoder_fingerprint", str)
    require_joints(f"{planner} ({dynamics})", model.conditioning.config.joints, context)
    if context.arm is not None:
        bundle.check_arm(context.arm)
    heads = None
    if reward:
        heads, about = load_reward(reward, device)
        about.check_dynamics(bundle)
    network = None
    if policy:
        about = read_bundle(policy, POLICY)
        about.check_encoder(fingerprint, str(bundle.config.get("encoder", "")))
        network = load_policy(about, device, context.control_period_s)
        require_joints(f"{planner} ({policy})", network.config.action_size, context)
        if context.arm is not None:
            about.check_arm(context.arm)
        rows = model.conditioning.config.latent_rows
        if rows != tuple(range(len(rows))) or max(network.config.latent_rows) >= len(rows):
            raise BundleError(
                f"{policy} reads rows {list(network.config.latent_rows)} of the latent, but the states of {dynamics} "
                f"contain only rows {list(rows)}; leave the policy out, or train dynamics on all rows"
            )
        if network.config.joint_state and not model.conditioning.config.joint_state:
            raise BundleError(
                f"{policy} reads joint states, which the states of {dynamics} do not contain; train dynamics on joints"
            )
    return World(bundle, model, heads, network, device)
