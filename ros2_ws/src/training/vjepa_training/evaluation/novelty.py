"""Measure how novel the latents of an evaluation were to its planner, and how well novelty separates two looks."""

from collections.abc import Iterable, Sequence
from typing import TypedDict

import numpy as np

from sim_bridge.score import Episode

QUANTILES = 201


class NoveltyFigures(TypedDict, total=False):
    """The fields of a result about the novelty of its latents; empty if the planner has no such measure.

    Attributes:
        novel_share: share of the latents beyond the limit of the planner's training.
        novelty_quantiles: novelty at `QUANTILES` even steps from the least to the greatest.
    """

    novel_share: float
    novelty_quantiles: list[float]


def novelty_of(episodes: Iterable[Episode]) -> NoveltyFigures:
    """Return the novelty of the latents of all episodes."""
    values = [value for episode in episodes for value in episode.novelty if value is not None]
    if not values:
        return {}
    quantiles = np.quantile(values, np.linspace(0, 1, QUANTILES))
    return {"novel_share": float(np.mean(np.array(values) > 1)), "novelty_quantiles": quantiles.round(4).tolist()}


def auroc(nominal: Sequence[float], other: Sequence[float]) -> float:
    """Return the area under the ROC curve of separating latents of another look from nominal ones by their novelty.

    The area is the chance that a latent of the other look is more novel than a nominal one (Mann and Whitney 1947). 0.5
    is no separation, 1 is full separation.

    Args:
        nominal: quantiles of the nominal look's novelty at even steps.
        other: quantiles of the other look's novelty at the same steps.
    """
    first, second = np.asarray(nominal)[:, None], np.asarray(other)[None]
    return float(((second > first) + 0.5 * (second == first)).mean())
