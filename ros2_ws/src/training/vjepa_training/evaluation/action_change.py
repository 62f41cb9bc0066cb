"""Measure how steady an arm is: the change of the action from step to step while the fingertip rests in the target."""

from collections.abc import Iterable, Sequence

import numpy as np

FULL_REWARD = 1.0
"""The reward of a step that ends in the target, the largest reward of dm_control's tasks."""


def action_change_at_rest(episodes: Iterable[tuple[Sequence[float], Sequence[np.ndarray | None]]]) -> float | None:
    """Return the mean absolute change of the action from one step to the next in the target, 0 to 2.

    A pair of consecutive steps of an episode counts if both have the full reward and both actions are known. The mean
    is over joints and pairs of all episodes together. 0 is a steady torque; 2 reverses the full torque of every joint
    at every step.

    Args:
        episodes: for each step of each episode the reward and the action (n,) in [-1, 1] that was applied; None for an
            unknown action.

    Returns:
        The mean; None if no pair counts.
    """
    total, count = 0.0, 0
    for rewards, actions in episodes:
        before: np.ndarray | None = None
        for reward, action in zip(rewards, actions, strict=True):
            resting = action if reward >= FULL_REWARD else None
            if before is not None and resting is not None:
                total += float(np.abs(resting - before).mean())
                count += 1
            before = resting
    return total / count if count else None
