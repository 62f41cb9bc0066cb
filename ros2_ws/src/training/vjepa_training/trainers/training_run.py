"""Make trainers safe to kill: write a checkpoint and TensorBoard's events, and continue from them."""

import contextlib
import hashlib
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor, nn

from vjepa_interfaces.bundle import ArmRecord, arm_record
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.files import atomic_file
from vjepa_training.data.dataset import Dataset, Source
from vjepa_training.trainers import ranks
from vjepa_training.trainers.configs import Job, SteppedTraining, Training
from vjepa_training.trainers.optimiser import set_cosine_rate

CHECKPOINT_FILE = "checkpoint.pt"
LARGEST_GRADIENT = 10.0
"""Largest norm of gradients; larger ones are scaled down to it."""
OTHER_SEEDS = 2**52
"""Distance of the seeds of two processes that train together, beyond the seeds of all steps."""


class TrainingFacts(TypedDict, total=False):
    """The recorded facts of a training; docs/interface.md describes the fields of each trainer."""

    encoder: str
    arm: ArmRecord
    control_period_s: list[float]
    dataset: list[Source]
    training: dict[str, Any]
    command: str
    labels: str
    frames: int
    validation: float
    label_variance: float
    curve: dict[str, list[list[float]]]
    parameters: int
    transitions: int
    open_loop: list[dict[str, float]]
    encoder_fingerprint: str
    rewarded: float
    trained_with: dict[str, str]
    dynamics_sha256: str
    reward_sha256: str
    policy_sha256: str
    figures: dict[str, float]


class TrainingRun:
    """A training that continues from the files in its folder.

    For the same result as without a kill, the random draws of a step must depend only on its number.

    Attributes:
        work: the folder.
        is_resumed: whether a file of this run was found there.
    """

    def __init__(self, work: Path | str, identity: Mapping[str, Any], parts: Mapping[str, ranks.Stateful], device: str):
        """Prepare the training of `parts` in the folder `work`.

        Args:
            work: folder of the checkpoint and the events; the first file creates it.
            identity: settings and data, in JSON's types; a run continues only with the same.
            parts: everything that changes in training, by name.
            device: device of the parts.
        """
        self.work, self._parts, self._device = Path(work), parts, device
        self._identity = json.dumps(identity, sort_keys=True)
        self.is_resumed = False

    def resume(self) -> tuple[int, dict[str, Any]]:
        """Load the checkpoint, if there is one; return the steps done and the value of `save`'s `beside`.

        Raises:
            VjepaError: it is damaged, or of a run with other settings or data, which the message names.
        """
        path = self.work / CHECKPOINT_FILE
        if not path.exists():
            return 0, {}
        with self._opened(path) as state:
            for name, part in self._parts.items():
                part.load_state_dict(state[name])
            return int(state["step"]), json.loads(state["beside"])

    def save(self, step: int, beside: Mapping[str, Any] | None = None) -> None:
        """Write the checkpoint of `step`, whole or not at all, with `beside` in JSON's types."""
        state = {"step": step, "beside": json.dumps(beside or {})}
        self._write(CHECKPOINT_FILE, state | {name: part.state_dict() for name, part in self._parts.items()})

    def kept(self, name: str, make: Callable[[], Any]) -> Any:
        """Return the kept result of a stage or, if there is none, return and keep the result of `make`.

        Args:
            name: name of the stage: a part of the training that is kept as a whole and not made again.
            make: returns tensors, numbers and texts in lists, tuples and dictionaries.

        Raises:
            VjepaError: as `resume`.
        """
        path = self.work / f"{name}.pt"
        if path.exists():
            with self._opened(path) as state:
                return state["made"]
        made = make()
        self._write(path.name, {"made": made})
        return made

    @contextlib.contextmanager
    def events(self, step: int) -> Iterator[Any]:
        """Yield TensorBoard's writer; events of a killed run behind `step` are removed."""
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(self.work / "events"), purge_step=step or None) as writer:
            yield writer

    @contextlib.contextmanager
    def _opened(self, path: Path) -> Iterator[dict[str, Any]]:
        """Yield the content of the file `path` of this run; an error during reading means that it is damaged."""
        try:
            state = torch.load(path, map_location=self._device, weights_only=True)
            found, expected = json.loads(state["identity"]), json.loads(self._identity)
            if differing := [name for name in expected if found.get(name) != expected[name]]:
                raise VjepaError(
                    f"{path} is from a run with other {', '.join(differing)}; give another --work folder, or remove it"
                )
            self.is_resumed = True
            yield state
        except VjepaError:
            raise
        except Exception as error:  # torch raises many types
            what = f"{type(error).__name__}: {error}".splitlines()[0]
            raise VjepaError(f"{path} is damaged ({what}); remove it to begin the training anew") from error

    def _write(self, name: str, state: Mapping[str, Any]) -> None:
        """Write a file of this run, whole or not at all."""
        with atomic_file(self.work / name) as temporary:
            torch.save({"identity": self._identity, **state}, temporary)


class Trainer(ABC):
    """The object that `fit` trains: networks, their loss at each step, and figures of the validation data.

    Attributes:
        optimiser: optimiser of the trained parameters.
        parts: everything that changes in training, by name, with the optimiser.
        warmup_steps: steps over which the learning rate rises.
        largest_gradient: largest norm of gradients; larger ones are scaled down to it.
        log_every: steps between two reports.
    """

    optimiser: torch.optim.Optimizer
    parts: dict[str, ranks.Stateful]
    warmup_steps = 0
    largest_gradient = LARGEST_GRADIENT
    log_every = 50

    @abstractmethod
    def loss(self, step: int) -> Tensor:
        """Return the loss of a step, of this process's share of its batch; its number determines all random draws."""

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Return figures of all validation data, with one named `loss`; the same in every process."""

    def begin(self) -> None:  # noqa: B027 (optional to write)
        """Prepare a training that begins; one that continues, and other processes, get this state as a copy."""

    def measured(self, step: int) -> dict[str, float]:
        """Return figures of the last step, beside its loss; `step` is the number of steps done."""
        return {}

    def after_step(self, progress: float) -> None:  # noqa: B027 (optional to write)
        """Act after a step of the optimiser; `progress` runs from 0 to 1 over the training."""

    def after_checkpoint(self, step: int, figures: dict[str, float]) -> None:  # noqa: B027 (optional to write)
        """Act after the checkpoint of a step, with the `figures` of its validation; only in the first process."""


def fit(
    trainer: Trainer, training: SteppedTraining, steps: int, job: Job, identity: Mapping[str, Any]
) -> dict[str, list[list[float]]]:
    """Run the remaining steps, and return the learning curve: `train` and `validation`, (step, loss) each.

    Several processes may run it together, see `ranks`. Each step has the same batch as in one process, and its gradient
    is the mean over their shares. All begin with the state of the first one, which alone writes files and reports.

    Args:
        trainer: the object to train.
        training: settings of the training.
        steps: number of all steps.
        job: the job, with its folder and its `on_step`.
        identity: values in JSON's types that, beside `training`, must be the same for a run to continue.

    Raises:
        VjepaError: a figure is no longer a number, the checkpoint is of another run, or the processes differ or lost
            each other.
    """
    identity = {**asdict(training), **identity}
    ranks.require_same(json.dumps(identity, sort_keys=True))
    run = TrainingRun(job.work, identity, trainer.parts, training.device)
    parameters = [parameter for group in trainer.optimiser.param_groups for parameter in group["params"]]
    step, curve = run.resume() if ranks.is_first() else (0, {})
    if step == 0 and ranks.is_first():
        trainer.begin()
    step, curve = ranks.from_first((step, curve))
    ranks.copy_from_first(trainer.parts, training.device)
    curve = curve or {"train": [], "validation": []}
    began, since = time.monotonic(), step
    if 0 < step < steps and job.on_step:
        job.on_step(step, steps, {})

    def report(part: str, figures: dict[str, float], prefix: str = "") -> None:
        if log is None:
            return
        for name, value in figures.items():
            log.add_scalar(f"{part}/{name}", value, step)
        if job.on_step:
            job.on_step(step, steps, {f"{prefix}{name}": value for name, value in figures.items()})

    with run.events(step) if ranks.is_first() else contextlib.nullcontext() as log:
        while step < steps:
            set_cosine_rate(trainer.optimiser, training.learning_rate, step, steps, trainer.warmup_steps)
            torch.manual_seed(training.seed * 1_000_003 + step + ranks.rank() * OTHER_SEEDS)
            loss = trainer.loss(step)
            trainer.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            ranks.average_gradients(parameters)
            nn.utils.clip_grad_norm_(parameters, trainer.largest_gradient)
            trainer.optimiser.step()
            step += 1
            trainer.after_step(step / steps)
            if step % trainer.log_every == 0 or step == steps:
                figures = ranks.mean_figures({"loss": float(loss.detach()), **trainer.measured(step)})
                require_finite(figures, step)
                curve["train"].append([step, figures["loss"]])
                report("train", figures | {"steps_per_s": (step - since) / (time.monotonic() - began)})
            if step % training.checkpoint_every == 0 or step == steps:
                figures = trainer.validate()
                curve["validation"].append([step, figures["loss"]])
                report("validation", figures, "validation_")
                if ranks.is_first():
                    run.save(step, curve)
                    trainer.after_checkpoint(step, figures)
    return curve


def drawn(rows: np.ndarray, shape: int | tuple[int, ...], key: tuple[int, ...]) -> np.ndarray:
    """Return some of `rows`, of the given shape, drawn with replacement by the random numbers of the seed `key`."""
    return rows[np.random.default_rng(key).integers(len(rows), size=shape)]


def identity_of(dataset: Dataset) -> list[Any]:
    """Return the part of a training's identity that identifies a dataset: its rows and their origin."""
    return [len(dataset), hashlib.sha256(repr(dataset.info.sources).encode()).hexdigest()]


def provenance(datasets: Sequence[Dataset], training: Training, command: str) -> TrainingFacts:
    """Return the facts of a training that are known before it: data, settings and command.

    Args:
        datasets: datasets of the training, of one encoder and one arm.
        training: settings of the training.
        command: command of the training.
    """
    info = datasets[0].info
    return {
        "encoder": info.encoder_name,
        "arm": arm_record(info.arm),
        "control_period_s": sorted({dataset.info.control_period_s for dataset in datasets}),
        "dataset": [source for dataset in datasets for source in dataset.info.sources],
        "training": asdict(training),
        "command": command,
    }


def require_finite(figures: Mapping[str, float], step: int) -> None:
    """Stop a training whose figures are no longer numbers.

    Raises:
        VjepaError: a figure is not a number; the message names the figure and the step.
    """
    wrong = [name for name, value in figures.items() if not math.isfinite(value)]
    if wrong:
        raise VjepaError(f"{', '.join(wrong)} not finite at step {step}; train with a lower learning rate")
