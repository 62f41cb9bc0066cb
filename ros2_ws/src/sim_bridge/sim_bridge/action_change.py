"""Measure how steady an arm is: the change of the action from step to step while the fingertip rests in the target."""

from dataclasses import dataclass, field

import numpy as np

FULL_REWARD = 1.0
"""The reward of a step that ends in the target, the largest reward of dm_control's tasks."""


@dataclass
class ActionChange:
    """The absolute change of the action from one step to the next in the target, 0 to 2, of one or more episodes.

    A pair of consecutive steps of an episode counts if both have the full reward. The mean is over joints and pairs.
    0 is a steady torque; 2 reverses the full torque of every joint at every step.

    Attributes:
        total: sum over pairs of the mean over joints.
        pairs: number of pairs.
    """

    total: float = 0.0
    pairs: int = 0
    _resting: np.ndarray | None = field(default=None, repr=False, compare=False)

    def add(self, reward: float, action: np.ndarray) -> None:
        """Add the next step of an episode.

        Args:
            reward: reward of the step.
            action: (n,) in [-1, 1], applied during the step.
        """
        resting = action if reward >= FULL_REWARD else None
        if self._resting is not None and resting is not None:
            self.total += float(np.abs(resting - self._resting).mean())
            self.pairs += 1
        self._resting = resting

    @property
    def mean(self) -> float | None:
        """The mean over joints and pairs; None if no pair counts."""
        return self.total / self.pairs if self.pairs else None
