"""`vjepa probe`: measure the contents of an encoder's latents, as a table, JSON and a picture."""

import dataclasses
import sys
import time
from dataclasses import dataclass
from typing import Annotated, Any

from tyro.conf import Suppress

from sim_bridge.looks import NOMINAL
from vjepa_cli.actions import Command, CommandRecord
from vjepa_cli.command_line import UNSET, Action, option
from vjepa_cli.result_files import require_writable, write_result
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.files import write_atomically
from vjepa_interfaces.parameters import as_base
from vjepa_interfaces.tables import markdown_table
from vjepa_training.probes.configs import ProbeConfig
from vjepa_training.probes.probe_result import ProbeResult, ProbeScores


@dataclass(frozen=True, kw_only=True)
class ProbeCommand(ProbeConfig):
    """Measure the contents of an encoder's latents, by linear and attentive probes.

    Attributes:
        encoder: bundle, checkpoint folder or hub id.
        device: auto, cpu or cuda.
        data: a dataset with frames, or with latents alone.
        json: write every figure as JSON.
        markdown: write the table as a Markdown page.
        picture: draw predictions against truth, and the comparison.
    """

    encoder: Annotated[str, option(default="the parameters'; with --data the latents that it holds")] = ""
    device: Annotated[str, UNSET] = ""
    grid: Suppress[int] = ProbeConfig.grid
    data: Annotated[str | None, option(metavar="DS", default="simulate")] = None
    task: Annotated[str, UNSET] = ""
    render: Annotated[str, UNSET] = ""
    look: Annotated[str, option(metavar="NAME[:LEVEL[:moving]]")] = NOMINAL
    json: Annotated[str | None, option(metavar="FILE", default="")] = None
    markdown: Annotated[str | None, option(metavar="FILE", default="")] = None
    picture: Annotated[str | None, option(metavar="FILE.png", default="")] = None


def probe_command(arguments: ProbeCommand) -> int:
    """Run `vjepa probe`."""
    of_simulation = ("task", "episodes", "seed", "episode_steps", "randomize", "render", "look", "workers")
    if arguments.data and any(getattr(arguments, name) != getattr(ProbeCommand, name) for name in of_simulation):
        raise VjepaError(
            "--data has episodes of its own; leave out --task, --episodes, --seed, --episode-steps, --randomize, "
            "--render, --look and --workers, which are for simulated ones"
        )
    for path in (arguments.json, arguments.markdown, arguments.picture):
        if path:
            require_writable(path)
    started = time.monotonic()
    from vjepa_bringup.graph import StackOptions, merged_parameters, versions
    from vjepa_bringup.options import replace
    from vjepa_training.probes.probe_suite import run_probes

    given = {name: getattr(arguments, name) or None for name in ("encoder", "device", "task", "render")}
    parameters = merged_parameters(replace(StackOptions(), **given))
    perception = parameters["vjepa_perception"]
    config = dataclasses.replace(
        as_base(ProbeConfig, arguments),
        encoder="" if arguments.data and not arguments.encoder else perception["encoder"],
        device=perception["device"],
        grid=perception["grid"],
        task=parameters["sim_bridge"]["task"],
        render=parameters["sim_bridge"]["render"],
    )
    report = run_probes(config, lambda text: print(f"vjepa: {text}", file=sys.stderr, flush=True))
    result: ProbeFile = {
        **report.result,
        "versions": versions(),
        **Command.of(arguments).record,
        "wall_s": time.monotonic() - started,
    }
    print(table(result, intervals=False), *notes(result), sep="\n", flush=True)
    if arguments.json:
        write_result(arguments.json, result)
    if arguments.markdown:
        write_atomically(arguments.markdown, page(result))
    if arguments.picture:
        draw(arguments.picture, result, report.predictions)
    return 0


ACTIONS = {"probe": Action(probe_command)}


class ProbeFile(ProbeResult, CommandRecord):
    """The result as `--json` writes it."""

    versions: dict[str, str]
    wall_s: float


def table(result: ProbeResult, intervals: bool) -> str:
    """Return the figures as a Markdown table: a row for each figure of a target, a column for each probe.

    Args:
        result: the result, as `--json` writes it.
        intervals: whether each figure is followed by its 95 % interval.
    """
    probes = list(dict.fromkeys(map(_probe, result["scores"])))
    by_target: dict[str, dict[tuple[str, str, str], ProbeScores]] = {}
    for score in result["scores"]:
        by_target.setdefault(score["target"], {})[_probe(score)] = score
    rows = [("target", "figure", *(_title(probe) for probe in probes))]
    for target, scores in by_target.items():
        for figures in zip(*(_figures(scores[probe]) for probe in probes), strict=True):
            cells = [_cell(value, interval if intervals else None) for _, value, interval in figures]
            rows.append((target, figures[0][0], *cells))
    return markdown_table(rows, aligned=True)


def notes(result: ProbeResult) -> list[str]:
    """Return the encoder, the data and the omissions of a table, a line each."""
    data, frames = result["data"], result["frames"]
    look = data.get("look", NOMINAL)
    shown = "randomised" if data.get("randomized") else "as they are" if look == NOMINAL else look
    made = (
        f"dataset {data['dataset']}"
        if "dataset" in data
        else f"{data['episodes']} simulated episodes of {data['episode_steps']} steps, seeds {data['seed']} to "
        f"{data['seed'] + data['episodes'] - 1}, looks {shown}"
    )
    parts = ("train", "validation", "test")
    sizes = ", ".join(f"{part} {frames[part]['rows']} frames of {frames[part]['episodes']} episodes" for part in parts)
    lines = [
        f"encoder {result['encoder']}{' (UNTRAINED)' if result['encoder_untrained'] else ''}, "
        f"fingerprint {result['encoder_fingerprint']}, latent {' x '.join(map(str, result['latent_shape']))}",
        f"{made}; {sizes}",
    ]
    for score in {score["target"]: score for score in result["scores"] if score["measure"] == "accuracy"}.values():
        lines.append(
            f"{score['target']}: on {score['test_rows']} test frames of {score['test_episodes']} episodes; "
            f"always the commonest class would give {score['commonest_class']:.3f}"
        )
    return [*lines, *(f"left out: {what}: {why}" for what, why in result["left_out"].items())]


def page(result: ProbeFile) -> str:
    """Return a Markdown page of the table with its intervals."""
    return "\n".join(
        [
            f"# Probes of {result['encoder']}\n",
            f"Written by `{result['command']}`; do not edit. What the figures mean: `docs/probes.md`. Behind each its "
            "95 % bootstrap interval over test episodes.\n",
            table(result, intervals=True) + "\n",
            *(f"- {line}" for line in notes(result)),
            "- " + ", ".join(f"{package} {version}" for package, version in result["versions"].items()),
            "",
        ]
    )


def draw(path: str, result: ProbeResult, predictions: dict[str, Any]) -> None:
    """Write a picture: predicted fingertip and target against the truth, and the scores of all probes as bars."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 8), layout="constrained")
    FigureCanvasAgg(figure)
    parts: Any = figure.subfigures(2, 1)
    named = [(name, axis) for name in ("fingertip", "target") if name in predictions for axis in (0, 1)]
    for i, (name, axis) in enumerate(named):
        truth, predicted = predictions[name]
        _draw_predictions(parts[0].add_subplot(1, len(named), i + 1), f"{name} {'xy'[axis]}", truth, predicted, axis)
    _draw_bars(parts[1].add_subplot(), result["scores"])
    untrained = " (untrained)" if result["encoder_untrained"] else ""
    figure.suptitle(f"{result['encoder']}{untrained}, {result['encoder_fingerprint']}: unseen episodes")
    figure.savefig(path, format="png", dpi=110)


def _draw_predictions(plot: Any, title: str, truth: Any, predicted: Any, axis: int) -> None:
    limit = 1.1 * abs(truth).max()
    plot.scatter(truth[:, axis], predicted[:, axis], s=2, alpha=0.3, linewidths=0)
    plot.axline((0, 0), slope=1, color="black", linewidth=0.8)
    plot.set(title=title, xlabel="true, m", ylabel="read off the latent, m", aspect="equal")
    plot.set(xlim=(-limit, limit), ylim=(-limit, limit))


def _draw_bars(plot: Any, scores: list[ProbeScores]) -> None:
    targets = {score["target"]: "accuracy" if score["measure"] == "accuracy" else "R²" for score in scores}
    probes = list(dict.fromkeys(map(_probe, scores)))
    width = 0.8 / len(probes)
    for i, probe in enumerate(probes):
        own = [score for score in scores if _probe(score) == probe]
        values = [score["value"] for score in own]
        places = [list(targets).index(score["target"]) - 0.4 + (i + 0.5) * width for score in own]
        ends = zip(values, (score["interval_95"] for score in own), strict=True)
        errors = [[max(value - low, 0), max(high - value, 0)] for value, (low, high) in ends]
        plot.bar(places, values, width, label=_title(probe))
        plot.errorbar(places, values, list(zip(*errors, strict=True)), fmt="none", ecolor="black", elinewidth=0.8)
    plot.set_xticks(range(len(targets)), [f"{target}\n{measure}" for target, measure in targets.items()])
    plot.set_ylim(-0.05, 1.02)
    plot.set_ylabel("score, 1 is perfect\n(line: 95 % interval)")
    plot.legend(fontsize="small", ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _figures(score: ProbeScores) -> list[tuple[str, float, list[float]]]:
    """Return title, value and interval of each figure of a score."""
    if score["measure"] == "accuracy":
        return [("accuracy", score["value"], score["interval_95"])]
    figures = [
        ("R²", score["value"], score["interval_95"]),
        (f"RMSE, {score['unit']}", score["rmse"], score["rmse_interval_95"]),
    ]
    if "distance_rms" in score:
        figures.append(("distance (RMS), m", score["distance_rms"], score["distance_rms_interval_95"]))
    return figures


def _probe(score: ProbeScores) -> tuple[str, str, str]:
    return score["source"], score["rows"], score["probe"]


def _title(probe: tuple[str, str, str]) -> str:
    source, rows, kind = probe
    return f"{source}, {rows}" if kind == "linear" else f"{source}, {rows}, {kind}"


def _cell(value: float, interval: list[float] | None) -> str:
    return f"{value:.4f}" if interval is None else f"{value:.4f} ({interval[0]:.4f} to {interval[1]:.4f})"
