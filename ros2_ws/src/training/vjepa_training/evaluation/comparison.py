"""Two planners on the same seeds: which is better, and how sure that is; and whether those seeds are held out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vjepa_interfaces.errors import VjepaError
from vjepa_training.evaluation.bootstrap import bootstrap_interval

SAME = ("task", "encoder_fingerprint", "through", "protocol", "episode_steps", "seed", "episodes")
"""Fields of a result that must be equal for its episodes to be those of another, with another planner."""


@dataclass(frozen=True)
class Comparison:
    """What a candidate is beyond an incumbent, paired over seeds.

    Attributes:
        difference: mean over the seeds of the candidate's return less the incumbent's.
        interval_95: 95 % percentile-bootstrap interval of that mean, which resamples pairs.
    """

    difference: float
    interval_95: tuple[float, float]

    @property
    def better(self) -> bool:
        """Whether the candidate's mean return is higher."""
        return self.difference > 0


def compare(incumbent: Mapping[str, Any], candidate: Mapping[str, Any]) -> Comparison:
    """Compare two results of `vjepa eval`, episode by episode.

    Args:
        incumbent: what there was, in the form of the JSON of a result.
        candidate: what may take its place.

    Raises:
        VjepaError: they are not of the same episodes; in what they differ is named.
    """
    differing = [
        f"{name} {incumbent.get(name)} and {candidate.get(name)}"
        for name in SAME
        if incumbent.get(name) != candidate.get(name)
    ]
    if differing:
        raise VjepaError(f"results of different episodes cannot be paired: {', '.join(differing)}; evaluate both alike")
    differences = np.subtract(candidate["returns"], incumbent["returns"]).tolist()
    return Comparison(float(np.mean(differences)), bootstrap_interval(differences))


def require_held_out(sources: Iterable[Mapping[str, Any]], seed: int, episodes: int) -> None:
    """Refuse to evaluate on seeds of which a dataset has episodes, as far as its `sources` say of which seeds it is.

    Args:
        sources: of the dataset, as `DatasetInfo` has them.
        seed: of the first episode of the evaluation.
        episodes: of the evaluation.

    Raises:
        VjepaError: some are the same; they are named.
    """
    for source in sources:
        recorded = source.get("recorded_with") or {}
        try:
            first, count = int(source.get("seed", recorded.get("seed"))), int(source["episodes"])
        except (KeyError, TypeError, ValueError):
            continue
        low, high = max(first, seed), min(first + count, seed + episodes)
        if low < high:
            raise VjepaError(
                f"the data has episodes of the seeds {low} to {high - 1}, which are to evaluate what is trained on it; "
                f"choose seeds outside {first} to {first + count - 1}"
            )
