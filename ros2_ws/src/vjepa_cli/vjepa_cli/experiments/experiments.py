"""The experiments by name: `training/experiments/NAME.yaml`, their stages, and their progress.

A stage is an action of the command line with a config. Text in a config may contain names in braces, which a
`Workspace` replaces for an encoder.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from vjepa_bringup.graph import default_parameters
from vjepa_cli.actions import Command, action_of, command_of
from vjepa_cli.experiments.stages import is_whole
from vjepa_interfaces.bundle import find_bundle
from vjepa_interfaces.deprecated import FIELD, current_names
from vjepa_interfaces.errors import VjepaError, unknown_name
from vjepa_interfaces.parameters import read_parameters
from vjepa_interfaces.share import share_folder
from vjepa_interfaces.yaml_file import read_yaml

WORK, RESULTS = Path("reproductions"), Path("results")
RESULT = "{results}/"
MAKES = ("out", "json")
"""Options of actions that name their outputs: a dataset or a bundle, and a result."""

NAMES = ("data", "models", "policy", "results")
"""Names that may be in braces in the text of a config; see `Workspace.filled`."""

_BRACES = re.compile(r"\{(\w*)\}")


@dataclass(frozen=True)
class Stage:
    """One command of an experiment.

    Attributes:
        kind: name of an action of the command line, such as `train bc`.
        config: options of the action, by field.
        params: parameters of `vjepa_planner`, in the parameter file of the stage.
    """

    kind: str
    config: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def makes(self) -> list[str]:
        """Paths of the outputs."""
        return [path for name in MAKES if isinstance(path := self.config.get(name), str)]

    @property
    def results(self) -> list[str]:
        """Paths of the outputs that are results."""
        return [path for path in self.makes if path.startswith(RESULT)]


@dataclass(frozen=True)
class Experiment:
    """An experiment: its stages, and its texts for the page of results.

    Attributes:
        name: name of its file, without the suffix.
        what: description in a line.
        earlier: result of earlier work.
        stages: its commands, in order.
        needs: experiments whose stages come first.
        only_by_name: whether `all` leaves it out, because it takes too long.
        why: reason for its result, for the page of results.
    """

    name: str
    what: str
    earlier: str
    stages: tuple[Stage, ...]
    needs: tuple[str, ...] = ()
    only_by_name: bool = False
    why: str = ""

    @property
    def results(self) -> list[str]:
        """The results that its stages make, in order."""
        return [path for stage in self.stages for path in stage.results]


@dataclass(frozen=True)
class Workspace:
    """The folders and settings of one encoder's experiments.

    Attributes:
        encoder: bundle, folder or hub id.
        device: torch's name of the device of encoder, planners and trainers.
        work: folder of datasets, trained bundles and parameter files.
        results: folder of results.
        settings: settings for this encoder in `training/config/encoders.yaml`: `image_size`, `batch` and `policy`.
    """

    encoder: str
    device: str
    work: Path
    results: Path
    settings: Mapping[str, Any]

    def filled(self, value: Any) -> Any:
        """Return a value of a config, with the names in braces in its text replaced."""
        if isinstance(value, list):
            return [self.filled(item) for item in value]
        if not isinstance(value, str):
            return value
        models = str(self.work / "models")
        names = {
            "data": str(self.work / "datasets"),
            "models": models,
            "policy": self.settings["policy"].replace("{models}", models),
            "results": str(self.results),
        }
        return _BRACES.sub(lambda found: names[found[1]], value)

    def made_by(self, stage: Stage) -> list[Path]:
        """Return the paths of a stage's outputs."""
        return [Path(self.filled(path)) for path in stage.makes]

    def command(self, experiment: Experiment, stage: Stage) -> Command:
        """Return the command of a stage: its config over the settings that all stages share."""
        shared: dict[str, Any] = {
            "encoder": self.encoder,
            "device": self.device,
            "params_file": str(self.params_file(experiment, stage)),
        }
        if stage.kind == "eval" and stage.config.get("through", "process") == "process":
            shared |= {"through": "process", "batch_size": self.settings["batch"]}
        taken = {name: value for name, value in shared.items() if name in action_of(stage.kind).options}
        config = {name: self.filled(value) for name, value in stage.config.items()}
        return command_of(stage.kind, taken | config)

    def params_file(self, experiment: Experiment, stage: Stage) -> Path:
        """Return the path of a stage's parameter file."""
        return self.work / "params" / f"{experiment.name}-{experiment.stages.index(stage) + 1}.yaml"

    def parameters(self, stage: Stage) -> dict[str, Any]:
        """Return the contents of a stage's parameter file."""
        planner = {name: self.filled(value) for name, value in stage.params.items()}
        planner = {"device": self.device, **planner} if planner else {}
        nodes = {"sim_bridge": {"image_size": self.settings["image_size"]}, "vjepa_planner": planner}
        return {node: {"ros__parameters": parameters} for node, parameters in nodes.items() if parameters}

    def missing(self, experiment: Experiment) -> list[Stage]:
        """Return the stages of an experiment of which an output is missing."""
        return [stage for stage in experiment.stages if not all(map(is_whole, self.made_by(stage)))]

    def is_done(self, experiment: Experiment) -> bool:
        """Return whether all results of an experiment exist or, without any results, all its outputs."""
        if not experiment.results:
            return not self.missing(experiment)
        return all(is_whole(Path(self.filled(path))) for path in experiment.results)


def workspace_of(encoder: str | None, device: str, results: str | None = None) -> Workspace:
    """Return the workspace of an encoder. The results of the stack's own encoder are in `results` itself.

    Args:
        encoder: bundle, folder or hub id; None for the stack's own.
        device: torch's name of the device.
        results: folder of results, instead of the encoder's own.
    """
    default = default_parameters()["vjepa_perception"]["encoder"]
    is_default = encoder is None or Path(find_bundle(encoder)).resolve() == Path(find_bundle(default)).resolve()
    name = default if encoder is None or is_default else encoder.strip("/").replace("/", "-")
    folder = Path(results) if results else RESULTS if is_default else RESULTS / name
    return Workspace(encoder or default, device, WORK / name, folder, _settings(encoder or default))


def read_experiments(folder: Path | None = None) -> dict[str, Experiment]:
    """Return the experiments by name, from the YAML files of `folder`, or the project's own.

    Raises:
        VjepaError: `folder` has no file; a file is no experiment; the command line has no such kind or config; or a
            needed experiment is missing. The message names file, stage and field.
    """
    folder = folder or share_folder("vjepa_training") / "experiments"
    if not any(folder.glob("*.yaml")):
        raise VjepaError(f"no experiments in '{folder}'; expected a folder of files NAME.yaml, an experiment each")
    experiments = {path.stem: _experiment(path) for path in sorted(folder.glob("*.yaml"), key=lambda path: path.stem)}
    for experiment in experiments.values():
        for name in experiment.needs:
            if name not in experiments:
                raise VjepaError(
                    f"experiment {experiment.name} needs another: {unknown_name('experiment', name, experiments)}"
                )
        _in_order(experiments, [experiment.name])
    return experiments


def to_do(
    experiments: Mapping[str, Experiment], wanted: Iterable[str], workspace: Workspace
) -> list[tuple[Experiment, Stage]]:
    """Return the remaining stages of the `wanted` experiments and of those that they need, in the order to run them.

    If an experiment is done or has all its outputs, the experiments that it needs are left alone. An output that
    several experiments share is made once.
    """
    wanted = set(wanted)
    ordered = _in_order(experiments, wanted)
    asked = {name for name in wanted if not workspace.is_done(experiments[name])}
    for name in reversed(ordered):  # In reverse, an experiment comes before those that it needs.
        if name in asked and workspace.missing(experiments[name]):
            asked |= set(experiments[name].needs)
    left: dict[tuple[Path, ...], tuple[Experiment, Stage]] = {}
    for name in ordered:
        for stage in workspace.missing(experiments[name]) if name in asked else ():
            left.setdefault(tuple(workspace.made_by(stage)), (experiments[name], stage))
    return list(left.values())


def _in_order(experiments: Mapping[str, Experiment], wanted: Iterable[str]) -> list[str]:
    """Return the names of `wanted` and of all that they need, each after those that it needs."""
    ordered: list[str] = []

    def visit(name: str, way: tuple[str, ...]) -> None:
        if name in way:
            raise VjepaError(f"experiments need each other in a cycle: {' needs '.join([*way, name])}")
        for needed in experiments[name].needs:
            visit(needed, (*way, name))
        if name not in ordered:
            ordered.append(name)

    for name in sorted(wanted):
        visit(name, ())
    return ordered


def _experiment(path: Path) -> Experiment:
    content = read_yaml(path, "experiment", aliases=True)
    if not isinstance(content, dict) or not isinstance(content.get("stages"), list):
        raise VjepaError(f"{path} is not an experiment; expected the fields what, earlier and stages, a list")
    read = [_stage(stage, f"{path}, stage {number}") for number, stage in enumerate(content["stages"], 1)]
    fields = current_names(FIELD, content) | {"name": path.stem, "stages": read}
    return read_parameters(Experiment, fields, "field", str(path))


def _stage(content: Any, where: str) -> Stage:
    """Return a stage with a checked config. Only text may contain names in braces, which the options accept as text."""
    try:
        stage = read_parameters(Stage, _mapping(content), "field")
        command_of(stage.kind, _mapping(stage.config))
        for text in _texts([*stage.config.values(), *_mapping(stage.params).values()]):
            for name in _BRACES.findall(text):
                if name not in NAMES:
                    raise unknown_name("name in braces", name, NAMES)
        if not stage.makes:
            raise VjepaError(f"it names no output; expected {' or '.join(MAKES)} in its config")
    except VjepaError as error:
        raise VjepaError(f"{where}: {error}") from error
    return stage


def _texts(values: Iterable[Any]) -> Iterator[str]:
    """Yield every text among values and lists of them."""
    for value in values:
        if isinstance(value, list):
            yield from _texts(value)
        elif isinstance(value, str):
            yield value


def _mapping(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise VjepaError(f"it has {content!r}; expected names with values")
    return content


def _settings(encoder: str) -> dict[str, Any]:
    path = share_folder("vjepa_training") / "config" / "encoders.yaml"
    for pattern, settings in read_yaml(path, "sizes", aliases=True).items():
        if fnmatch(encoder, pattern):
            return settings
    raise VjepaError(f"{path} has no settings for {encoder}; expected a last pattern '*'")
