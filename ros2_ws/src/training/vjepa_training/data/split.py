"""Which episodes of a dataset are held out from a training."""

import math

import numpy as np

from vjepa_interfaces.errors import VjepaError


def split_episodes(episodes: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the episodes to train on and of those held out, in rising order.

    One of every 1 / `share` episodes in a row is held out, drawn among them; of fewer episodes, one all the same. From
    that many on, episodes that are added behind the others change nothing for these.

    Args:
        episodes: numbers of episodes, in any order and each as often as it may be, such as those of rows.
        share: of the episodes that is held out, above 0 and below 1.
        seed: of the draw.

    Raises:
        VjepaError: fewer than two episodes.
    """
    numbers = np.unique(episodes)
    if len(numbers) < 2:
        raise VjepaError(f"{len(numbers)} episodes cannot be split in 2, to train on and to hold out; give more")
    groups = math.ceil(len(numbers) * share)
    edges = np.ceil(np.arange(groups + 1) / share).astype(int)
    chosen = edges[:-1] + (np.random.default_rng((seed, 6)).random(groups) * np.diff(edges)).astype(int)
    chosen[0] %= len(numbers)
    is_held_out = np.isin(np.arange(len(numbers)), chosen)
    return numbers[~is_held_out], numbers[is_held_out]
