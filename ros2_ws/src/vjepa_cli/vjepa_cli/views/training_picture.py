"""The picture of a training: its learning curve and, for a dynamics model, its error in open loop."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # Drawing needs no torch.
    from vjepa_training.trainers.training_run import TrainingFacts


def draw_training(path: str, facts: "TrainingFacts") -> None:
    """Write a picture of a trainer's facts.

    Args:
        path: the file; its suffix is a format of matplotlib, such as `.png`.
        facts: facts of the training: `curve` and, if there is one, `open_loop`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ahead = facts.get("open_loop", ())
    units = [unit for unit in ("state", "metres") if ahead and unit in ahead[0]]
    figure = Figure(figsize=(5 * (1 + len(units)), 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 1 + len(units), squeeze=False)[0]
    for name, points in facts["curve"].items():
        axes[0].plot(*zip(*points, strict=True), label=name)
    axes[0].set(xlabel="step", ylabel="loss", yscale="log", title="learning curve")
    axes[0].legend()
    for axis, unit in zip(axes[1:], units, strict=True):
        steps = [entry["steps"] for entry in ahead]
        axis.plot(steps, [entry[unit] for entry in ahead], marker="o", label="model")
        axis.plot(steps, [entry[f"no_change_{unit}"] for entry in ahead], linestyle="--", label="nothing changes")
        axis.set(xlabel="control steps ahead", title=f"open loop, {unit.replace('state', 'standard deviations')}")
        axis.set_ylim(bottom=0)
        axis.legend()
    figure.savefig(path, dpi=120)
