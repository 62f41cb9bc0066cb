"""Pictures of docs/performance.md: every figure over its aim, and the growth of costs."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vjepa_cli.experiments.results_picture import DPI, blank_figure

LEAST, MOST = 0.01, 20.0
"""Ends of the axis of ratios; a ratio beyond an end is drawn at that end."""

COLUMNS = 3
MET, MISSED = "tab:green", "tab:red"


def ratios(figures: Sequence[dict[str, Any]]) -> list[tuple[str, float, float, float, bool, bool]]:
    """Return, for each measured figure: what, measured over aim, both ends of its interval, at_least, met."""
    found = []
    for figure in figures:
        if not figure["aim"]:  # No value is a multiple of zero.
            continue
        low, high = figure["interval_95"] or (figure["value"], figure["value"])
        ends = [min(max(value / figure["aim"], LEAST), MOST) for value in (figure["value"], low, high)]
        if not math.isnan(figure["value"]):
            found.append((figure["what"], *ends, figure["at_least"], figure["met"]))
    return found


def draw_ratios(path: Path, figures: Sequence[dict[str, Any]]) -> None:
    """Write a picture of all figures over their aims."""
    found = list(reversed(ratios(figures)))
    picture = blank_figure(14.0, 1.2 + 0.27 * len(found))
    plot = picture.subplots()
    for i, (_, ratio, low, high, at_least, met) in enumerate(found):
        colour = MET if met else MISSED
        plot.plot([low, high], [i, i], color=colour, linewidth=3, alpha=0.4)
        plot.plot([ratio], [i], color=colour, marker=">" if at_least else "<", markersize=6)
    plot.axvline(1, color="black", linewidth=1)
    plot.set_yticks(range(len(found)), [row[0].replace("`", "") for row in found], fontsize="small")
    plot.set(xscale="log", xlim=(LEAST * 0.9, MOST * 1.1), ylim=(-0.7, len(found) - 0.3))
    plot.set(
        xlabel="measured value over its aim, logarithmic (1: just met); pale line: interval",
        title="Every measured value over its aim; the mark points to the better side",
    )
    for label, colour in (("aim met", MET), ("not met", MISSED)):
        plot.plot([], [], color=colour, marker="o", linestyle="none", label=label)
    plot.legend(loc="lower right")
    plot.xaxis.set_major_formatter("{x:g}")
    plot.grid(axis="x", alpha=0.3)
    picture.savefig(path, dpi=DPI)


def draw_sweeps(path: Path, sweeps: Sequence[dict[str, Any]]) -> None:
    """Write a picture of sweeps, given as by `Sweep.content`, with a plot for each panel."""
    panels = list(dict.fromkeys(sweep["panel"] for sweep in sweeps))
    rows = math.ceil(len(panels) / COLUMNS)
    picture = blank_figure(4.8 * COLUMNS, 3.6 * rows)
    plots = picture.subplots(rows, COLUMNS, squeeze=False).flatten()
    for plot, panel in zip(plots, panels, strict=False):
        shown = [sweep for sweep in sweeps if sweep["panel"] == panel]
        for i, sweep in enumerate(shown):
            _draw_sweep(plot, sweep, f"C{i}", named=len(shown) > 1)
        values = [value for sweep in shown for point in sweep["points"] for value in point["values"]]
        plot.set(xscale="log", yscale="log", xlabel=shown[0]["x"], ylabel=shown[0]["y"], title=panel)
        plot.set_xticks(sorted({point["x"] for sweep in shown for point in sweep["points"]}), minor=False)
        plot.minorticks_off()
        plot.set_yticks(_ticks(min(values), max(values)))
        plot.set_ylim(min(values) / 2, max(values) * 3)
        plot.xaxis.set_major_formatter("{x:g}")
        plot.yaxis.set_major_formatter("{x:g}")
        plot.legend(fontsize="x-small", loc="upper left")
    for plot in plots[len(panels) :]:
        plot.remove()
    picture.suptitle("How costs grow: dots are rounds, solid lines the fitted growth, dotted lines the expected growth")
    picture.savefig(path, dpi=DPI)


def _ticks(least: float, most: float) -> list[float]:
    """Return 1, 2 and 5 of each decade from below `least` to above `most`."""
    decades = range(math.floor(math.log10(least)) - 1, math.ceil(math.log10(most)) + 1)
    return [value for decade in decades for value in (10.0**decade, 2 * 10.0**decade, 5 * 10.0**decade)]


def _draw_sweep(plot, sweep: dict[str, Any], colour: str, named: bool) -> None:
    sizes = [point["x"] for point in sweep["points"]]
    medians = [statistics.median(point["values"]) for point in sweep["points"]]
    for size, point in zip(sizes, sweep["points"], strict=True):
        plot.plot([size] * len(point["values"]), point["values"], color=colour, marker=".", linestyle="none")
    middle = [math.exp(statistics.fmean(map(math.log, values))) for values in (sizes, medians)]

    def through_middle(exponent: float) -> list[float]:
        return [middle[1] * (size / middle[0]) ** exponent for size in sizes]

    label = f"exponent {sweep['exponent']:.2f}, expected {sweep['expected']:.3g}"
    if named:
        label = f"{sweep['what'].replace('`', '')}: {sweep['exponent']:.2f}"
    plot.plot(sizes, through_middle(sweep["exponent"]), color=colour, label=label)
    plot.plot(sizes, through_middle(sweep["expected"]), color=colour, linestyle=":")
