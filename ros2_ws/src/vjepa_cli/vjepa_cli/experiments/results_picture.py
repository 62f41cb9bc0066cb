"""Pictures of all results: returns with intervals, errors of dynamics, and imagined against true distances."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vjepa_cli.experiments.results_page import TASK, Result, references

DPI = 80
TICKS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 1.0)
"""Ticks of the axis, as shares of the greatest return."""


def draw_returns(path: Path, results: Sequence[Result]) -> bool:
    """Write a picture of mean returns, a plot for each protocol; return whether there are any.

    Evaluations of other tasks are left out.
    """
    shown = [result for result in results if result.kind == "eval" and result.task == TASK]
    found = [(result.path.stem, result.content) for result in shown if result.content]
    protocols = sorted({content["protocol"]: content["episode_steps"] for _, content in found}.items())
    if not found:
        return False
    rows = max(sum(content["protocol"] == name for _, content in found) for name, _ in protocols)
    figure = blank_figure(5.5 * len(protocols), 1.4 + 0.3 * rows)
    for plot, (protocol, steps) in zip(figure.subplots(1, len(protocols), squeeze=False)[0], protocols, strict=True):
        own = [(name, content) for name, content in reversed(found) if content["protocol"] == protocol]
        means = [content["mean_return"] for _, content in own]
        ends = zip(means, (content["interval_95"] for _, content in own), strict=True)
        errors = [[max(mean - low, 0.0), max(high - mean, 0.0)] for mean, (low, high) in ends]
        plot.set_yticks(range(len(own)), [name for name, _ in own])
        plot.errorbar(means, range(len(own)), xerr=list(zip(*errors, strict=True)), fmt="o", markersize=5)
        for row, mean in enumerate(means):
            plot.annotate(f"{mean:.0f}", (mean, row), (0, 5), textcoords="offset points", ha="center", fontsize="small")
        _widen_towards(plot, float(steps))
        if protocol == "full":
            for entry in references():
                plot.axvline(entry["last"], linestyle=":", color="tab:red", linewidth=1)
            plot.plot([], linestyle=":", color="tab:red", label="published by others")
            plot.legend(fontsize="small", loc="upper left")
        plot.set_xlabel(f"mean return; line: 95 % interval\n(the axis is stretched towards {steps}, the most)")
        plot.set(title=f"protocol {protocol}: episodes of {steps} steps", xlim=(0, steps))
        plot.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=DPI)
    return True


def _widen_towards(plot: Any, most: float) -> None:
    """Stretch the axis towards `most`: positions are logarithms of the distance to it, plus a hundredth."""

    def to_axis(values: np.ndarray) -> np.ndarray:
        return -np.log(np.maximum(1.01 - np.asarray(values) / most, 1e-6))

    def from_axis(places: np.ndarray) -> np.ndarray:
        return most * (1.01 - np.exp(-np.asarray(places)))

    plot.set_xscale("function", functions=(to_axis, from_axis))
    plot.set_xticks([share * most for share in TICKS], [f"{share * most:g}" for share in TICKS], fontsize="small")


def draw_open_loop(path: Path, results: Sequence[Result]) -> bool:
    """Write a picture of errors in open loop of dynamics and of no change; return whether there are any."""
    models: list[tuple[str, Sequence[Mapping[str, Any]]]] = [
        (result.path.stem, result.content["open_loop"])
        for result in results
        if result.kind == "train dynamics" and result.content and result.content["open_loop"]
    ]
    if not models:
        return False
    figure = blank_figure(11.0, 4.0)
    titles = {
        "state": ("latent state", "error, standard deviations of the state"),
        "metres": ("distance from fingertip to target", "error, m"),
    }
    for plot, (unit, (title, error)) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        for i, (name, ahead) in enumerate(models):
            shown = [entry for entry in ahead if unit in entry]
            steps = [entry["steps"] for entry in shown]
            plot.plot(steps, [entry[unit] for entry in shown], color=f"C{i}", marker=".", label=name)
            plot.plot(steps, [entry[f"no_change_{unit}"] for entry in shown], color=f"C{i}", linestyle=":")
        plot.set(title=f"Prediction of the {title}", xlabel="control steps ahead", ylabel=error)
        plot.plot([], [], color="grey", linestyle=":", label="predicting no change")
        plot.xaxis.get_major_locator().set_params(integer=True)
        plot.set_ylim(bottom=0)
        plot.legend(fontsize="small")
    figure.savefig(path, dpi=DPI)
    return True


def draw_imagined(path: Path, results: Sequence[Result]) -> bool:
    """Write a picture of imagined against true distances, a row for each result; return whether there are any."""
    found = [(result.path.stem, result.content) for result in results if result.content]
    shown = [(name, content["seed"], content["imagined"]) for name, content in found if "imagined" in content]
    if not shown:
        return False
    figure = blank_figure(14.0, 4.0 * len(shown))
    for plots, (name, seed, imagined) in zip(figure.subplots(len(shown), 3, squeeze=False), shown, strict=True):
        ahead = imagined["ahead"]
        steps = [entry["steps"] for entry in ahead]
        for i, (which, label) in enumerate((("rmse", "all episodes"), ("median_rmse", "median episode"))):
            plots[0].plot(steps, [entry[which] for entry in ahead], color=f"C{i}", marker=".", label=label)
            plots[0].plot(steps, [entry[f"no_change_{which}"] for entry in ahead], color=f"C{i}", linestyle=":")
        plots[0].plot([], [], color="grey", linestyle=":", label="predicting no change")
        plots[0].set(title=f"{name}: error of the imagined distance", xlabel="control steps ahead", xticks=steps)
        plots[0].set_ylabel("root mean square error, m")
        for plot, example in zip(plots[1:], imagined["examples"], strict=False):
            _draw_example(plot, example)
            plot.set_title(f"seed {seed + example['episode']}, the episode of {example['which']} error")
        for plot in plots[1 + len(imagined["examples"]) :]:
            plot.remove()
        for plot in plots[: 1 + len(imagined["examples"])]:
            plot.set_ylim(bottom=0)
            plot.legend(fontsize="small")
    figure.savefig(path, dpi=DPI)
    return True


def _draw_example(plot: Any, example: Mapping[str, Any]) -> None:
    steps, every = example["steps"], example["every"]
    happened = example["happened"]
    plot.plot([i * steps for i in range(len(happened))], happened, color="black", linewidth=2, label="true distance")
    label: str | None = "imagined distance, from the dot on"
    for i, distances in enumerate(example["imagined"]):
        if distances is not None:
            begins = i * every
            plot.plot([begins + j * steps for j in range(len(distances))], distances, color="C1", linewidth=1)
            plot.plot([begins], distances[:1], color="C1", marker=".", linewidth=1, label=label)
            label = None
    plot.set(xlabel="control step", ylabel="distance from fingertip to target, m")


def blank_figure(width: float, height: float) -> Any:
    """Return an empty matplotlib figure of a width and a height in inches. It needs no screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
