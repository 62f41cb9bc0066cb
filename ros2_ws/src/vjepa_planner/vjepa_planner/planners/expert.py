"""`expert`: analytic inverse kinematics and critically damped joints, near the physical limit of the task."""

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
from vjepa_planner.planners.two_link_dynamics import TwoLinkDynamics

REACHER_EFFORT = 0.05
"""N·m of an action of 1 where the arm is not known: that of dm_control's reacher."""

LEAST_PERIODS = 3.5
"""Shortest time constant in control periods: with it the arm is still well damped where commands land a period late."""


@dataclass(frozen=True)
class ExpertConfig:
    """Options of `expert`; the defaults are for dm_control's reacher.

    Attributes:
        time_constant_s: of the two equal poles of each joint; smaller is stiffer. At least 3.5 control periods are
            taken.
        upper_length: shoulder to wrist, m.
        lower_length: wrist to fingertip, m.
        wrist_limit: largest absolute wrist angle, rad.
        shoulder_inertia: of the whole arm about the shoulder with the wrist at a right angle, kg m².
        wrist_inertia: of the lower link about the wrist, kg m².
        coupling_inertia: mass of the lower link times `upper_length` times the distance from the wrist to the lower
            link's centre of mass, kg m².
        damping: friction of each joint, N·m per rad/s.
        joint_names: of the arm that has all these, shoulder first; one with other joints is refused.
    """

    time_constant_s: Annotated[float, Range(low=1e-3, high=1e3)] = 0.07
    upper_length: Annotated[float, Range(low=1e-3, high=1e3)] = TwoLinkArm.upper_length
    lower_length: Annotated[float, Range(low=1e-3, high=1e3)] = TwoLinkArm.lower_length
    wrist_limit: Annotated[float, Range(low=0.0, high=math.pi)] = TwoLinkArm.wrist_limit
    shoulder_inertia: Annotated[float, Range(low=1e-9, high=1e6)] = TwoLinkDynamics.shoulder_inertia
    wrist_inertia: Annotated[float, Range(low=1e-9, high=1e6)] = TwoLinkDynamics.wrist_inertia
    coupling_inertia: Annotated[float, Range(low=0.0, high=1e6)] = TwoLinkDynamics.coupling_inertia
    damping: Annotated[float, Range(low=0.0, high=1e6)] = TwoLinkDynamics.damping
    joint_names: tuple[str, ...] = JOINT_NAMES


class ExpertPlanner(Planner):
    """Turns both joints towards the nearer of the two elbow poses that put the fingertip on the target.

    Nearer is less motion: the sum over the joints of the absolute angle to turn, where the shoulder may turn either
    way round and the wrist may not pass its limit. It keeps no state: an action depends on the observation alone.

    The torque is that of a discrete double integrator with both poles at p = exp(-period / time constant), so that
    the error dies away without overshoot, put through the arm's own dynamics (computed torque, as in Spong,
    Hutchinson and Vidyasagar, Robot Modeling and Control, 2006, chapter 8). Far from the target it is beyond what the
    motors can, and is clipped: full torque, braked in time.
    """

    Config = ExpertConfig
    needs = frozenset({JOINT_STATE, TARGET})

    def __init__(self, config: ExpertConfig, context: PlannerContext):
        super().__init__(config, context)
        require_joints("expert", 2, context)
        require_arm("expert", config.joint_names, context)
        self._arm = TwoLinkArm(config.upper_length, config.lower_length, config.wrist_limit)
        self._dynamics = TwoLinkDynamics(
            config.shoulder_inertia, config.wrist_inertia, config.coupling_inertia, config.damping
        )
        self._effort = context.arm.limit if context.arm else REACHER_EFFORT
        self._period_s = context.control_period_s
        pole = math.exp(-self._period_s / max(config.time_constant_s, LEAST_PERIODS * self._period_s))
        self._stiffness = ((1.0 - pole) / self._period_s) ** 2
        self._braking = (1.0 - pole**2) / self._period_s

    def _act(self, observation: Observation, deadline_s: float | None) -> Plan:
        position, velocity, target = scripted_inputs(observation)
        error = min(self._errors(target, position), key=_motion)
        shoulder, wrist = (self._stiffness * e - self._braking * v for e, v in zip(error, velocity, strict=True))
        torques = self._dynamics.torques(position[1], velocity, (shoulder, wrist), self._period_s)
        return Plan(np.clip(np.array(torques) / self._effort, -1.0, 1.0))

    def _errors(self, target: Pair, position: Pair) -> list[Pair]:
        """Return the angles left to turn, rad, from `position` to each elbow pose that reaches `target`."""
        shoulder, wrist = position
        return [(wrapped(pose[0] - shoulder), pose[1] - wrist) for pose in self._arm.angles_to(*target)]


def _motion(error: Pair) -> float:
    return math.fabs(error[0]) + math.fabs(error[1])
