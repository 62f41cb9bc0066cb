"""The optimiser and the learning-rate schedule that trainers share."""

import math
from collections.abc import Iterable

import torch
from torch import nn


def adamw(
    parameters: Iterable[nn.Parameter],
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
) -> torch.optim.AdamW:
    """Return AdamW that decays matrices, but neither biases nor the gains of norms."""
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas)


def set_cosine_rate(
    optimiser: torch.optim.Optimizer, highest: float, step: int, steps: int, warmup_steps: int = 0
) -> None:
    """Set the learning rate of a `step` out of `steps`: up linearly over the warm-up, down along a cosine to 0."""
    warm = min(1.0, (step + 1) / max(1, warmup_steps))
    for group in optimiser.param_groups:
        group["lr"] = highest * warm * 0.5 * (1 + math.cos(math.pi * step / steps))
