"""Stamps of latents: beginnings of episodes, and the period of frames."""

import math
from collections.abc import Sequence

from vjepa_interfaces.stamps import begins_episode
from vjepa_interfaces.statistics import Durations

PERIODS, FEWEST_PERIODS = 250, 50
"""The numbers of distances between stamps that are kept, and that a median needs."""
PERIOD_TOLERANCE = 0.1


class LatentTimeline:
    """The stamps of all latents since the planner's activation.

    Attributes:
        stamp_ns: stamp of the newest latent, nanoseconds; None before the first.
        episode: number of the episode, from 0; -1 before the first.
    """

    def __init__(self) -> None:
        self.stamp_ns: int | None = None
        self.episode = -1
        self._periods = Durations(PERIODS)

    def advance(self, stamp_ns: int) -> bool:
        """Add the stamp of the next latent, and return whether it begins an episode."""
        begins = begins_episode(self.stamp_ns, stamp_ns)
        if begins:
            self.episode += 1
        elif self.stamp_ns is not None:
            self._periods.add((stamp_ns - self.stamp_ns) * 1e-9)
        self.stamp_ns = stamp_ns
        return begins

    @property
    def period_ms(self) -> float:
        """The median distance between stamps, milliseconds; NaN if there are too few.

        It equals the camera's period while perception leaves out fewer than half of the frames.
        """
        return self._periods.percentiles(50)[0] if len(self._periods) >= FEWEST_PERIODS else math.nan

    def is_unlike(self, trained_periods_s: Sequence[float]) -> bool:
        """Return whether the periods of frames and of a training are known, and differ by more than a tenth."""
        differences = [abs(1e-3 * self.period_ms / period_s - 1) for period_s in trained_periods_s]
        return min(differences, default=0.0) > PERIOD_TOLERANCE  # False for NaN.
