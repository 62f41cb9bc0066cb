"""`expert-p`: the proportional controller of earlier work, kept with its flaw for comparison."""

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
from vjepa_planner.planners.two_link import JOINT_NAMES, TwoLinkArm, scripted_inputs


@dataclass(frozen=True)
class ExpertPConfig:
    """Options of `expert-p`.

    Attributes:
        gain: action per metre from fingertip to target.
    """

    gain: Annotated[float, Range(low=0.0, high=1e6)] = 5.0


class ExpertPPlanner(Planner):
    """Applies the Cartesian offset from fingertip to target, times a gain, to the joints as action.

    The x offset drives the shoulder and y the wrist, whatever the links' directions. The mismatch is kept because
    earlier work learned from this expert's data. It is for dm_control's reacher only.
    """

    Config = ExpertPConfig
    needs = frozenset({JOINT_STATE, TARGET})

    def __init__(self, config: ExpertPConfig, context: PlannerContext):
        super().__init__(config, context)
        require_joints("expert-p", 2, context)
        require_arm("expert-p", JOINT_NAMES, context)
        self._arm = TwoLinkArm()

    def _act(self, observation: Observation, deadline_s: float | None) -> Plan:
        position, _, target = scripted_inputs(observation)
        to_target = np.array(target) - np.array(self._arm.fingertip(*position))
        return Plan(np.clip(self.config.gain * to_target, -1.0, 1.0))
