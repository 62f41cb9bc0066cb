"""The page of all results of experiments, made from the JSON files of these results alone."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from vjepa_cli.commands.probe import notes, table
from vjepa_cli.eval_looks import less, told_apart
from vjepa_cli.experiments.experiments import RESULT, Experiment, Stage
from vjepa_cli.scoreboard import Evaluation, with_interval
from vjepa_interfaces.json_text import read_json
from vjepa_interfaces.share import share_folder
from vjepa_interfaces.tables import markdown_table
from vjepa_interfaces.yaml_file import read_yaml
from vjepa_training.evaluation.appearance import rendering_of

NOT_MEASURED = "not measured"
TASK = "reacher-easy"
"""The task of all experiments whose commands name no other."""

CLONED = "bc-grid"
"""The experiment of the policy that planners are compared with."""

TEMPLATE = Path(__file__).with_name("results_page.md")
"""The template of the page, in which dollar signs precede the names of tables and pictures."""

Cells = Mapping[str, Callable[[Any], str]]
"""Functions that return the cells of a table's row, by heading."""

MEAN = "mean return (95 % interval)"
PICTURES = {
    "returns": "Mean returns with their intervals",
    "imagined": "Imagined distances against those that happened",
    "open-loop": "Error in open loop by steps ahead",
}
"""Captions of the pictures by name."""


@dataclass(frozen=True)
class Result:
    """One JSON file of an experiment, which may be missing.

    Attributes:
        experiment: experiment of the result.
        stage: stage that makes the result.
        path: path of the file.
        content: content of the file, such as an `Evaluation`; None if it was not measured.
    """

    experiment: Experiment
    stage: Stage
    path: Path
    content: Any

    @property
    def kind(self) -> str:
        """The kind of result: `eval`, `goal` (with a goal latent), `looks` (by look), `train dynamics`, `probe`, ..."""
        if self.stage.kind == "eval":
            return next((name for name in ("goal", "looks") if name in self.stage.config), "eval")
        return self.stage.kind

    @property
    def task(self) -> str:
        """The dm_control task of the result."""
        return (self.content or {}).get("task") or self.option("task") or TASK

    def option(self, name: str) -> str:
        """Return the value of an option in the stage's config, such as `protocol`; empty if it is unset."""
        return str(self.stage.config.get(name, ""))


def read_results(experiments: Mapping[str, Experiment], folder: Path) -> list[Result]:
    """Return the results of all experiments; after an existing one come its variants, the files `ITS_NAME-*.json`.

    Raises:
        VjepaError: a file is not JSON.
    """
    claimed = {path.removeprefix(RESULT) for experiment in experiments.values() for path in experiment.results}
    found = []
    for experiment in experiments.values():
        for stage in experiment.stages:
            for name in (path.removeprefix(RESULT) for path in stage.results):
                path = folder / name
                found.append(Result(experiment, stage, path, _content(path) if path.is_file() else None))
                others = sorted(folder.glob(f"{path.stem}-*.json")) if path.is_file() else []
                others = [other for other in others if other.name not in claimed]
                found += [Result(experiment, stage, other, _content(other)) for other in others]
    return found


def references() -> list[dict[str, Any]]:
    """Return the published results: `agent`, `observation`, `returns` as text, and the `last` of these."""
    path = share_folder("vjepa_training") / "config" / "references.yaml"
    return read_yaml(path, "page of results", aliases=True)


def render(
    experiments: Mapping[str, Experiment], results: Sequence[Result], page: Path, pictures: Mapping[str, str]
) -> str:
    """Return the page.

    Args:
        experiments: all experiments by name.
        results: results of the experiments.
        page: path of the page, to which links are relative.
        pictures: names of files beside the page by picture, as far as they exist: `returns`, `imagined` and
            `open-loop`.
    """

    def link(result: Result) -> str:
        return f"[{result.path.name}]({Path(os.path.relpath(result.path, page.parent)).as_posix()})"

    def of(kind: str) -> list[Result]:
        return [result for result in results if result.kind == kind]

    own = [result for result in of("eval") if result.task == TASK]
    others = [result for result in of("eval") if result.task != TASK]
    published = [("published", "observation", "return, 1000 steps")]
    published += [(entry["agent"], entry["observation"], entry["returns"]) for entry in references()]
    data = [("experiment", "earlier work")]
    data += [(f"`{each.name}`", each.earlier) for each in experiments.values() if not each.results]
    every = [("experiment", "what"), *((f"`{each.name}`", each.what) for each in experiments.values())]
    commands = [f"- {link(r)}: `{r.content['command']}`" for r in results if r.content]
    shown = {
        f"{name.replace('-', '_')}_picture": f"![{about}]({pictures[name]})\n\n" if name in pictures else ""
        for name, about in PICTURES.items()
    }
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        shown,
        returns=_evaluations(own, link),
        returns_why=_reasons(own),
        published=_table(published),
        other_tasks=_other_tasks(others, link),
        other_tasks_why=_reasons(others),
        looks=_looks(of("looks"), link),
        looks_why=_reasons(of("looks")),
        goals=_goals(of("goal"), link),
        goals_why=_reasons(of("goal")),
        imagined=_imagined(of("eval"), link),
        rounds=_rounds(of("improve"), link),
        dynamics=_dynamics(of("train dynamics"), link),
        heads=_heads(of("train reward"), link),
        probes="".join(f"{_probe(result, link)}\n" for result in of("probe")),
        data=_table(data),
        experiments=_table(every),
        commands="\n".join(commands) or "Nothing has been measured.",
    )


def _measured(
    results: Sequence[Result],
    link: Callable[[Result], str],
    about: Cells,
    figures: Cells,
) -> str:
    """Return a table with a row for each result.

    Args:
        results: the results.
        link: returns the link of a result, the last cell.
        about: functions of a result that return its first cells, by heading.
        figures: functions of the content of a measured result that return its other cells, by heading.
    """
    lines: list[Sequence[str]] = [("experiment", *about, *figures, "result")]
    for result in results:
        head = (f"`{result.experiment.name}`", *(cell(result) for cell in about.values()))
        if result.content is None:
            lines.append((*head, NOT_MEASURED, *[""] * len(figures)))
        else:
            lines.append((*head, *(cell(result.content) for cell in figures.values()), link(result)))
    return _table(lines)


def _evaluations(results: Sequence[Result], link: Callable[[Result], str]) -> str:
    cloned = [result.content for result in results if result.experiment.name == CLONED and result.content]
    about: Cells = {"earlier work": _earlier, "protocol": _protocol}
    figures: Cells = {
        MEAN: _mean,
        f"less {CLONED}": lambda found: _beyond(cloned, found),
        "success": _success,
        "action change at rest": _calm,
        "episodes": _episodes,
        "in target at start": _started,
        "seeds": _seeds,
        "how": _how,
        "rendering": rendering_of,
        "encoder": _encoder,
    }
    return _measured(results, link, about, figures)


def _other_tasks(results: Sequence[Result], link: Callable[[Result], str]) -> str:
    about: Cells = {"task": lambda result: result.task, "planner": _planner, "protocol": _protocol}
    figures: Cells = {
        MEAN: _mean,
        "success": _success,
        "action change at rest": _calm,
        "episodes": _episodes,
        "seeds": _seeds,
        "rendering": rendering_of,
        "encoder": _encoder,
    }
    return _measured(results, link, about, figures)


def _goals(results: Sequence[Result], link: Callable[[Result], str]) -> str:
    about: Cells = {"target": lambda result: result.option("goal"), "earlier work": _earlier}
    figures: Cells = {
        "closer": lambda found: f"{100 * found['closer']:.1f} %",
        "distance at start, least, end": lambda found: _means(found["goal_distance"], ("start", "least", "end"), ".3g"),
        "fingertip to target at start, end, m": _target_distances,
        "correlation of the two distances": _correlation,
        MEAN: _mean,
        "success": _success,
        "episodes": _episodes,
        "seeds": _seeds,
    }
    return _measured(results, link, about, figures)


def _earlier(result: Result) -> str:
    return result.experiment.earlier


def _protocol(result: Result) -> str:
    return result.content["protocol"] if result.content else result.option("protocol")


def _planner(result: Result) -> str:
    if result.content is None:
        return result.option("planner")
    policy = f" with `{result.content['policy']}`" if "policy" in result.content else ""
    return f"`{result.content['planner']}`{policy}"


def _episodes(found: Evaluation) -> str:
    return str(found["episodes"])


def _success(found: Evaluation) -> str:
    share: float | None = found["success_rate"]
    return "not defined" if share is None else f"{100 * share:.0f} %"


def _started(found: Evaluation) -> str:
    """Return the number of episodes that started in the target; empty for none, or for a task without a target."""
    started = [flag for flag in found["started_in_target"] if flag is not None]
    return str(sum(started)) if started else ""


def _calm(found: Evaluation) -> str:
    """Return the change of the action at rest; empty if it was not measured, or there was no rest."""
    change = found.get("action_change_at_rest")
    return "" if change is None else f"{change:.3f}"


def _beyond(cloned: Sequence[Evaluation], found: Evaluation) -> str:
    """Return the difference to the result among `cloned` with the same episodes, rendering and encoder; empty for none.

    It is empty for one of these too.
    """
    if any(found is other for other in cloned):
        return ""
    pictures = (rendering_of(found), found["encoder_fingerprint"])
    alike = [other for other in cloned if (rendering_of(other), other["encoder_fingerprint"]) == pictures]
    return next(filter(None, (less(other, found) for other in alike)), "")


def _means(distances: Mapping[str, Sequence[float]], names: Sequence[str], form: str) -> str:
    ways = [distances[name] for name in names]
    return ", ".join(f"{sum(way) / len(way):{form}}" for way in ways)


def _looks(results: Sequence[Result], link: Callable[[Result], str]) -> str:
    """Return the table of looks, with a column for each planner's result, and below it the episodes of each result."""
    columns = [(result, result.content["looks"]) for result in results if result.content]
    looks = dict.fromkeys(look for _, by_look in columns for look in by_look)
    lines: list[Sequence[str]] = [("look", *(f"`{result.experiment.name}`" for result, _ in columns))]
    for look in looks:
        lines.append((look, *(_by_look(by_look, look) for _, by_look in columns)))
    notes = []
    for result in results:
        if result.content is None:
            notes.append(f"- `{result.experiment.name}`: {NOT_MEASURED}")
            continue
        found = next(iter(result.content["looks"].values()))
        size = f"{found['episodes']} episodes of {found['episode_steps']} steps each"
        seeds, how = f"seeds {_seeds(found)}", _how(found)
        words = (f"planner `{found['planner']}`", f"task {found['task']}", size, seeds, how)
        notes.append(f"- `{result.experiment.name}`: {', '.join(words)}, encoder {_encoder(found)}, {link(result)}")
    return "\n".join([*([_table(lines)] if columns else []), *notes, ""])


def _by_look(by_look: Mapping[str, Evaluation], look: str) -> str:
    """Return a look's mean return, its difference to the first look, and its AUROC; empty if it was not measured."""
    if look not in by_look:
        return ""
    found, first = by_look[look], next(iter(by_look.values()))
    difference = less(first, found) if found is not first else ""
    told = told_apart(first, found) if found is not first else ""
    return f"{_mean(found)}{f' [{difference}]' if difference else ''}{f', AUROC {told}' if told else ''}"


def _target_distances(found: Evaluation) -> str:
    """Return the fingertip's distances to the target; empty for a task without a target."""
    return _means(found["target_distance"], ("start", "end"), ".3f") if "target_distance" in found else ""


def _correlation(found: Evaluation) -> str:
    """Return the correlation of these distances with the distances to the goal latent; empty if it is unknown."""
    correlation = found.get("goal_correlation")
    return "" if correlation is None else f"{correlation:.2f}"


def _reasons(results: Sequence[Result]) -> str:
    """Return the reasons for the measured results, as far as their experiments state one."""
    measured = [result.experiment for result in results if result.content]
    whys = {experiment.name: experiment.why for experiment in measured if experiment.why}
    return "".join(f"- `{name}`: {why}\n" for name, why in whys.items())


def _imagined(results: Sequence[Result], link: Callable[[Result], str]) -> str:
    heads = ("experiment", "steps ahead", "imagined", "happened", "root mean square difference")
    lines: list[Sequence[str]] = [(*heads, "of the middle episode", "plans", "result")]
    for result in results:
        for entry in result.content.get("imagined", {"ahead": []})["ahead"] if result.content else ():
            figures = [f"{entry[name]:.4f}" for name in ("imagined", "happened")]
            off = [f"{entry[name]:.4f} ({entry[f'no_change_{name}']:.4f})" for name in ("rmse", "median_rmse")]
            plans = (f"{entry['count']:,}", link(result))
            lines.append((f"`{result.experiment.name}`", str(entry["steps"]), *figures, *off, *plans))
    return _table(lines)


def _rounds(results: Sequence[Result], link: Callable[[Result], str]) -> str:
    heads = ("experiment", "round", "rows", "mean return before", "after", "difference, paired", "kept", "episodes")
    lines: list[Sequence[str]] = [(*heads, "protocol", "result")]
    for result in results:
        head, found = f"`{result.experiment.name}`", result.content
        if found is None:
            lines.append((head, NOT_MEASURED, *[""] * 8))
            continue
        settings = found["settings"]
        for entry in found["rounds"]:
            returns = [
                with_interval(entry["incumbent_mean_return"], entry["incumbent_interval_95"]),
                with_interval(entry["candidate_mean_return"], entry["candidate_interval_95"]),
                with_interval(entry["difference"], entry["difference_interval_95"], "+"),
            ]
            kept = "the new one" if entry["accepted"] else "the old one"
            sample = (str(settings["eval_episodes"]), settings["protocol"], link(result))
            lines.append((head, str(entry["round"]), f"{entry['data']['rows']:,}", *returns, kept, *sample))
    return _table(lines)


def _dynamics(results: Sequence[Result], link: Callable[[Result], str]) -> str:
    figures: Cells = {
        "parameters": lambda found: f"{found['parameters']:,}",
        "transitions": lambda found: f"{found['transitions']:,}",
        "validation loss": lambda found: f"{found['validation']:.4g}",
        "open loop, standard deviations": lambda found: _ahead(found, "state"),
        "open loop, m": lambda found: _ahead(found, "metres"),
    }
    return _measured(results, link, {"earlier work": _earlier}, figures)


def _heads(results: Sequence[Result], link: Callable[[Result], str]) -> str:
    figures: Cells = {
        "mean squared error of the reward": lambda found: f"{found['figures']['reward_mse']:.4g}",
        "variance of the reward": lambda found: f"{found['figures']['reward_variance']:.4g}",
        "frames with a reward": lambda found: f"{100 * found['rewarded']:.1f} %",
        "error of the distance, m": _distance_error,
    }
    return _measured(results, link, {"earlier work": _earlier}, figures)


def _distance_error(found: Mapping[str, Any]) -> str:
    figures = found["figures"]
    return f"{figures['distance_rmse_m']:.3g}" if "distance_rmse_m" in figures else ""


def _probe(result: Result, link: Callable[[Result], str]) -> str:
    head = f"`{result.experiment.name}`; earlier work, on other targets: {result.experiment.earlier}.\n"
    if result.content is None:
        return f"{head}\n{NOT_MEASURED.capitalize()}.\n"
    lines = "\n".join(f"- {note}" for note in notes(result.content))
    return f"{head}\n{table(result.content, intervals=True)}\n\n{lines}\n- {link(result)}\n"


def _content(path: Path) -> Any:
    return read_json(path, remedy="remove it, and reproduce what it is the result of")


def _table(lines: Sequence[Sequence[str]]) -> str:
    return markdown_table(lines) + "\n"


def _mean(found: Evaluation) -> str:
    return with_interval(found["mean_return"], found["interval_95"])


def _seeds(found: Evaluation) -> str:
    return f"{found['seed']} to {found['seed'] + found['episodes'] - 1}"


def _encoder(found: Mapping[str, Any]) -> str:
    """Return the name of an encoder and the beginning of its fingerprint."""
    untrained = " (untrained)" if found["encoder_untrained"] else ""
    return f"{found['encoder']}{untrained} {found['encoder_fingerprint'][:6]}"


def _how(found: Evaluation) -> str:
    if found["through"] == "process":
        return "lockstep, without ROS"
    return f"{'lockstep' if found['lockstep'] else 'real time'}, ROS graph"


def _ahead(found: Mapping[str, Any], unit: str) -> str:
    """Return the first and the last error in open loop, each with the error of predicting no change."""
    ahead = [entry for entry in found["open_loop"] if unit in entry]
    shown = [ahead[0], ahead[-1]] if len(ahead) > 1 else ahead
    return "; ".join(f"{e['steps']}: {e[unit]:.3g} ({e[f'no_change_{unit}']:.3g})" for e in shown)
