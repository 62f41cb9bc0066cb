"""Choose the episodes of a dataset that a training holds out."""

import math

import numpy as np

from vjepa_interfaces.errors import VjepaError


def split_episodes(episodes: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the episodes to train on and of the held-out episodes, in rising order.

    One of every 1 / `share` consecutive episodes is held out, drawn at random. If there are fewer, one is held out.
    From 1 / `share` episodes on, new episodes behind them do not change the choice among the earlier ones.

    Args:
        episodes: numbers of episodes, in any order and repeated any number of times, such as those of rows.
        share: share of the episodes that is held out, above 0 and below 1.
        seed: seed of the draw.

    Raises:
        VjepaError: there are fewer than two episodes.
    """
    numbers = np.unique(episodes)
    if len(numbers) < 2:
        raise VjepaError(f"{len(numbers)} episodes cannot be split into training and validation; give more episodes")
    groups = math.ceil(len(numbers) * share)
    edges = np.ceil(np.arange(groups + 1) / share).astype(int)
    chosen = edges[:-1] + (np.random.default_rng((seed, 6)).random(groups) * np.diff(edges)).astype(int)
    chosen[0] %= len(numbers)
    is_held_out = np.isin(np.arange(len(numbers)), chosen)
    return numbers[~is_held_out], numbers[is_held_out]
