"""Actions, efforts, and the checks of a command before it moves a joint.

A planner returns actions, [-1, 1] per joint; an arm takes efforts in N·m. Each boundary of trust has one check:
`effort_of` when an action leaves a planner, and `checked` when a command arrives at an arm. The ROS nodes and the
evaluation in one process use the same conversion, so both give the same torque to the bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from vjepa_interfaces.errors import VjepaError


class CommandRefusedError(VjepaError):
    """A command that must not reach the arm: wrong names, wrong size, or not finite."""


@dataclass(frozen=True)
class EffortLimits:
    """The joints of an arm and the largest effort of each.

    Attributes:
        joint_names: names in the order of the efforts.
        limit: largest absolute effort, N·m, the same for every joint.
    """

    joint_names: tuple[str, ...]
    limit: float

    def effort_of(self, action: np.ndarray) -> np.ndarray:
        """Return the efforts (n,) in N·m, float64, of an `action` (n,) in [-1, 1]; values beyond are clamped.

        Raises:
            CommandRefusedError: the action is not finite, or not of size n.
        """
        effort, _ = self.checked(None, np.asarray(action, np.float64) * self.limit)
        return effort

    def to_action(self, effort: np.ndarray) -> np.ndarray:
        """Return the action (n,), float64, of efforts (n,) in N·m: the inverse of `effort_of`."""
        return np.asarray(effort, np.float64) / self.limit

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
        if given.shape != (len(self.joint_names),):
            raise CommandRefusedError(
                f"command has {given.size} efforts, expected {len(self.joint_names)} "
                f"(joints {', '.join(self.joint_names)})"
            )
        if names is not None and tuple(names) != self.joint_names:
            if sorted(names) != sorted(self.joint_names):
                raise CommandRefusedError(
                    f"command names joints {', '.join(names) or '(none)'}; expected {', '.join(self.joint_names)}"
                )
            given = given[[list(names).index(name) for name in self.joint_names]]
        if not np.all(np.isfinite(given)):
            raise CommandRefusedError(f"command efforts are not finite: {given.tolist()}; send finite N·m")
        clamped = np.clip(given, -self.limit, self.limit)
        return clamped, bool(np.any(clamped != given))
