"""`expert`: analytic inverse kinematics and a joint PD controller, near the physical limit of the task."""

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from vjepa_interfaces.parameters import Range
from vjepa_planner.contract import (
    JOINT_STATE,
    TARGET,
    Observation,
    Plan,
    Planner,
    PlannerContext,
    require_arm,
    require_joints,
)
from vjepa_planner.planners.two_link import JOINT_NAMES, Pair, TwoLinkArm, scripted_inputs, wrapped


@dataclass(frozen=True)
class ExpertConfig:
    """Options of `expert`; the defaults are for dm_control's reacher.

    Attributes:
        kp: action per rad of joint error.
        kd: action per rad/s of joint velocity.
        upper_length: shoulder to wrist, m.
        lower_length: wrist to fingertip, m.
        wrist_limit: largest absolute wrist angle, rad.
        joint_names: of the arm that has these lengths, shoulder first; one with other joints is refused.
    """

    kp: Annotated[float, Range(low=0.0, high=1e6)] = 8.0
    kd: Annotated[float, Range(low=0.0, high=1e6)] = 0.8
    upper_length: Annotated[float, Range(low=1e-3, high=1e3)] = TwoLinkArm.upper_length
    lower_length: Annotated[float, Range(low=1e-3, high=1e3)] = TwoLinkArm.lower_length
    wrist_limit: Annotated[float, Range(low=0.0, high=math.pi)] = TwoLinkArm.wrist_limit
    joint_names: tuple[str, ...] = JOINT_NAMES


class ExpertPlanner(Planner):
    """Turns both joints towards the nearer of the two elbow poses that put the fingertip on the target.

    Nearer is less motion: the sum over the joints of the absolute angle to turn, where the shoulder may turn either
    way round and the wrist may not pass its limit. It keeps no state: an action depends on the observation alone.
    """

    Config = ExpertConfig
    needs = frozenset({JOINT_STATE, TARGET})

    def __init__(self, config: ExpertConfig, context: PlannerContext):
        super().__init__(config, context)
        require_joints("expert", 2, context)
        require_arm("expert", config.joint_names, context)
        self._arm = TwoLinkArm(config.upper_length, config.lower_length, config.wrist_limit)

    def _act(self, observation: Observation, deadline_s: float | None) -> Plan:
        position, velocity, target = scripted_inputs(observation)
        error = min(self._errors(target, position), key=_motion)
        torque = self.config.kp * np.array(error) - self.config.kd * np.array(velocity)
        return Plan(np.clip(torque, -1.0, 1.0))

    def _errors(self, target: Pair, position: Pair) -> list[Pair]:
        """Return the angles left to turn, rad, from `position` to each elbow pose that reaches `target`."""
        shoulder, wrist = position
        return [(wrapped(pose[0] - shoulder), pose[1] - wrist) for pose in self._arm.angles_to(*target)]


def _motion(error: Pair) -> float:
    return math.fabs(error[0]) + math.fabs(error[1])
