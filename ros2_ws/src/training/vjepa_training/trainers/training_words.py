"""Describe figures of a training in words."""

from collections.abc import Mapping, Sequence


def against_constant(error: float, constant: float) -> str:
    """Return a comparison of a mean squared error with the error of a constant answer."""
    if not error < constant:
        return f"worse than a constant: {error:.4f} against {constant:.4f}"
    return f"{error:.4f}, {100 * (1 - error / constant):.0f} % below a constant's {constant:.4f}"


def end_of_round(entries: Sequence[Mapping[str, float]], epochs: int, patience: int) -> str:
    """Return how a round of epochs ended.

    Args:
        entries: entries of this round in the curve, with `validation`.
        epochs: largest number of epochs.
        patience: epochs without a better validation that end the round.
    """
    best = min(entry["validation"] for entry in entries)
    if len(entries) < epochs:
        return f"stopped at epoch {len(entries)} of {epochs}: no better for {patience}; validation {best:.4f}"
    return f"all {epochs} epochs; validation {best:.4f}"


def open_loop_line(entry: Mapping[str, float]) -> str:
    """Return the error of a model some steps ahead, beside the error of a prediction of no change."""
    units = (("state", "standard deviations"), ("metres", "m"))
    parts = [
        f"{entry[key]:.3g} {unit} ({entry[f'no_change_{key}']:.3g} if nothing changed)"
        for key, unit in units
        if key in entry
    ]
    return f"{entry['steps']:.0f} steps ahead it is off by {', '.join(parts)}"
