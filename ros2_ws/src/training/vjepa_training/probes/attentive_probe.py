"""Train attentive probes of frozen latents: a learned query for each target chooses what to read from which row.

The probe follows the attentive probe of V-JEPA (Bardes et al., "Revisiting Feature Prediction for Learning Visual
Representations from Video", 2024). A query attends to all rows once, then follow a two-layer network and a linear head.
This module adds a learned vector for each row, because pooled rows do not contain their place in the image.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from vjepa_training.probes.probe import Features, ProbeError


@dataclass(frozen=True)
class AttentiveTarget:
    """The target of one query.

    Attributes:
        values: (N, k) float, NaN if unknown; or (N,) whole numbers for classes, -1 if unknown.
        classes: number of classes; 0 for a quantity.
    """

    values: np.ndarray
    classes: int = 0

    @property
    def outputs(self) -> int:
        """Return the number of outputs: k, or one for each class."""
        return self.classes or self.values.shape[1]


@dataclass(frozen=True)
class AttentiveConfig:
    """Settings of the training of attentive probes.

    Attributes:
        epochs: passes over the training rows; the epoch with the least error on the held-out rows is kept.
        batch_size: rows of a gradient step.
        learning_rate: AdamW's at the start, falling to 0 as a cosine.
        weight_decay: AdamW's.
        width: largest width of queries and rows inside the probe; no wider than the latent.
        heads: attention heads.
    """

    epochs: int = 30
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    width: int = 256
    heads: int = 4


class AttentiveProbe(nn.Module):
    """One query for each target: `forward` maps standardised latents (B, rows, dimension) to (B, outputs) of each."""

    def __init__(self, rows: int, dimension: int, outputs: Sequence[int], config: AttentiveConfig):
        super().__init__()
        width = max(config.heads, min(dimension, config.width) // config.heads * config.heads)
        self.inlet = nn.Linear(dimension, width)
        self.places = nn.Parameter(torch.randn(rows, width) * 0.02)
        self.queries = nn.Parameter(torch.randn(len(outputs), width) * 0.02)
        self.row_norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, config.heads, batch_first=True)
        self.query_norm = nn.LayerNorm(width)
        self.network = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.heads = nn.ModuleList(nn.Linear(width, count) for count in outputs)

    def forward(self, latents: torch.Tensor) -> list[torch.Tensor]:
        """Return the output of each query."""
        rows = self.row_norm(self.inlet(latents) + self.places)
        queries = self.queries.expand(len(latents), -1, -1)
        read = queries + self.attention(queries, rows, rows, need_weights=False)[0]
        read = read + self.network(self.query_norm(read))
        return [head(read[:, i]) for i, head in enumerate(self.heads)]


def attentive_probe(
    latents: Features,
    targets: Sequence[AttentiveTarget],
    fit: np.ndarray,
    held: np.ndarray,
    test: np.ndarray,
    seed: int = 0,
    device: torch.device | str = "cpu",
    config: AttentiveConfig = AttentiveConfig(),
) -> list[np.ndarray]:
    """Train one probe with a query for each of `targets`, and return its predictions for the test rows.

    Args:
        latents: (N, rows, dimension) of any floating type.
        targets: targets of all N rows.
        fit: row numbers to train on.
        held: row numbers that choose the epoch.
        test: row numbers to predict.
        seed: seed of the first weights and of the order of rows.
        device: device of the computation.
        config: settings of the training.

    Returns:
        For each target (len(test), k) float64 in its unit, or (len(test),) classes.

    Raises:
        ProbeError: there is no row to train on or to choose with.
    """
    if not len(fit) or not len(held):
        raise ProbeError(f"{len(fit)} rows for training and {len(held)} for validation; expected at least one of each")
    mean, scale = _statistics(latents, fit, config.batch_size)
    truths = [_Truth(target, fit, device) for target in targets]
    rows, dimension = mean.shape
    mean, scale = mean.to(device), scale.to(device)

    def read(numbers: np.ndarray) -> torch.Tensor:
        return (_tensor(latents[numbers]).to(device) - mean) / scale

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        probe = AttentiveProbe(rows, dimension, [target.outputs for target in targets], config).to(device)
    _train(probe, read, truths, fit, held, seed, config)
    found: list[list[np.ndarray]] = [[] for _ in targets]
    for batch in _batches(test, config.batch_size):
        with torch.inference_mode():
            for pieces, truth, output in zip(found, truths, probe(read(batch)), strict=True):
                pieces.append(truth.answer(output))
    return [np.concatenate(pieces) for pieces in found]


class _Truth:
    """A target in the form that the loss needs: standardised by its training rows, on the device."""

    def __init__(self, target: AttentiveTarget, fit: np.ndarray, device: torch.device | str):
        self._classes = target.classes
        if self._classes:
            self._values = torch.as_tensor(target.values, dtype=torch.long, device=device)
            return
        values = torch.as_tensor(target.values, dtype=torch.float64, device=device)
        training = values[torch.as_tensor(fit, device=device)]
        training = training[training.isfinite().all(dim=1)]
        self._mean = training.mean(0)
        self._scale = training.std(0, correction=0).clamp(min=1e-12)
        self._values = ((values - self._mean) / self._scale).to(torch.float32)

    def loss(self, output: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        """Return the mean loss over the `rows` with a known target, or 0 if there is none."""
        values = self._values[torch.as_tensor(rows, device=output.device)]
        known = values >= 0 if self._classes else values.isfinite().all(dim=1)
        if not known.any():
            return output.sum() * 0.0
        if self._classes:
            return functional.cross_entropy(output[known], values[known])
        return functional.mse_loss(output[known], values[known])

    def answer(self, output: torch.Tensor) -> np.ndarray:
        """Return classes, or quantities in their unit."""
        if self._classes:
            return output.argmax(dim=1).cpu().numpy()
        return (output * self._scale + self._mean).cpu().numpy()


def _train(
    probe: AttentiveProbe,
    read: Any,
    truths: list[_Truth],
    fit: np.ndarray,
    held: np.ndarray,
    seed: int,
    config: AttentiveConfig,
) -> None:
    """Train `probe` in place, and restore its best epoch at the end."""
    optimizer = torch.optim.AdamW(probe.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    steps = config.epochs * math.ceil(len(fit) / config.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order = np.random.default_rng(seed)
    best, weights = math.inf, copy.deepcopy(probe.state_dict())

    def loss(batch: np.ndarray) -> torch.Tensor:
        outputs = probe(read(batch))
        return torch.stack([truth.loss(output, batch) for truth, output in zip(truths, outputs, strict=True)]).sum()

    for _ in range(config.epochs):
        for batch in _batches(order.permutation(fit), config.batch_size):
            optimizer.zero_grad()
            loss(batch).backward()
            optimizer.step()
            schedule.step()
        with torch.inference_mode():
            error = sum(float(loss(batch)) * len(batch) for batch in _batches(held, config.batch_size)) / len(held)
        if error < best:
            best, weights = error, copy.deepcopy(probe.state_dict())
    probe.load_state_dict(weights)


def _statistics(latents: Features, rows: np.ndarray, batch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of each latent value over `rows`, (rows, dimension) float32 each."""
    origin = _tensor(latents[rows[:1]])[0].double()
    total, square = torch.zeros_like(origin), torch.zeros_like(origin)
    for batch in _batches(rows, batch_size):
        shifted = _tensor(latents[batch]).double() - origin
        total += shifted.sum(0)
        square += shifted.square().sum(0)
    mean = total / len(rows)
    scale = (square / len(rows) - mean.square()).clamp(min=0).sqrt()
    return (mean + origin).float(), torch.where(scale > 1e-6 * origin.abs().mean(), scale, 1.0).float()


def _batches(rows: np.ndarray, size: int) -> Iterator[Any]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _tensor(values: Sequence[float]) -> torch.Tensor:
    tensor = values if isinstance(values, torch.Tensor) else torch.as_tensor(np.asarray(values))
    return tensor.to(torch.float32)
