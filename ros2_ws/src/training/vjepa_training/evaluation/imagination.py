"""Compare imagined with real distances from fingertip to target, by steps ahead and in examples."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from vjepa_planner.contract import Imagined

EXAMPLE_STEPS = 100
"""Number of control steps of an example, from the episode's start."""
EXAMPLE_STRIDE = 2
"""Number of predictions between two plans that an example shows."""

Way = tuple[Sequence[float], Sequence[Imagined | None]]
"""An episode: the distance at each of its frames, m, and the imagined distances at each frame with a plan."""


class Errors(TypedDict):
    """Errors of the imagined distances, m, of one prediction.

    Attributes:
        imagined: mean of the imagined distances.
        happened: mean of the real distances.
        rmse: root mean square error.
        no_change_rmse: the same of a prediction of no change.
        median_rmse: median over episodes of the root mean square error.
        no_change_median_rmse: the same of a prediction of no change.
        count: number of plans, without plans that the episode's end overtakes.
    """

    imagined: float
    happened: float
    rmse: float
    no_change_rmse: float
    median_rmse: float
    no_change_median_rmse: float
    count: int


class ErrorsAhead(Errors):
    """Errors of a prediction some control steps ahead; 0 steps ahead is the present in the planner's model."""

    steps: int


class Example(TypedDict):
    """Imagined and real distances, m, of an episode.

    Attributes:
        which: `middle` or `greatest`: the episode's rank by its error over all predictions.
        episode: number of the episode.
        steps: control steps from point to point.
        happened: the real distances.
        every: control steps from one plan to the next.
        imagined: the imagined distances of each plan; None where there was no plan.
    """

    which: str
    episode: int
    steps: int
    happened: list[float]
    every: int
    imagined: list[list[float] | None]


class ImaginedAndReal(TypedDict):
    """The comparison of imagined with real distances: an entry for each prediction, and one or two examples."""

    ahead: list[ErrorsAhead]
    examples: list[Example]


def compare_with_what_happened(ways: Sequence[Way]) -> ImaginedAndReal | None:
    """Return the errors of the imagined distances, and examples; None if nothing was imagined.

    Args:
        ways: the episodes, each with predictions of the same number and length.
    """
    told = {i: way for i, way in enumerate(ways) if any(plan is not None for plan in way[1])}
    if not told:
        return None
    first = next(plan for _, plans in told.values() for plan in plans if plan is not None)
    ahead: list[ErrorsAhead] = []
    pairs = []
    for prediction in range(len(first.distance)):
        found = {i: _pairs(way, prediction) for i, way in told.items()}
        found = {i: rows for i, rows in found.items() if len(rows)}
        if found:
            ahead.append({"steps": prediction * first.steps, **_errors(list(found.values()))})
            pairs.append(found)
    off = {i: _rms(np.concatenate([found[i] for found in pairs if i in found]))[0] for i in told}
    ranked = sorted(off, key=lambda i: off[i])
    chosen = {ranked[-1]: "greatest", ranked[(len(ranked) - 1) // 2]: "middle"}
    return {
        "ahead": ahead,
        "examples": [_example(chosen[i], i, told[i], first.steps) for i in reversed(chosen)],
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


def _errors(episodes: Sequence[np.ndarray]) -> Errors:
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


def _example(which: str, episode: int, way: Way, steps: int) -> Example:
    distances, plans = way
    every = EXAMPLE_STRIDE * steps
    return {
        "which": which,
        "episode": episode,
        "steps": steps,
        "happened": np.round(distances[: EXAMPLE_STEPS + 1 : steps], 4).tolist(),
        "every": every,
        "imagined": [None if plan is None else plan.distance.round(4).tolist() for plan in plans[:EXAMPLE_STEPS:every]],
    }
