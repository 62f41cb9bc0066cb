"""Compare imagined with real distances from fingertip to target, by steps ahead and in examples."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vjepa_planner.contract import Imagined

EXAMPLE_STEPS = 100
"""Number of control steps of an example, from the episode's start."""
EXAMPLE_STRIDE = 2
"""Number of predictions between two plans that an example shows."""

Way = tuple[Sequence[float], Sequence[Imagined | None]]
"""An episode: the distance at each of its frames, m, and the imagined distances at each frame with a plan."""


def compare_with_what_happened(ways: Sequence[Way]) -> dict[str, Any]:
    """Return the errors of the imagined distances, and examples; empty if nothing was imagined.

    Args:
        ways: the episodes, each with predictions of the same number and length.

    Returns:
        `ahead`, an entry for each prediction; 0 steps ahead is the present in the planner's model. An entry contains
            `steps` and the means `imagined` and `happened`, m. It also contains the root mean square error `rmse` and
            its median over episodes `median_rmse`. Both exist also for a prediction of no change, as `no_change_...`.
            `count` is the number of plans, without plans that the episode's end overtakes. `examples` are the episodes
            of middle and of greatest error over all predictions, as `which` states. Each has its number `episode`, the
            `steps` from point to point, the distances that `happened`, and those `imagined` by a plan every `every`
            steps.
    """
    told = {i: way for i, way in enumerate(ways) if any(plan is not None for plan in way[1])}
    if not told:
        return {}
    first = next(plan for _, plans in told.values() for plan in plans if plan is not None)
    ahead, pairs = [], []
    for prediction in range(len(first.distance)):
        found = {i: _pairs(way, prediction) for i, way in told.items()}
        found = {i: rows for i, rows in found.items() if len(rows)}
        if found:
            ahead.append({"steps": prediction * first.steps, **_figures(list(found.values()))})
            pairs.append(found)
    off = {i: _rms(np.concatenate([found[i] for found in pairs if i in found]))[0] for i in told}
    ranked = sorted(off, key=lambda i: off[i])
    chosen = {ranked[-1]: "greatest", ranked[(len(ranked) - 1) // 2]: "middle"}
    return {
        "ahead": ahead,
        "examples": [{"which": chosen[i], "episode": i, **_example(told[i], first.steps)} for i in reversed(chosen)],
    }


def _pairs(way: Way, prediction: int) -> np.ndarray:
    """Return (plans, 3): the imagined distance, the real distance, and the present distance in the plan."""
    distances, plans = way
    rows = [
        (plan.distance[prediction], distances[i + prediction * plan.steps], plan.distance[0])
        for i, plan in enumerate(plans)
        if plan is not None and i + prediction * plan.steps < len(distances)
    ]
    return np.reshape(rows, (-1, 3))


def _figures(episodes: Sequence[np.ndarray]) -> dict[str, float]:
    together = np.concatenate(episodes)
    rmse, no_change_rmse = _rms(together)
    median_rmse, no_change_median_rmse = np.median([_rms(rows) for rows in episodes], axis=0)
    return {
        "imagined": float(together[:, 0].mean()),
        "happened": float(together[:, 1].mean()),
        "rmse": rmse,
        "no_change_rmse": no_change_rmse,
        "median_rmse": float(median_rmse),
        "no_change_median_rmse": float(no_change_median_rmse),
        "count": len(together),
    }


def _rms(rows: np.ndarray) -> tuple[float, float]:
    """Return the root mean square difference from the real distance, of the imagined one and of no change."""
    imagined, happened, seen = rows.T
    return float(np.sqrt(np.square(imagined - happened).mean())), float(np.sqrt(np.square(seen - happened).mean()))


def _example(way: Way, steps: int) -> dict[str, Any]:
    distances, plans = way
    every = EXAMPLE_STRIDE * steps
    return {
        "steps": steps,
        "happened": np.round(distances[: EXAMPLE_STEPS + 1 : steps], 4).tolist(),
        "every": every,
        "imagined": [None if plan is None else plan.distance.round(4).tolist() for plan in plans[:EXAMPLE_STEPS:every]],
    }
