"""The experiments by name: rows of `training/experiments/NAME.yaml`, their commands, and what of them is done.

A row's steps are command lines of `vjepa` with names in braces, which a `Place` fills in for an encoder.
"""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory

from vjepa_bringup.graph import default_parameters
from vjepa_cli.experiments.steps import is_whole
from vjepa_interfaces.bundle import find_bundle
from vjepa_interfaces.errors import VjepaError, unknown_name
from vjepa_interfaces.yaml_file import read_yaml

WORK, RESULTS = Path("reproductions"), Path("results")
RESULT = "{results}/"


@dataclass(frozen=True)
class Step:
    """One command of a row.

    Attributes:
        makes: paths of what it makes, the first of which its command calls `{makes}`.
        run: the command line, without `vjepa`.
        params: parameters of `vjepa_planner`, in the parameter file that its command calls `{params}`.
    """

    makes: tuple[str, ...]
    run: str
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def results(self) -> list[str]:
        """Those of `makes` that are results."""
        return [path for path in self.makes if path.startswith(RESULT)]


@dataclass(frozen=True)
class Row:
    """An experiment.

    Attributes:
        name: of its file.
        what: it is, in a line.
        old: what earlier work got.
        steps: its commands, in order.
        needs: rows whose steps come first.
        only_by_name: whether `all` leaves it out, for what takes very long.
        why: its result came out as it did, for the page of results.
    """

    name: str
    what: str
    old: str
    steps: tuple[Step, ...]
    needs: tuple[str, ...] = ()
    only_by_name: bool = False
    why: str = ""

    @property
    def results(self) -> list[str]:
        """The results that its steps make, in order."""
        return [path for step in self.steps for path in step.results]


@dataclass(frozen=True)
class Place:
    """Where the experiments of one encoder are made, and with which settings.

    Attributes:
        encoder: bundle, folder or hub id.
        device: where encoder, planners and trainers run, as torch names it.
        work: folder of datasets, trained bundles and parameter files.
        results: folder of results.
        settings: of `training/config/encoders.yaml` for this encoder, `image_size` among them.
    """

    encoder: str
    device: str
    work: Path
    results: Path
    settings: Mapping[str, Any]

    def values(self) -> dict[str, str]:
        """Return what the names in braces stand for, but for `makes` and `params`, which each step has of its own."""
        models = str(self.work / "models")
        return {
            **{name: str(value).format(models=models) for name, value in self.settings.items()},
            "encoder": self.encoder,
            "device": self.device,
            "data": str(self.work / "datasets"),
            "models": models,
            "results": str(self.results),
        }

    def made_by(self, step: Step) -> list[Path]:
        """Return the paths of what a step makes."""
        return [Path(path.format(**self.values())) for path in step.makes]

    def arguments(self, row: Row, step: Step) -> list[str]:
        """Return the arguments of `vjepa` of a step.

        Raises:
            VjepaError: a name in braces that there is not.
        """
        values = self.values() | {
            "makes": str(self.made_by(step)[0]),
            "params": str(self.params_file(row, step)),
        }
        try:
            return [argument.format(**values) for argument in shlex.split(step.run)]
        except KeyError as error:
            raise unknown_name(f"name in braces in experiment {row.name}:", error.args[0], values) from error

    def params_file(self, row: Row, step: Step) -> Path:
        """Return where the parameter file of a step lies."""
        return self.work / "params" / f"{row.name}-{row.steps.index(step) + 1}.yaml"

    def parameters(self, step: Step) -> dict[str, Any]:
        """Return what the parameter file of a step holds."""
        values = self.values()
        planner = {
            name: value.format(**values) if isinstance(value, str) else value for name, value in step.params.items()
        }
        nodes = {"sim_bridge": {"image_size": self.settings["image_size"]}, "vjepa_planner": planner}
        return {node: {"ros__parameters": parameters} for node, parameters in nodes.items() if parameters}

    def missing(self, row: Row) -> list[Step]:
        """Return those steps of a row of which not all is there that they make."""
        return [step for step in row.steps if not all(map(is_whole, self.made_by(step)))]

    def is_done(self, row: Row) -> bool:
        """Return whether all results of a row are there or, of one without results, all that it makes."""
        if not row.results:
            return not self.missing(row)
        return all(is_whole(Path(path.format(**self.values()))) for path in row.results)


def place_of(encoder: str | None, device: str, results: str | None = None) -> Place:
    """Return the place of an encoder; None for the stack's, whose results lie in `results` itself.

    Args:
        encoder: bundle, folder or hub id.
        device: as torch names it.
        results: folder of results, instead of the encoder's own.
    """
    default = default_parameters()["vjepa_perception"]["encoder"]
    is_default = encoder is None or Path(find_bundle(encoder)).resolve() == Path(find_bundle(default)).resolve()
    name = default if encoder is None or is_default else encoder.strip("/").replace("/", "-")
    folder = Path(results) if results else RESULTS if is_default else RESULTS / name
    return Place(encoder or default, device, WORK / name, folder, _settings(encoder or default))


def read_rows(folder: Path | None = None) -> dict[str, Row]:
    """Return the rows by name, from the YAML files of `folder`, or the project's own.

    Raises:
        VjepaError: no file in the folder, or a file that is no row, or needs one that there is not; it is named.
    """
    folder = folder or Path(get_package_share_directory("vjepa_training"), "experiments")
    if not any(folder.glob("*.yaml")):
        raise VjepaError(f"no experiments in '{folder}'; expected a folder of files NAME.yaml, an experiment each")
    rows = {path.stem: _row(path) for path in sorted(folder.glob("*.yaml"), key=lambda path: path.stem)}
    for row in rows.values():
        for name in row.needs:
            if name not in rows:
                raise VjepaError(f"experiment {row.name} needs another: {unknown_name('experiment', name, rows)}")
        _in_order(rows, [row.name])
    return rows


def to_do(rows: Mapping[str, Row], wanted: Iterable[str], place: Place) -> list[tuple[Row, Step]]:
    """Return the steps that are left of the `wanted` rows and of what they need, in the order to take them.

    What a row needs is left alone where the row is done, or has all that it makes. What several rows make is made once.
    """
    wanted = set(wanted)
    ordered = _in_order(rows, wanted)
    asked = {name for name in wanted if not place.is_done(rows[name])}
    for name in reversed(ordered):  # A row comes behind what it needs, so here before.
        if name in asked and place.missing(rows[name]):
            asked |= set(rows[name].needs)
    left: dict[tuple[Path, ...], tuple[Row, Step]] = {}
    for name in ordered:
        for step in place.missing(rows[name]) if name in asked else ():
            left.setdefault(tuple(place.made_by(step)), (rows[name], step))
    return list(left.values())


def _in_order(rows: Mapping[str, Row], wanted: Iterable[str]) -> list[str]:
    """Return `wanted` and all they need by name, each behind what it needs."""
    ordered: list[str] = []

    def visit(name: str, way: tuple[str, ...]) -> None:
        if name in way:
            raise VjepaError(f"experiments need each other in a circle: {' needs '.join([*way, name])}")
        for needed in rows[name].needs:
            visit(needed, (*way, name))
        if name not in ordered:
            ordered.append(name)

    for name in sorted(wanted):
        visit(name, ())
    return ordered


def _row(path: Path) -> Row:
    content = read_yaml(path, "experiment", aliases=True)
    try:
        steps = []
        for step in content.pop("steps"):
            makes = step.pop("makes")
            steps.append(Step(makes=tuple([makes] if isinstance(makes, str) else makes), **step))
        needs = tuple(map(str, content.pop("needs", ())))
        return Row(name=path.stem, steps=tuple(steps), needs=needs, **content)
    except (AttributeError, KeyError, TypeError) as error:
        raise VjepaError(
            f"{path} is no experiment ({type(error).__name__}: {error}); expected what, old and steps of makes and "
            "run, and at most needs, only_by_name, why and, in a step, params"
        ) from error


def _settings(encoder: str) -> dict[str, Any]:
    path = Path(get_package_share_directory("vjepa_training"), "config", "encoders.yaml")
    for pattern, settings in read_yaml(path, "sizes", aliases=True).items():
        if fnmatch(encoder, pattern):
            return settings
    raise VjepaError(f"{path} has no settings for {encoder}; expected a last pattern '*'")
