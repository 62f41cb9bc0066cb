"""Views of a latent for people: a picture, and a point in a plane."""

import numpy as np

DEVIATIONS = 3.0
"""Standard deviations from the mean that are drawn black and white."""
PROJECTION_SEED = 0


def latent_picture(latent: np.ndarray) -> np.ndarray:
    """Return the grey levels, uint8 (rows, dimension), of a latent of this shape; its mean is the middle grey."""
    deviation = float(latent.std()) or 1.0
    scaled = (latent - latent.mean()) / (DEVIATIONS * deviation)
    return np.clip(np.rint(127.5 * (1.0 + scaled)), 0, 255).astype(np.uint8)


class Projection:
    """The mean row of a latent in two random directions, which are the same in every run.

    A random projection keeps distances, up to a factor, in the mean (Johnson and Lindenstrauss 1984). It needs no
    frames for a fit, so the first frame has a place too, and two runs of one encoder can be compared.
    """

    def __init__(self) -> None:
        self._directions: dict[int, np.ndarray] = {}

    def point(self, latent: np.ndarray) -> np.ndarray:
        """Return the place of a latent (rows, dimension): (2,) float64."""
        dimension = latent.shape[1]
        if dimension not in self._directions:
            drawn = np.random.default_rng(PROJECTION_SEED).standard_normal((dimension, 2))
            self._directions[dimension] = drawn / np.sqrt(dimension)
        return latent[0].astype(np.float64) @ self._directions[dimension]
