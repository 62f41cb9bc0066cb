"""Novelty: the distance of a latent from the latents of a bundle's training, so that a policy can detect a bad view.

A Gaussian describes the training's latents. It has a variance for each principal component, and one variance for all
other directions (Tipping and Bishop, Probabilistic Principal Component Analysis, 1999). The distance is Mahalanobis'.
It is divided by a limit that hardly any latent of the training's kind exceeds, so 1 means the same for every bundle.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from vjepa_interfaces.bundle import Bundle, BundleError
from vjepa_interfaces.files import write_atomically

NOVELTY_FILE = "novelty.safetensors"
"""The file beside the weights of a bundle."""


@dataclass(frozen=True, eq=False)
class Novelty:
    """The distribution of a training's latents. All arrays are float32.

    Attributes:
        rows: rows of a latent that count, in order.
        mean: (len(rows), dimension), mean of the latents.
        directions: (k, len(rows) * dimension), orthonormal: the principal components with the largest variances.
        variances: (k,) variances of the latents along `directions`, above 0.
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
        """Return the novelty of each latent. Above 1, a latent is unlike nearly all latents of the training.

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
    """Write `novelty` into the `folder` of a bundle, with the `command` that measured it."""
    names = ("mean", "directions", "variances", "rest", "limit")
    arrays = {name: np.ascontiguousarray(getattr(novelty, name), dtype=np.float32) for name in names}
    arrays["directions"] = arrays["directions"].astype(np.float16)  # They are most of the file.
    write_atomically(Path(folder) / NOVELTY_FILE, save(arrays, {"command": command}))


def copy_novelty(bundle: Bundle, folder: Path | str) -> None:
    """Copy the novelty of `bundle` to a bundle in `folder` that reads the same latents.

    If `bundle` has none, an older file in `folder` is removed.
    """
    known, copy = bundle.path / NOVELTY_FILE, Path(folder) / NOVELTY_FILE
    if known.is_file():
        write_atomically(copy, known.read_bytes())
    else:
        copy.unlink(missing_ok=True)


def load_novelty(bundle: Bundle, rows: tuple[int, ...], dimension: int) -> Novelty | None:
    """Return the distribution of the latents in a bundle's training; None if the bundle has no such file.

    Args:
        bundle: the bundle.
        rows: rows of a latent that it reads.
        dimension: dimension of a row.

    Raises:
        BundleError: the file is not readable, or is for other latents.
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
        raise BundleError(f"{path} has arrays of the shapes {found}; expected {expected} for the bundle's latents")
    positive = np.concatenate([variances, [rest, limit]])
    if not (np.isfinite(mean).all() and np.isfinite(directions).all() and (positive > 0).all()):
        raise BundleError(f"{path} has values that are not finite, or variances that are not above 0")
    return Novelty(rows, mean, directions, variances, rest, limit)
