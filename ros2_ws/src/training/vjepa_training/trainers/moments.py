"""Compute means and covariances of rows that come in blocks, so that memory does not grow with their number."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

BLOCK_ROWS = 4096


def in_blocks(rows: np.ndarray) -> list[np.ndarray]:
    """Return `rows` in parts of at most `BLOCK_ROWS`, in their order."""
    return np.split(rows, range(BLOCK_ROWS, len(rows), BLOCK_ROWS))


def means_and_covariance(blocks: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the means of two vectors and the covariance of the first with the second, over all rows.

    Products have the precision of the blocks, and their sums are float64. Give rows about an origin near their mean:
    squares of small numbers lose fewer digits.

    Args:
        blocks: rows of both vectors, (B, p) and (B, q); at least one.

    Returns:
        The means, (p,) and (q,), and the covariance, (p, q), all float64.
    """
    count, sums = 0, list[Tensor]()
    for first, second in blocks:
        count += len(first)
        parts = [first.sum(0, dtype=torch.float64), second.sum(0, dtype=torch.float64), (first.T @ second).double()]
        sums = [total.add_(part) for total, part in zip(sums, parts, strict=True)] if sums else parts
    mean_of_first, mean_of_second, products = (total / count for total in sums)
    return mean_of_first, mean_of_second, products - torch.outer(mean_of_first, mean_of_second)
