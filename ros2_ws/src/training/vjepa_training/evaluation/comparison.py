"""Compare two planners on the same seeds, with an interval of the difference, and check that seeds are held out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vjepa_interfaces.errors import VjepaError
from vjepa_training.evaluation.bootstrap import bootstrap_interval

if TYPE_CHECKING:  # Commands import this module, and most need no pyarrow.
    from vjepa_training.data.dataset import Source

SAME = ("task", "encoder_fingerprint", "through", "protocol", "episode_steps", "seed", "episodes")
"""Fields that must be equal in two results for their episodes to be the same, with another planner."""


@dataclass(frozen=True)
class Comparison:
    """The difference of a candidate from an incumbent, paired over seeds.

    Attributes:
        difference: mean over the seeds of the candidate's return minus the incumbent's.
        interval_95: 95 % percentile-bootstrap interval of that mean, from resampled pairs.
    """

    difference: float
    interval_95: tuple[float, float]

    @property
    def better(self) -> bool:
        """Return whether the candidate's mean return is higher."""
        return self.difference > 0


def compare(incumbent: Mapping[str, Any], candidate: Mapping[str, Any]) -> Comparison:
    """Compare two results of `vjepa eval`, episode by episode.

    Args:
        incumbent: the present planner's result, in the form of its JSON.
        candidate: the result of the planner that may replace it.

    Raises:
        VjepaError: they are of different episodes; the message names the difference.
    """
    differing = [
        f"{name} {incumbent.get(name)} and {candidate.get(name)}"
        for name in SAME
        if incumbent.get(name) != candidate.get(name)
    ]
    if differing:
        raise VjepaError(
            f"results of different episodes cannot be paired: {', '.join(differing)}; evaluate both on equal episodes"
        )
    differences = np.subtract(candidate["returns"], incumbent["returns"]).tolist()
    return Comparison(float(np.mean(differences)), bootstrap_interval(differences))


def require_held_out(sources: "Iterable[Source]", seed: int, episodes: int) -> None:
    """Refuse to evaluate on seeds of a dataset's episodes, if its `sources` state seeds.

    Args:
        sources: the dataset's `DatasetInfo.sources`.
        seed: seed of the evaluation's first episode.
        episodes: number of the evaluation's episodes.

    Raises:
        VjepaError: some seeds are the same; the message names them.
    """
    for source in sources:
        known: dict[str, Any] = {**(source.get("recorded_with") or {}), **source}
        try:
            first, count = int(known["seed"]), int(source["episodes"])
        except (KeyError, TypeError, ValueError):
            continue
        low, high = max(first, seed), min(first + count, seed + episodes)
        if low < high:
            raise VjepaError(
                f"the data has episodes of the seeds {low} to {high - 1}, on which the evaluation would run; "
                f"choose seeds outside {first} to {first + count - 1}"
            )
