"""Fit the model of a training's latents that measures novelty, see `vjepa_planner.models.novelty`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from vjepa_planner.models.novelty import Novelty
from vjepa_training.data.dataset import LATENT, Dataset
from vjepa_training.data.split import split_episodes
from vjepa_training.trainers.moments import in_blocks, means_and_covariance

COMPONENTS = 128
FITTED_ROWS = 50_000
"""Largest number of latents for mean and components."""
HELD_OUT_SHARE = 0.1
"""Share of the episodes whose latents set the limit; mean and components are not fitted to them."""
COMMON_SHARE = 0.999
"""Share of the held-out latents within the limit."""


def fit_novelty(
    read: Callable[[np.ndarray], np.ndarray], rows: Sequence[int], episode: np.ndarray, seed: int
) -> Novelty:
    """Return a model of the latents, which measures novelty.

    Args:
        read: function from numbers of latents, (B,) in rising order, to the latents, (B, rows, dimension).
        rows: rows of a latent that are used.
        episode: (T,) number of the episode of each latent.
        seed: seed of the held-out episodes, and of the draw if there are more latents than needed.

    Raises:
        VjepaError: there are fewer than two episodes.
    """
    parts = split_episodes(episode, HELD_OUT_SHARE, seed)
    fitted, held_out = (_drawn(np.flatnonzero(np.isin(episode, part)), seed) for part in parts)
    origin = read(fitted[:1])[0, list(rows)].astype(np.float32)
    away = (torch.from_numpy(block[:, list(rows)] - origin).flatten(1) for block in _blocks(read, fitted))
    mean, _, covariance = means_and_covariance((block, block) for block in away)
    variances, directions = np.linalg.eigh(covariance.numpy())
    variances, directions = np.maximum(variances[::-1], 1e-12), directions.T[::-1]
    kept = min(COMPONENTS, origin.size - 1, len(fitted) - 1)
    novelty = Novelty(
        tuple(rows),
        origin + mean.numpy().reshape(origin.shape).astype(np.float32),
        directions[:kept].astype(np.float16).astype(np.float32),  # The precision of its file.
        variances[:kept].astype(np.float32),
        rest=float(variances[kept:].mean()),
        limit=1.0,
    )
    distances = np.concatenate([novelty.of(block) for block in _blocks(read, held_out)])
    return replace(novelty, limit=float(np.quantile(distances, COMMON_SHARE)))


def fit_to_dataset(dataset: Dataset, rows: Sequence[int], seed: int) -> Novelty:
    """Return a model of the latents of a dataset, see `fit_novelty`.

    Raises:
        VjepaError: it has no latents, or fewer than two episodes.
    """
    latents = dataset[LATENT]
    return fit_novelty(lambda index: latents[index], rows, np.asarray(dataset["episode_index"]), seed)


def _drawn(rows: np.ndarray, seed: int) -> np.ndarray:
    return np.sort(np.random.default_rng((seed, 21)).permutation(rows)[:FITTED_ROWS])


def _blocks(read: Callable[[np.ndarray], np.ndarray], numbers: np.ndarray) -> Iterator[np.ndarray]:
    for part in in_blocks(numbers):
        yield read(part).astype(np.float32)
