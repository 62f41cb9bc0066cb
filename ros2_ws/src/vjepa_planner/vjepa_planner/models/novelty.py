"""Novelty: how far a latent is from those that a bundle was trained on, so that a policy knows when it cannot see.

The latents of the training are described by a Gaussian whose variance is known along their principal components and
taken to be one and the same in all other directions (Tipping and Bishop, Probabilistic Principal Component Analysis,
1999); the distance is that of Mahalanobis. It is divided by a limit that hardly any latent of the training's own kind
goes beyond, so that 1 means the same for every bundle.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from vjepa_interfaces.bundle import Bundle, BundleError
from vjepa_interfaces.files import write_atomically

NOVELTY_FILE = "novelty.safetensors"
"""Beside the weights of a bundle."""


@dataclass(frozen=True, eq=False)
class Novelty:
    """What the latents of a training were like. All arrays are float32.

    Attributes:
        rows: of a latent that are looked at, in order.
        mean: (len(rows), dimension), of the latents.
        directions: (k, len(rows) * dimension), orthonormal: the principal components with the largest variances.
        variances: (k,) of the latents along them, above 0.
        rest: variance along any other direction, above 0.
        limit: the distance that counts as 1, above 0.
    """

    rows: tuple[int, ...]
    mean: np.ndarray
    directions: np.ndarray
    variances: np.ndarray
    rest: float
    limit: float

    def of(self, latents: np.ndarray) -> np.ndarray:
        """Return how far each latent is from those of the training: above 1 it is unlike nearly all of them.

        Args:
            latents: (..., rows, dimension), all rows of the topic.

        Returns:
            (...,) float64, at least 0.
        """
        away = (latents[..., list(self.rows), :] - self.mean).reshape(*latents.shape[:-2], -1).astype(np.float32)
        along = away @ self.directions.T
        beside = np.maximum(np.square(away).sum(-1) - np.square(along).sum(-1), 0.0)
        squared = (np.square(along) / self.variances).sum(-1) + beside / self.rest
        return np.sqrt(squared.astype(np.float64)) / self.limit


def save_novelty(folder: Path | str, novelty: Novelty, command: str) -> None:
    """Write what the latents of a training were like into the folder of its bundle, with the command that found out."""
    names = ("mean", "directions", "variances", "rest", "limit")
    arrays = {name: np.ascontiguousarray(getattr(novelty, name), dtype=np.float32) for name in names}
    arrays["directions"] = arrays["directions"].astype(np.float16)  # They are most of the file.
    write_atomically(Path(folder) / NOVELTY_FILE, save(arrays, {"command": command}))


def copy_novelty(bundle: Bundle, folder: Path | str) -> None:
    """Give the bundle in `folder`, which reads the latents that `bundle` does, what `bundle` knows of these.

    Where `bundle` knows nothing, nothing is left in `folder` of what a bundle that was there before knew.
    """
    known, copy = bundle.path / NOVELTY_FILE, Path(folder) / NOVELTY_FILE
    if known.is_file():
        write_atomically(copy, known.read_bytes())
    else:
        copy.unlink(missing_ok=True)


def load_novelty(bundle: Bundle, rows: tuple[int, ...], dimension: int) -> Novelty | None:
    """Return what the latents of a bundle's training were like; None where the bundle does not say.

    Args:
        bundle: that may say so.
        rows: of a latent that it reads.
        dimension: of a row.

    Raises:
        BundleError: a file that is not readable, or not of such latents.
    """
    path = bundle.path / NOVELTY_FILE
    if not path.is_file():
        return None
    try:
        arrays = load(path.read_bytes())
        mean, directions, variances = (arrays[name].astype(np.float32) for name in ("mean", "directions", "variances"))
        rest, limit = (float(arrays[name].item()) for name in ("rest", "limit"))
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise BundleError(f"{path} is not readable: {error}; remove it, or get the whole bundle again") from error
    expected = ((len(rows), dimension), (len(directions), len(rows) * dimension), (len(directions),))
    found = tuple(array.shape for array in (mean, directions, variances))
    if found != expected:
        raise BundleError(f"{path} has arrays of the shapes {found}; expected {expected}, as the bundle's latents are")
    positive = np.concatenate([variances, [rest, limit]])
    if not (np.isfinite(mean).all() and np.isfinite(directions).all() and (positive > 0).all()):
        raise BundleError(f"{path} has values that are not finite, or variances that are not above 0")
    return Novelty(rows, mean, directions, variances, rest, limit)
