"""`expert-xy`: proportional and derivative control of a point that two motors push along x and y."""

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
from vjepa_planner.planners.two_link import scripted_inputs

JOINT_NAMES = ("t1", "t2")
"""The joints of dm_control's point_mass. They are its motors, which read x and y."""


@dataclass(frozen=True)
class ExpertXYConfig:
    """Options of `expert-xy`; the defaults are for dm_control's point_mass.

    Attributes:
        kp: action per m from the point to the target.
        kd: action per m/s of velocity.
    """

    kp: Annotated[float, Range(low=0.0, high=1e6)] = 40.0
    kd: Annotated[float, Range(low=0.0, high=1e6)] = 6.0


class ExpertXYPlanner(Planner):
    """Pushes the point along each axis towards the target, and against its velocity. The planner has no state."""

    Config = ExpertXYConfig
    needs = frozenset({JOINT_STATE, TARGET})

    def __init__(self, config: ExpertXYConfig, context: PlannerContext):
        super().__init__(config, context)
        require_joints("expert-xy", 2, context)
        require_arm("expert-xy", JOINT_NAMES, context)

    def _act(self, observation: Observation, deadline_s: float | None) -> Plan:
        position, velocity, target = map(np.array, scripted_inputs(observation))
        return Plan(np.clip(self.config.kp * (target - position) - self.config.kd * velocity, -1.0, 1.0))
