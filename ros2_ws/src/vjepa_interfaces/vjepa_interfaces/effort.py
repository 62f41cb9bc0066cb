"""Actions, efforts, and the checks of a command before it moves a joint.

A planner returns actions, [-1, 1] per joint; an arm takes efforts in N·m. Each boundary of trust has one check:
`effort_of` when an action leaves a planner, and `checked` when a command arrives at an arm. The ROS nodes and the
evaluation in one process use the same conversion, so both give the same torque to the bit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from vjepa_interfaces.errors import VjepaError


class CommandRefusedError(VjepaError):
    """A command that must not reach the arm: wrong names, wrong size, or not finite."""


EffortLimit = float | tuple[float, ...]
"""An effort limit as a user gives it, N·m: one number for every joint, or one for each joint."""


@dataclass(frozen=True)
class EffortLimits:
    """The joints of an arm and the largest effort of each, which is the effort of an action of 1.

    Attributes:
        joint_names: names in the order of the efforts.
        limits: largest absolute effort of each joint, N·m.
    """

    joint_names: tuple[str, ...]
    limits: tuple[float, ...]

    @classmethod
    def of(cls, joint_names: Sequence[str], effort_limit: float | Sequence[float]) -> "EffortLimits":
        """Return the limits of an arm.

        Args:
            joint_names: names in the order of the efforts.
            effort_limit: largest absolute effort, N·m: one number for every joint, or one for each.

        Raises:
            VjepaError: there is another number of limits than of joints, or one is not finite and above 0.
        """
        if isinstance(effort_limit, Sequence):
            limits = tuple(map(float, effort_limit))
        else:
            limits = (float(effort_limit),) * len(joint_names)
        if len(limits) != len(joint_names):
            raise VjepaError(
                f"effort_limit has {len(limits)} values; expected one number, or one for each of "
                f"{', '.join(joint_names)}"
            )
        if not all(0 < limit < math.inf for limit in limits):
            raise VjepaError(f"effort_limit is {effort_limit}; expected finite N·m above 0")
        return cls(tuple(joint_names), limits)

    @property
    def limits_text(self) -> str:
        """The limits for a message, without their unit: `0.05` for every joint, or `2, 1, 0.5`."""
        limits = self.limits[:1] if len(set(self.limits)) == 1 else self.limits
        return ", ".join(f"{limit:g}" for limit in limits)

    def effort_of(self, action: np.ndarray) -> np.ndarray:
        """Return the efforts (n,) in N·m, float64, of an `action` (n,) in [-1, 1]; values beyond are clamped.

        Raises:
            CommandRefusedError: the action is not finite, or not of size n.
        """
        given = np.asarray(action, np.float64)
        self._check_size(given)
        effort, _ = self.checked(None, given * self.limits)
        return effort

    def to_action(self, effort: np.ndarray) -> np.ndarray:
        """Return the action (..., n) in [-1, 1], float64, of efforts (..., n) in N·m; efforts beyond are clamped."""
        return np.clip(np.asarray(effort, np.float64) / self.limits, -1.0, 1.0)

    def checked(self, names: Sequence[str] | None, effort: ArrayLike) -> tuple[np.ndarray, bool]:
        """Return the efforts that may be applied, in the order of `joint_names`, and whether any was clamped.

        Args:
            names: joint names of the command, in any order, each exactly once. None for a message without names (an
                effort array), whose efforts are in the order of `joint_names`.
            effort: efforts in N·m, one per name.

        Raises:
            CommandRefusedError: names or sizes do not match, or a value is not finite.
        """
        given = np.asarray(effort, np.float64)
        self._check_size(given)
        if names is not None and tuple(names) != self.joint_names:
            if sorted(names) != sorted(self.joint_names):
                raise CommandRefusedError(
                    f"command names joints {', '.join(names) or '(none)'}; expected {', '.join(self.joint_names)}"
                )
            given = given[[list(names).index(name) for name in self.joint_names]]
        if not np.all(np.isfinite(given)):
            raise CommandRefusedError(f"command efforts are not finite: {given.tolist()}; send finite N·m")
        limits = np.array(self.limits)
        clamped = np.clip(given, -limits, limits)
        return clamped, bool(np.any(clamped != given))

    def _check_size(self, given: np.ndarray) -> None:
        if given.shape != (len(self.joint_names),):
            raise CommandRefusedError(
                f"command has {given.size} efforts, expected {len(self.joint_names)} "
                f"(joints {', '.join(self.joint_names)})"
            )
