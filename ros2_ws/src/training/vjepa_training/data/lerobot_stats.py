"""Collect the statistics of a feature that LeRobot keeps, block by block."""

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}


class Stats:
    """Minimum, maximum, mean, standard deviation and quantiles of every element of a row.

    The first four are exact. A quantile is the mean of the blocks' quantiles, weighted by their rows, as LeRobot merges
    the quantiles of its episodes.
    """

    def __init__(self) -> None:
        self.count = 0
        self._found: dict[str, np.ndarray] = {}

    def add(self, rows: np.ndarray) -> None:
        """Add a block of rows, (T, *shape); in pictures, (T, height, width, channels), each pixel is a row."""
        count = len(rows)
        values = rows.reshape(-1, rows.shape[-1]) if rows.ndim == 4 else rows
        values = values.astype(np.float64)
        block = {"min": values.min(axis=0), "max": values.max(axis=0), "mean": values.mean(axis=0)}
        block |= {"square": values.var(axis=0)}
        block |= dict(zip(QUANTILES, np.quantile(values, list(QUANTILES.values()), axis=0), strict=True))
        self._take(count, block)

    def merge(self, other: "Stats") -> None:
        """Add the statistics of `other`."""
        if other.count:
            self._take(other.count, other._found)

    def result(self) -> dict[str, np.ndarray]:
        """Return `min`, `max`, `mean`, `std` and the quantiles, each in the shape of a row, and `count`, (1,)."""
        found = {name: value for name, value in self._found.items() if name != "square"}
        return found | {"std": np.sqrt(self._found["square"]), "count": np.array([self.count])}

    def _take(self, count: int, block: dict[str, np.ndarray]) -> None:
        if not self.count:
            self.count, self._found = count, block
            return
        mine, total = self._found, self.count + count
        share = count / total
        merged = {"min": np.minimum(mine["min"], block["min"]), "max": np.maximum(mine["max"], block["max"])}
        for name in ("mean", *QUANTILES):
            merged[name] = mine[name] + share * (block[name] - mine[name])
        # The pairwise update of Chan, Golub and LeVeque, 1983.
        between = share * (1 - share) * (block["mean"] - mine["mean"]) ** 2
        merged["square"] = mine["square"] + share * (block["square"] - mine["square"]) + between
        self.count, self._found = total, merged
