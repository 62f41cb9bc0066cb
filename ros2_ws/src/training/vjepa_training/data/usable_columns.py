"""Find the known columns of a dataset by counting rows with NaN; trainers check them before they train."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from vjepa_interfaces.errors import VjepaError

ACTION, EFFORT, VELOCITY = "action", "effort", "observation.joint_velocity"
OF_THE_STEP = (ACTION, EFFORT, "command", "next.reward", "next.discount")
"""Columns of the step to the next row, which are unknown without a next row."""
_ADVICE = {
    ACTION: "the joint states have no efforts; record them, or train what needs no action",
    VELOCITY: "the joint states have no velocities; build the dataset with --derive-velocity",
}


class UnusableColumnError(VjepaError):
    """A column that a training needs and no row knows; the message names the column and the remedy."""


def known_rows(dataset: Any, name: str) -> np.ndarray:
    """Return whether each row of a `Dataset` knows its value of the column `name`, (N,) bool.

    For a column of the step to the next row, rows without a next row count as known: they lack nothing.
    """
    values = np.asarray(dataset[name])
    known = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    return known | ~np.asarray(dataset["has_next"]) if name in OF_THE_STEP else known


def unknown_rows(dataset: Any) -> dict[str, int]:
    """Return the number of rows with an unexpected NaN, for each column of a `Dataset` that has any."""
    names = [name for name, (kind, _) in dataset.info.columns().items() if kind == np.float64]
    counts = {name: int((~known_rows(dataset, name)).sum()) for name in names}
    return {name: count for name, count in counts.items() if count}


def unusable_columns(dataset: Any) -> list[str]:
    """Return the columns of a `Dataset` that no row knows."""
    return [name for name in unknown_rows(dataset) if _is_unusable(dataset, name)]


def _is_unusable(dataset: Any, name: str) -> bool:
    known = known_rows(dataset, name)
    if known.all():
        return False
    return not (known & np.asarray(dataset["has_next"])).any() if name in OF_THE_STEP else not known.any()


def require_columns(dataset: Any, names: Iterable[str], training: str) -> None:
    """Refuse a dataset in which no row knows a needed column; a training leaves out single rows that do not know it.

    Args:
        dataset: a `Dataset`.
        names: needed columns.
        training: the command that needs them, for the message.

    Raises:
        UnusableColumnError: no row knows a column; the message names the column and the remedy.
    """
    for name in names:
        if _is_unusable(dataset, name):
            advice = _ADVICE.get(name, "build the dataset of data that has it")
            raise UnusableColumnError(
                f"{dataset.folder}: '{name}' is NaN in every row, and {training} needs it: {advice}"
            )
