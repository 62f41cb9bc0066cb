"""Observations of a planner's node: latents joined with joint states and targets by stamp, without ROS."""

from typing import Any, cast

import numpy as np

from vjepa_interfaces import topics
from vjepa_interfaces.alignment import StampRing
from vjepa_interfaces.encoder_info import EncoderInfo
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.joint_states import JointStates
from vjepa_interfaces.json_text import parse_json
from vjepa_interfaces.messages import goal_of
from vjepa_planner.contract import JOINT_STATE, TARGET, Observation
from vjepa_planner.planner_parameters import PlannerParameters


class ObservationJoiner:
    """Joins the newest latent with joint states and targets.

    In lockstep the join is exact, and a latent waits for its inputs. So an evaluation does not depend on the order of
    messages. In real time the join is causal, and no latent waits.

    Attributes:
        joints: joint states by stamp.
        targets: targets by stamp, (3,) m each.
        encoder: the encoder's message on `latent_info`, with `fingerprint` and `shape` at least; None before it.
        goal: the goal latent, (rows, dimension); None for none.
        goal_ns: stamp of the goal, nanoseconds.
    """

    def __init__(self, parameters: PlannerParameters):
        self._lockstep = parameters.lockstep
        self._max_age_ns = int(parameters.joint_state_max_age_s * 1e9)
        self.joints = JointStates(parameters.joint_names, parameters.derive_velocity, exact=parameters.lockstep)
        self.targets = StampRing()
        self.encoder: EncoderInfo | None = None
        self.begin()

    def begin(self) -> None:
        """Clear latent and goal only: the frame of the first latent may be older than this call."""
        self._waiting: tuple[int, np.ndarray] | None = None
        self.goal: np.ndarray | None = None
        self.goal_ns = 0

    def add_latent(self, stamp_ns: int, latent: np.ndarray) -> None:
        """Store a `latent` (rows, dimension) float32. It replaces one that still waits."""
        self._waiting = stamp_ns, latent

    def set_encoder(self, text: str) -> None:
        """Store the encoder's message on `latent_info`, and clear a goal of another encoder.

        Raises:
            VjepaError: the message is not a JSON object with `fingerprint` and `shape`.
        """
        try:
            encoder = cast(EncoderInfo, parse_json(text))
            fingerprint, _ = encoder["fingerprint"], encoder["shape"]
        except (ValueError, KeyError) as error:
            raise VjepaError(f"latent_info is not JSON with fingerprint and shape: {text[:80]!r}") from error
        if self.encoder is not None and self.encoder["fingerprint"] != fingerprint:
            self.goal = None
        self.encoder = encoder

    def set_goal(self, stamp_ns: int, message: Any) -> None:
        """Store a goal from a `sensor_msgs/Image`, as `messages.goal_of` reads it. A refused goal changes nothing.

        Raises:
            VjepaError: the message is not a goal or is from another encoder, or the encoder is still unknown.
        """
        if self.encoder is None:
            raise VjepaError(f"no message on {topics.LATENT_INFO.name} yet, so the goal's encoder is unknown")
        self.goal, self.goal_ns = goal_of(message, self.encoder), stamp_ns

    def take_observation(self, needs: frozenset[str], reads_latents: bool) -> Observation | None:
        """Return the observation of the waiting latent, and remove it; None without one, or if it must wait.

        In real time, missing inputs are None in the observation.

        Args:
            needs: the inputs that a latent waits for in lockstep.
            reads_latents: whether the latent also waits for `encoder`.
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
        """Return why an observation has no joint state, in parentheses; empty if it has one."""
        if observation.joint_position is not None:
            return ""
        why = self.joints.why_none(observation.stamp_ns, self._max_age_ns)
        return f" ({why}: joint_state_max_age_s)" if why else ""
