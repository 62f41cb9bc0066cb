"""`expert`: analytic inverse kinematics and critically damped joints, near the task's physical limit."""

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
"""Effort of an action of 1 for an unknown arm, N·m: the value of dm_control's reacher."""

LEAST_PERIODS = 3.5
"""Shortest time constant in control periods. It still damps the arm well if commands arrive one period late."""


@dataclass(frozen=True)
class ExpertConfig:
    """Options of `expert`; the defaults are for dm_control's reacher.

    Attributes:
        time_constant_s: time constant of the two equal poles of each joint; smaller is stiffer. A value below 3.5
            control periods counts as 3.5.
        upper_length: shoulder to wrist, m.
        lower_length: wrist to fingertip, m.
        wrist_limit: largest absolute wrist angle, rad.
        shoulder_inertia: inertia of the whole arm about the shoulder with the wrist at a right angle, kg m².
        wrist_inertia: inertia of the lower link about the wrist, kg m².
        coupling_inertia: mass of the lower link times `upper_length` times the distance from the wrist to the lower
            link's centre of mass, kg m².
        damping: friction of each joint, N·m per rad/s.
        joint_names: joints of this arm, shoulder first; an arm with other joints is refused.
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

    The nearer pose has the smaller sum of absolute angles to turn. The shoulder may turn either way round, and the
    wrist may not pass its limit. The planner has no state: an action depends on the observation alone.

    The accelerations are those of a discrete double integrator with both poles at p = exp(-period / time constant), so
    that the error decays without overshoot. The arm's dynamics turn them into torques (computed torque, Spong,
    Hutchinson and Vidyasagar, Robot Modeling and Control, 2006, chapter 8). Far from the target, torques exceed the
    motors' limits and are clipped: full torque, then braking in time.
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
        self._effort = np.array(context.arm.limits if context.arm else REACHER_EFFORT)
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
        """Return the angles in rad from `position` to each elbow pose that reaches `target`."""
        shoulder, wrist = position
        return [(wrapped(pose[0] - shoulder), pose[1] - wrist) for pose in self._arm.angles_to(*target)]


def _motion(error: Pair) -> float:
    return math.fabs(error[0]) + math.fabs(error[1])
