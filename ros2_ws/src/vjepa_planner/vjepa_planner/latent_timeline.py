"""What the stamps of latents tell: where episodes begin, and how far apart frames are."""

import math

from vjepa_interfaces.stamps import begins_episode
from vjepa_interfaces.statistics import Durations

PERIODS, FEWEST_PERIODS = 250, 50
"""Distances between stamps that are kept, and that are needed for a median."""
PERIOD_TOLERANCE = 0.1


class LatentTimeline:
    """The stamps of the latents that a planner was given since it was activated.

    Attributes:
        stamp_ns: of the newest, nanoseconds; None before the first.
        episode: number of the episode, from 0; -1 before the first.
    """

    def __init__(self) -> None:
        self.stamp_ns: int | None = None
        self.episode = -1
        self._periods = Durations(PERIODS)

    def advance(self, stamp_ns: int) -> bool:
        """Take in the stamp of the next latent, and return whether it begins an episode."""
        begins = begins_episode(self.stamp_ns, stamp_ns)
        if begins:
            self.episode += 1
        elif self.stamp_ns is not None:
            self._periods.add((stamp_ns - self.stamp_ns) * 1e-9)
        self.stamp_ns = stamp_ns
        return begins

    @property
    def period_ms(self) -> float:
        """The median distance between stamps, milliseconds; NaN where there are too few.

        It is that of the camera as long as perception leaves out fewer than half of its frames.
        """
        return self._periods.percentiles(50)[0] if len(self._periods) >= FEWEST_PERIODS else math.nan

    def is_unlike(self, trained_period_s: float) -> bool:
        """Return whether frames are known to be further apart, or nearer, than those of a training, by over a tenth."""
        return abs(self.period_ms / (trained_period_s * 1e3) - 1) > PERIOD_TOLERANCE  # False for NaN.
