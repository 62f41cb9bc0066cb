"""Fit linear probes of frozen features, with intervals of their figures.

Quantities are read by ridge regression, classes by regularised LDA, both in closed form from one pass over the rows.
The products of all columns are summed in float64, so memory grows with the features and not with the rows. A feature's
penalty is relative to its variance, as if all features were standardised. Held-out episodes choose the penalty. See
Alain and Bengio, "Understanding intermediate layers using linear classifier probes" (2016).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from vjepa_interfaces.errors import VjepaError
from vjepa_training.evaluation.bootstrap import bootstrap_interval

RIDGES = tuple(10.0**exponent for exponent in range(-6, 2))
"""Candidate penalties, relative to each feature's variance."""

HELD_SHARE = 0.25
"""Share of the training episodes that choose a penalty."""


_BLOCK_VALUES = 2**23
_CONSTANT = 1e-12
"""A feature is constant if its variance is at most this share of its mean square."""


class ProbeError(VjepaError):
    """Features or targets that cannot be probed; the message names them and states what was expected."""


class Features(Protocol):
    """Rows of features, read in blocks: an array, a tensor, or a dataset's column; each row is flattened."""

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def __getitem__(self, rows: Any, /) -> Any:
        """Return the rows whose numbers are in an array of whole numbers."""
        ...


@dataclass(frozen=True)
class LinearMap:
    """The result of a linear probe's training: `(x - mean) @ weight + bias`.

    Attributes:
        mean: (d,) float64, of the features.
        weight: (d, k) float64.
        bias: (k,) float64.
        ridges: (k,) the penalty chosen for each output.
    """

    mean: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor
    ridges: tuple[float, ...]

    def __call__(self, features: Features, rows: np.ndarray | None = None) -> np.ndarray:
        """Return the outputs of all rows of `features`, or of the rows with the numbers `rows`: (N, k) float64."""
        blocks = _blocks(features, rows, self.mean.device)
        found = [((block - self.mean) @ self.weight + self.bias).cpu().numpy() for _, block in blocks]
        return np.concatenate(found) if found else np.empty((0, len(self.bias)))


def fit_ridge(
    features: Features, targets: np.ndarray, held: np.ndarray, device: torch.device | str = "cpu"
) -> LinearMap:
    """Return the ridge regression of `targets` on `features` (Hoerl and Kennard 1970).

    Each target's penalty is the one in `RIDGES` with the least error on the rows `held` of a fit on the others. The
    returned regression is fitted to all rows with this penalty.

    Args:
        features: (N, ...).
        targets: (N, k) or (N,) float.
        held: (N,) bool.
        device: device of the computation.

    Raises:
        ProbeError: numbers of rows do not match, a value is not finite, or no row is held or none is left.
    """
    fit, rest = _moments(features, _two_dimensional(targets), held, device)
    fit.move(fit.mean)
    rest.move(fit.origin)
    held_xx, held_xy, held_yy = rest.parts()
    errors = []
    for ridge in RIDGES:
        weight = _solved(fit, ridge)
        errors.append(held_yy - 2 * (weight * held_xy).sum(0) + (weight * (held_xx @ weight)).sum(0))
    best = torch.stack(errors).argmin(0).cpu().numpy()
    fit.merge(rest)
    fit.move(fit.mean)
    weight = torch.empty_like(held_xy)
    for i in np.unique(best):
        columns = torch.as_tensor(best == i, device=weight.device)
        weight[:, columns] = _solved(fit, RIDGES[i])[:, columns]
    d = fit.features
    return LinearMap(fit.origin[:d], weight, fit.origin[d:], tuple(RIDGES[i] for i in best))


def fit_classes(
    features: Features, classes: np.ndarray, held: np.ndarray, device: torch.device | str = "cpu"
) -> LinearMap:
    """Return a linear classifier, whose largest output is the class.

    It is an LDA: one covariance for all classes, with an enlarged diagonal (Friedman, "Regularized Discriminant
    Analysis", 1989). Unlike regression on class indicators, it does not mask a class between two others. The penalty is
    chosen as in `fit_ridge`, by the share of correct answers.

    Args:
        features: (N, ...).
        classes: (N,) whole numbers from 0.
        held: (N,) bool.
        device: device of the computation.

    Raises:
        ProbeError: as `fit_ridge`.
    """
    classes = np.asarray(classes)
    indicators = np.eye(classes.max() + 1)[classes]
    fit, rest = _moments(features, indicators, held, device)
    fit.move(fit.mean)
    rows = np.flatnonzero(held)
    right = [np.mean(_discriminants(fit, ridge)(features, rows).argmax(1) == classes[rows]) for ridge in RIDGES]
    best = len(RIDGES) - 1 - int(np.argmax(right[::-1]))  # Of equal penalties, the largest.
    rest.move(fit.origin)
    fit.merge(rest)
    fit.move(fit.mean)
    return _discriminants(fit, RIDGES[best])


@dataclass(frozen=True)
class Score:
    """A figure over test rows with its 95 % percentile-bootstrap interval over episodes (Efron 1979)."""

    value: float
    interval_95: tuple[float, float]


def r2_score(predicted: np.ndarray, truth: np.ndarray, episodes: np.ndarray) -> Score:
    """Return the coefficient of determination, with errors and variances summed over the k components.

    Args:
        predicted: (N, k).
        truth: (N, k).
        episodes: (N,) the episode of each row.
    """
    centred = truth - truth.mean(axis=0)
    k = truth.shape[1]

    def r2(means: np.ndarray) -> np.ndarray:
        count, error, total, square = means[:, 0], means[:, 1], means[:, 2 : 2 + k], means[:, 2 + k]
        variation = square - (total**2).sum(axis=1) / count
        return 1 - np.divide(error, variation, out=np.full_like(error, np.nan), where=variation > 0)

    columns = [np.ones(len(truth)), np.square(predicted - truth).sum(1), *centred.T, np.square(centred).sum(1)]
    return _bootstrapped(np.stack(columns, axis=1), episodes, r2)


def rmse_score(errors: np.ndarray, episodes: np.ndarray) -> Score:
    """Return the root of the mean square over rows and components of `errors`, (N, k)."""
    columns = np.stack([np.ones(len(errors)), np.square(errors).mean(axis=1)], axis=1)
    return _bootstrapped(columns, episodes, lambda means: np.sqrt(means[:, 1] / means[:, 0]))


def accuracy_score(predicted: np.ndarray, classes: np.ndarray, episodes: np.ndarray) -> Score:
    """Return the share of correct answers of `predicted`, (N,), for `classes`, (N,)."""
    columns = np.stack([np.ones(len(classes)), predicted == classes], axis=1)
    return _bootstrapped(columns, episodes, lambda means: means[:, 1] / means[:, 0])


def _bootstrapped(columns: np.ndarray, episodes: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]) -> Score:
    """Return the `statistic` of the rows' sums by episode, averaged over episodes, and its interval over episodes.

    A statistic is undefined if a resample repeats a single episode that does not vary.
    """
    numbers, inverse = np.unique(episodes, return_inverse=True)
    sums = np.zeros((len(numbers), columns.shape[1]))
    np.add.at(sums, inverse, columns)
    return Score(float(statistic(sums.mean(0, keepdims=True))[0]), bootstrap_interval(sums, statistic))


class _Moments:
    """Count, sums and products of rows z = (features, targets), about an origin that can be moved later."""

    def __init__(self, origin: torch.Tensor, features: int):
        self.origin, self.features = origin, features
        self.count = 0
        self._sum = torch.zeros_like(origin)
        self._product = origin.new_zeros(len(origin), len(origin))

    def add(self, rows: torch.Tensor) -> None:
        shifted = rows - self.origin
        self.count += len(rows)
        self._sum += shifted.sum(0)
        self._product.addmm_(shifted.T, shifted)

    @property
    def mean(self) -> torch.Tensor:
        return self.origin + self._sum / self.count

    def move(self, origin: torch.Tensor) -> None:
        shift = origin - self.origin
        self._product.addr_(shift, self._sum, alpha=-1).addr_(self._sum, shift, alpha=-1)
        self._product.addr_(shift, shift, alpha=self.count)
        self._sum -= self.count * shift
        self.origin = origin

    def merge(self, other: "_Moments") -> None:
        """Add the rows of `other`, which has the same origin."""
        self.count += other.count
        self._sum += other._sum
        self._product += other._product

    def parts(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the products of features (d, d), of features and targets (d, k), and of each target (k,)."""
        d = self.features
        return self._product[:d, :d], self._product[:d, d:], self._product.diagonal()[d:]


def _moments(
    features: Features, targets: np.ndarray, held: np.ndarray, device: torch.device | str
) -> tuple[_Moments, _Moments]:
    """Return the moments of the rows that are not `held`, and of the held rows."""
    held = np.asarray(held, bool)
    if not len(features) == len(targets) == len(held):
        raise ProbeError(f"{len(features)} rows of features, {len(targets)} of targets and {len(held)} of the split")
    if not np.isfinite(targets).all():
        raise ProbeError(
            f"{np.count_nonzero(~np.isfinite(targets))} target values are not finite; leave those rows out"
        )
    if held.all() or not held.any():
        raise ProbeError(f"{held.sum()} of {len(held)} rows are held out; expected some, but not all")
    wanted = torch.as_tensor(targets, dtype=torch.float64, device=device)
    found: list[_Moments] = []
    for mask in (~held, held):
        for rows, block in _blocks(features, np.flatnonzero(mask), device):
            joined = torch.cat([block, wanted[torch.as_tensor(rows, device=wanted.device)]], dim=1)
            if not found:
                found = [_Moments(joined.mean(0), block.shape[1]) for _ in range(2)]
            found[int(mask is held)].add(joined)
    if not all(bool(torch.isfinite(moments.mean).all()) for moments in found):
        raise ProbeError("the features have values that are not finite; the encoder that made them is damaged")
    return found[0], found[1]


def _solved(moments: _Moments, ridge: float) -> torch.Tensor:
    """Return the weights, (d, k), of the ridge regression; the moments are about their mean."""
    products, cross, _ = moments.parts()
    return _penalised_solution(moments, products, cross, ridge)


def _discriminants(moments: _Moments, ridge: float) -> LinearMap:
    """Return the linear classifier of the classes, whose indicators are the targets; moments about their mean."""
    products, cross, _ = moments.parts()
    shares = moments.origin[moments.features :]
    counts = shares * moments.count
    present = counts > 0.5
    means = torch.where(present, cross / counts.clamp(min=1), 0.0)
    within = products - (means * counts) @ means.T
    weight = _penalised_solution(moments, within, means * moments.count, ridge)
    bias = torch.where(present, shares.clamp(min=1e-300).log(), -torch.inf) - (means * weight).sum(0) / 2
    return LinearMap(moments.origin[: moments.features], weight, bias, (ridge,) * len(shares))


def _penalised_solution(moments: _Moments, matrix: torch.Tensor, right: torch.Tensor, ridge: float) -> torch.Tensor:
    """Solve for the weights, with `ridge` times each feature's sum of squares added to the diagonal of `matrix`."""
    squares = moments.parts()[0].diagonal()
    origin = moments.origin[: moments.features]
    constant = squares <= _CONSTANT * (squares + moments.count * origin**2)
    matrix = matrix.clone()
    matrix.diagonal().add_(torch.where(constant, 1.0, ridge * squares))
    return torch.where(constant[:, None], 0.0, torch.cholesky_solve(right, torch.linalg.cholesky(matrix)))


def _blocks(
    features: Features, rows: np.ndarray | None, device: torch.device | str
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Yield row numbers and the features of these rows, (n, d) float64 on `device`, in blocks of bounded size."""
    rows = np.arange(len(features)) if rows is None else rows
    if not len(rows):
        return
    length = max(1, _BLOCK_VALUES // int(np.prod(np.shape(features[rows[:1]]))))
    for start in range(0, len(rows), length):
        block = rows[start : start + length]
        values = features[block]
        tensor = values if isinstance(values, torch.Tensor) else torch.as_tensor(np.asarray(values))
        yield block, tensor.to(device=device, dtype=torch.float64).flatten(1)


def _two_dimensional(targets: np.ndarray) -> np.ndarray:
    targets = np.asarray(targets, np.float64)
    return targets[:, None] if targets.ndim == 1 else targets
