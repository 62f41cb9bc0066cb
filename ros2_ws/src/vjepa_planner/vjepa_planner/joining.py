"""Latents joined to what else planners read, by stamp: how a planner's node makes observations, without ROS."""

from typing import Any

import numpy as np

from vjepa_interfaces import topics
from vjepa_interfaces.alignment import StampRing
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.joint_states import JointStates
from vjepa_interfaces.json_text import parse_json
from vjepa_interfaces.messages import goal_of
from vjepa_planner.contract import JOINT_STATE, TARGET, Observation
from vjepa_planner.planner_parameters import PlannerParameters


class ObservationJoiner:
    """The newest latent, and the joint states and targets that may be joined to it.

    In lockstep the join is exact, and a latent waits for its inputs: so an evaluation is the same in whatever order
    messages arrive. In real time the join is causal, and no latent waits.

    Attributes:
        joints: joint states by stamp.
        targets: targets by stamp, (3,) m each.
        encoder: what the encoder published of itself, with `fingerprint` and `shape` at least; None before it did.
        goal: the goal latent, (rows, dimension); None for none.
        goal_ns: stamp of the goal, nanoseconds.
    """

    def __init__(self, parameters: PlannerParameters):
        self._lockstep = parameters.lockstep
        self._max_age_ns = int(parameters.joint_state_max_age_s * 1e9)
        self.joints = JointStates(parameters.joint_names, parameters.derive_velocity, exact=parameters.lockstep)
        self.targets = StampRing()
        self.encoder: dict[str, Any] | None = None
        self.begin()

    def begin(self) -> None:
        """Forget latent and goal, and nothing else: the first latent may be of a frame from before now."""
        self._waiting: tuple[int, np.ndarray] | None = None
        self.goal: np.ndarray | None = None
        self.goal_ns = 0

    def add_latent(self, stamp_ns: int, latent: np.ndarray) -> None:
        """Take a `latent` (rows, dimension) in the place of one that still waits."""
        self._waiting = stamp_ns, latent

    def set_encoder(self, text: str) -> None:
        """Take in what the encoder publishes of itself on `latent_info`, and forget a goal of another encoder.

        Raises:
            VjepaError: it is not a JSON object with `fingerprint` and `shape`.
        """
        try:
            encoder = parse_json(text)
            fingerprint, _ = encoder["fingerprint"], encoder["shape"]
        except (ValueError, KeyError) as error:
            raise VjepaError(f"latent_info is not JSON with fingerprint and shape: {text[:80]!r}") from error
        if self.encoder is not None and self.encoder["fingerprint"] != fingerprint:
            self.goal = None
        self.encoder = encoder

    def set_goal(self, stamp_ns: int, message: Any) -> None:
        """Take in a goal, a `sensor_msgs/Image` as `messages.goal_of` reads it; one that is refused changes nothing.

        Raises:
            VjepaError: it is no goal, or of another encoder, or the encoder is not known yet.
        """
        if self.encoder is None:
            raise VjepaError(f"no message on {topics.LATENT_INFO.name} yet, so the goal's encoder is not checked")
        self.goal, self.goal_ns = goal_of(message, self.encoder), stamp_ns

    def take_observation(self, needs: frozenset[str], reads_latents: bool) -> Observation | None:
        """Return the observation of the latent that waits, which then waits no longer; None where it has to wait.

        In real time what could not be joined is None in the observation.

        Args:
            needs: the inputs that a latent waits for in lockstep.
            reads_latents: whether it also waits for `encoder`.
        """
        if self._waiting is None:
            return None
        stamp_ns, latent = self._waiting
        if self._lockstep:
            joints, target = self.joints.at(stamp_ns), self.targets.at(stamp_ns)
            is_missing = (JOINT_STATE in needs and joints is None) or (TARGET in needs and target is None)
            if is_missing or (reads_latents and self.encoder is None):
                return None
        else:
            joints = self.joints.at_or_before(stamp_ns, self._max_age_ns)
            target = self.targets.at_or_before(stamp_ns, self._max_age_ns)
        self._waiting = None
        position, velocity = (joints.position, joints.velocity) if joints is not None else (None, None)
        return Observation(stamp_ns, latent, position, velocity, target, self.goal)

    def why_without_joints(self, observation: Observation) -> str:
        """Return why no joint state was joined to an observation, in parentheses; empty where one was."""
        if observation.joint_position is not None:
            return ""
        why = self.joints.why_none(observation.stamp_ns, self._max_age_ns)
        return f" ({why}: joint_state_max_age_s)" if why else ""
