"""Format a line of fields that fits the width of a terminal: a field is shown whole or not at all."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len

GAP = "   "
"""Separator of two fields."""
BAR_WIDTH = 24


@dataclass(frozen=True)
class Field:
    """A part of a line that is shown whole or not at all.

    Attributes:
        text: the text shown.
        rank: if a line is too long, fields of a higher rank are removed first.
    """

    text: str
    rank: int = 0


def fitted(fields: Sequence[Field], width: int) -> str:
    """Return as many of `fields`, in their order, as fit into `width` columns; fields of a low rank have priority."""
    kept: list[Field] = []
    for field in sorted(fields, key=lambda field: field.rank):
        longer = [each for each in fields if each in kept or each is field]
        if not kept or cell_len(_joined(longer)) <= width:
            kept = longer
    return _joined(kept)


def _joined(fields: Sequence[Field]) -> str:
    return GAP.join(field.text for field in fields)


def bar(share: float) -> str:
    """Return a bar that is filled to `share`, 0 to 1."""
    filled = round(BAR_WIDTH * min(1.0, max(0.0, share)))
    return "█" * filled + "░" * (BAR_WIDTH - filled)
