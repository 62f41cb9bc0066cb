"""Online rounds of one planner in a folder: the commands of a round, its result, and the files that are kept.

`rounds.json` is the source of truth: settings, and an entry for every round that is done. `current.yaml` follows from
it.
"""

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import yaml

from vjepa_bringup.graph import versions
from vjepa_cli.actions import Command, command_of
from vjepa_cli.experiments.round_settings import PROCESS, ROS, ROUND_SEEDS, STACK, RoundSettings
from vjepa_cli.experiments.stages import is_whole, run_stage
from vjepa_cli.experiments.warm_start import ACTOR, POLICY, TRAINED_BY, WarmStart, training_config
from vjepa_cli.result_files import write_result
from vjepa_interfaces.bundle import read_bundle
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.files import write_atomically
from vjepa_interfaces.json_text import read_json
from vjepa_training.data.dataset import Dataset
from vjepa_training.evaluation.comparison import compare, require_held_out
from vjepa_training.trainers.training_run import identity_of


class Recorded(TypedDict):
    """The episodes that a round recorded; the seed of the first is None if a running stack has its own seeds."""

    seed: int | None
    episodes: int
    rows: int


class TrainedOn(TypedDict):
    """The size of the data of a round's trainings."""

    episodes: int
    rows: int


class Round(TypedDict):
    """The entry of a round that is done; docs/interface.md describes its fields."""

    round: int
    incumbent: int
    accepted: bool
    candidate_mean_return: float
    candidate_interval_95: list[float]
    incumbent_mean_return: float
    incumbent_interval_95: list[float]
    difference: float
    difference_interval_95: list[float]
    recorded: Recorded
    data: TrainedOn
    bundles: dict[str, str]
    validation: dict[str, float | None]
    commands: list[str]
    wall_s: float
    versions: dict[str, str]


@dataclass(frozen=True)
class RoundStage:
    """A command of a round, and the path of its output."""

    command: Command
    makes: Path


@dataclass
class Rounds:
    """The rounds of a folder.

    Attributes:
        folder: folder of the rounds, made if it is missing.
        start: the planner that the rounds start from.
        settings: settings of the rounds.
        device: device of trainings, as trainers name it.
        stack: config that names the running stack, through `stack`; empty for the one that runs here.
        done: an entry of `rounds.json` for each round that is done.
    """

    folder: Path
    start: WarmStart
    settings: RoundSettings
    device: str
    stack: Mapping[str, Any] = field(default_factory=dict)
    done: list[Round] = field(default_factory=list)

    @property
    def current(self) -> Path:
        """The parameter file of the planner that was accepted last."""
        return self.folder / "current.yaml"

    @property
    def incumbent(self) -> int:
        """The round whose planner was accepted last; 0 for the start."""
        return max((entry["round"] for entry in self.done if entry["accepted"]), default=0)

    def open(self) -> None:
        """Open the folder: begin the rounds, or continue after those that are done.

        Raises:
            VjepaError: the folder was begun with other settings, bundles or data, or these allow no rounds.
        """
        dataset = Dataset(self.settings.data)
        require_held_out(dataset.info.sources, self.settings.seed, self.settings.eval_episodes)
        for kind, bundle in self.start.bundles.items():
            read_bundle(bundle, kind).check_encoder(dataset.info.encoder_fingerprint, dataset.info.encoder_name)
            training_config(kind, bundle)
        begun = {
            "planner": self.start.planner,
            **asdict(self.settings),
            "parameters": self.start.parameters,
            "weights": {kind: read_bundle(bundle, kind).weights_sha256 for kind, bundle in self.start.bundles.items()},
            "policy": read_bundle(self.start.policy, POLICY).weights_sha256 if self.start.policy else "",
            "rows": identity_of(dataset),
        }
        begun = json.loads(json.dumps(begun))
        file = self.folder / "rounds.json"
        if file.exists():
            content = _read(file)
            before, self.done = content["settings"], content["rounds"]
            if differing := sorted(name for name in {*before, *begun} if before.get(name) != begun.get(name)):
                raise VjepaError(
                    f"the rounds in {self.folder} were begun with other {', '.join(differing)}; give the same to "
                    "continue, or choose another folder with --out"
                )
        self.folder.mkdir(parents=True, exist_ok=True)
        self._settings, self._frames = begun, dataset.info.image_shape is not None
        self._keep()

    def content(self) -> dict[str, Any]:
        """Return the contents of `rounds.json`: `settings`, and `rounds` with an entry for each round that is done."""
        return {"settings": self._settings, "rounds": self.done}

    def evaluate_start(self) -> None:
        """Evaluate the planner that the rounds start from, unless that is done."""
        stage = self._evaluation(self.current, self._evaluated(0))
        if not is_whole(stage.makes):
            run_stage(stage.command, [stage.makes], "the evaluation of the start", "vjepa improve")

    def take(self, number: int) -> Round:
        """Run the stages of the round `number` that are not done, and return its entry in `rounds.json`.

        Raises:
            VjepaError: a command of the round failed.
            KeyboardInterrupt: the round was interrupted.
        """
        began, folder, commands = time.monotonic(), self.round_folder(number), []
        for stage in self._stages(number):
            if not is_whole(stage.makes):
                run_stage(stage.command, [stage.makes], f"round {number}", "vjepa improve")
            commands.append(stage.command.line)
        before, after = _read(self._evaluated(self.incumbent)), _read(self._evaluated(number))
        comparison = compare(before, after)
        bundles = self._bundles(number)
        recorded, data = Dataset(folder / "recorded"), Dataset(folder / "data")
        entry: Round = {
            "round": number,
            "incumbent": self.incumbent,
            "accepted": comparison.better,
            "candidate_mean_return": after["mean_return"],
            "candidate_interval_95": after["interval_95"],
            "incumbent_mean_return": before["mean_return"],
            "incumbent_interval_95": before["interval_95"],
            "difference": comparison.difference,
            "difference_interval_95": list(comparison.interval_95),
            "recorded": {"seed": self._seed(number), "episodes": len(recorded.episodes), "rows": len(recorded)},
            "data": {"episodes": len(data.episodes), "rows": len(data)},
            "bundles": bundles,
            "validation": {kind: _validation(bundle) for kind, bundle in bundles.items()},
            "commands": commands,
            "wall_s": time.monotonic() - began,
            "versions": versions(),
        }
        self.done.append(entry)
        self._keep()
        for states in folder.glob("*.training/*.npy"):  # Copies of the data in the trainers' own form, as large.
            states.unlink()
        return entry

    def swap_in(self) -> None:
        """Through `stack`: swap the planner that was accepted last into the running stack."""
        if self.settings.through == STACK:
            swap = {"name": self.start.planner, "params_file": str(self.current), **self.stack}
            run_stage(command_of("planner set", swap), [], "the swap", "vjepa improve")

    def round_folder(self, number: int) -> Path:
        """Return the folder of a round."""
        return self.folder / f"round-{number}"

    def _stages(self, number: int) -> Iterator[RoundStage]:
        """Yield the commands of a round in order; each needs the outputs of the commands before it."""
        folder, settings = self.round_folder(number), self.settings
        folder.mkdir(exist_ok=True)
        recorded, data = folder / "recorded", folder / "data"
        yield from self._recording(number, recorded)
        earlier = self.round_folder(number - 1) / "data"
        before = settings.data if number == 1 else str(earlier)
        merging = {"datasets": [before, str(recorded)], "out": str(data)}
        yield RoundStage(command_of("dataset merge", merging), data)
        if earlier.exists():
            shutil.rmtree(earlier)
        incumbent, candidate = self._bundles(self.incumbent), self._bundles(number)
        for kind, start in incumbent.items():
            yield RoundStage(self._training(kind, start, data, candidate), Path(candidate[kind]))
        file = folder / "candidate.yaml"
        _write_parameters(file, self.start.parameter_file(candidate))
        yield self._evaluation(file, self._evaluated(number))

    def _recording(self, number: int, out: Path) -> Iterator[RoundStage]:
        """Yield the commands that record a round's episodes into the dataset `out`."""
        settings, planner = self.settings, self.start.planner
        episodes = {"episodes": settings.episodes, "seed": self._seed(number), "params_file": str(self.current)}
        kept = {"out": str(out), "frames": self._frames, "params_file": str(self.current)}
        if settings.through == PROCESS:
            acting = {name: getattr(settings, name) for name in ("episode_steps", "epsilon", "hold")}
            yield RoundStage(command_of("collect", {**episodes, **acting, **kept, "behaviour": planner}), out)
            return
        bags, result = out.with_name("bags"), out.with_name("recorded.json")
        if settings.through == STACK:
            recording = {"episodes": settings.episodes, "json": str(result), **self.stack}
            yield RoundStage(command_of("record", recording), result)
            found = _read(result)
            recorded, namespace = [found["bag"]], found["namespace"]
        else:
            if not is_whole(result) and bags.exists():  # Left by a killed run, whose episodes are run again.
                shutil.rmtree(bags)
            running = {"planner": planner, "protocol": settings.protocol, "lockstep": True, **episodes}
            yield RoundStage(command_of("run", {**running, "record": str(bags), "json": str(result)}), result)
            recorded = sorted(str(path) for path in bags.iterdir()) if bags.exists() else []
            namespace = ""
        yield RoundStage(command_of("dataset build", {"bags": recorded, "namespace": namespace, **kept}), out)

    def _training(self, kind: str, start: str, data: Path, candidate: Mapping[str, str]) -> Command:
        """Return the command of a bundle's further training: its first config with the settings of rounds."""
        settings = self.settings
        config = training_config(kind, self.start.bundles[kind])
        config |= {"data": str(data), "start": start, "out": candidate[kind], "device": self.device}
        config |= {"learning_rate": settings.learning_rate}
        needed = {"dynamics": [], "reward": ["dynamics"], "actor": ["dynamics", "reward"]}[kind]
        config |= {name: candidate[name] for name in needed}
        if kind == ACTOR:
            config |= {"steps": settings.steps, "cloning_steps": 0, "prior": self.start.policy}
        else:
            config["epochs"] = settings.epochs
        return command_of(TRAINED_BY[kind], config)

    def _evaluation(self, parameters: Path, out: Path) -> RoundStage:
        settings = self.settings
        config = {
            "through": ROS if settings.through == ROS else PROCESS,
            "planner": self.start.planner,
            "params_file": str(parameters),
            "protocol": settings.protocol,
            "episodes": settings.eval_episodes,
            "seed": settings.seed,
            "json": str(out),
        }
        return RoundStage(command_of("eval", config), out)

    def _bundles(self, number: int) -> dict[str, str]:
        """Return the bundles of a round's candidate by kind, in the order of training; 0 is the start."""
        if number == 0:
            return dict(self.start.bundles)
        return {kind: str(self.round_folder(number) / kind) for kind in self.start.bundles}

    def _evaluated(self, number: int) -> Path:
        """Return the path of the result of a round's candidate; 0 is the start."""
        return self.round_folder(number) / "candidate.json" if number else self.folder / "start.json"

    def _seed(self, number: int) -> int | None:
        """Return the seed of a round's first episode; None if a running stack has its own seeds."""
        return None if self.settings.through == STACK else self.settings.seed + number * ROUND_SEEDS

    def _keep(self) -> None:
        """Write `rounds.json`, and the parameter file of the planner that was accepted last."""
        write_result(str(self.folder / "rounds.json"), self.content())
        _write_parameters(self.current, self.start.parameter_file(self._bundles(self.incumbent)))


def _read(file: Path) -> dict[str, Any]:
    return read_json(file, remedy="remove it, or begin anew in another folder")


def _validation(bundle: str) -> float | None:
    """Return the loss of a bundle on the episodes that its training kept for validation."""
    config = _read(Path(bundle) / "config.json")
    return config.get("validation", config.get("figures", {}).get("loss"))


def _write_parameters(file: Path, content: Mapping[str, Any]) -> None:
    write_atomically(file, yaml.safe_dump(content, sort_keys=False))
