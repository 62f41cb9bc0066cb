"""How novel the latents of an evaluation were to its planner, and how well that tells two looks apart."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from sim_bridge.score import Episode

QUANTILES = 201


def novelty_of(episodes: Iterable[Episode]) -> dict[str, Any]:
    """Return what a result says of the novelty of its latents; nothing where the planner does not know.

    Returns:
        `novel_share`, of the latents, those beyond the limit of the planner's training, and `novelty_quantiles`, at
        `QUANTILES` even steps from the least to the greatest.
    """
    values = [value for episode in episodes for value in episode.novelty if value is not None]
    if not values:
        return {}
    quantiles = np.quantile(values, np.linspace(0, 1, QUANTILES))
    return {"novel_share": float(np.mean(np.array(values) > 1)), "novelty_quantiles": quantiles.round(4).tolist()}


def auroc(nominal: Sequence[float], other: Sequence[float]) -> float:
    """Return the area under the ROC curve of telling latents of another look from nominal ones by their novelty.

    It is the chance that one drawn of the other look is more novel than one drawn of the nominal (Mann and Whitney
    1947): 0.5 tells nothing, 1 all.

    Args:
        nominal: quantiles of the novelty at even steps.
        other: the same of the other look.
    """
    first, second = np.asarray(nominal)[:, None], np.asarray(other)[None]
    return float(((second > first) + 0.5 * (second == first)).mean())
