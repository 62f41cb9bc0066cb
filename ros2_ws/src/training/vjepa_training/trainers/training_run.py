"""What every trainer needs to be killed at any moment and go on: a checkpoint, and TensorBoard's events beside it."""

import contextlib
import hashlib
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from vjepa_interfaces.bundle import arm_record
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.files import atomic_file
from vjepa_interfaces.tables import markdown_table
from vjepa_training.data.dataset import Dataset
from vjepa_training.trainers.configs import Job, SteppedTraining, Training
from vjepa_training.trainers.optimiser import set_cosine_rate

CHECKPOINT_FILE = "checkpoint.pt"
LARGEST_GRADIENT = 10.0
"""Norm that gradients are scaled down to where they are larger."""


class Stateful(Protocol):
    """A network or an optimiser, as torch has them."""

    def state_dict(self) -> dict[str, Any]:
        """Return all that changes in training."""
        ...

    def load_state_dict(self, state: Any, /) -> Any:
        """Take it back."""
        ...


class TrainingRun:
    """A training that goes on where the files in its folder left it.

    For the same result as without a kill, whatever a step draws at random has to come from its own number.

    Attributes:
        work: the folder.
        is_resumed: whether a file of this run was found there.
    """

    def __init__(self, work: Path | str, identity: Mapping[str, Any], parts: Mapping[str, Stateful], device: str):
        """Take the training of `parts` in the folder `work`.

        Args:
            work: folder of the checkpoint and the events; made if need be.
            identity: settings and data, as JSON has them; a run goes on only with the same.
            parts: all that changes in training, by name.
            device: where they are.
        """
        self.work, self._parts, self._device = Path(work), parts, device
        self._identity = json.dumps(identity, sort_keys=True)
        self.is_resumed = False
        self.work.mkdir(parents=True, exist_ok=True)

    def resume(self) -> tuple[int, dict[str, Any]]:
        """Load the checkpoint, if there is one; return the steps done and what `save` was given beside.

        Raises:
            VjepaError: it is damaged, or of a run with other settings or data; which, is named.
        """
        path = self.work / CHECKPOINT_FILE
        if not path.exists():
            return 0, {}
        with self._opened(path) as state:
            for name, part in self._parts.items():
                part.load_state_dict(state[name])
            return int(state["step"]), json.loads(state["beside"])

    def save(self, step: int, beside: Mapping[str, Any] | None = None) -> None:
        """Write the checkpoint of `step`, whole or not at all, with what JSON can hold of `beside`."""
        state = {"step": step, "beside": json.dumps(beside or {})}
        self._write(CHECKPOINT_FILE, state | {name: part.state_dict() for name, part in self._parts.items()})

    def kept(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what the folder has of a stage or, where it has nothing, what `make` returns, and keep that.

        Args:
            name: of the stage: a part of the training that is kept as a whole and not made again.
            make: makes it of tensors, numbers and texts in lists, tuples and dictionaries.

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
        """Yield TensorBoard's writer; what a killed run wrote behind `step` is struck out."""
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(self.work / "events"), purge_step=step or None) as writer:
            yield writer

    @contextlib.contextmanager
    def _opened(self, path: Path) -> Iterator[dict[str, Any]]:
        """Yield what the file `path` has of this run; an error while it is read means that it is damaged."""
        try:
            state = torch.load(path, map_location=self._device, weights_only=True)
            found, expected = json.loads(state["identity"]), json.loads(self._identity)
            if differing := [name for name in expected if found.get(name) != expected[name]]:
                raise VjepaError(
                    f"{path} is of a run with other {', '.join(differing)}; give another --work folder, or remove this "
                    "one"
                )
            self.is_resumed = True
            yield state
        except VjepaError:
            raise
        except Exception as error:  # torch raises many kinds
            what = f"{type(error).__name__}: {error}".splitlines()[0]
            raise VjepaError(f"{path} is damaged ({what}); remove it, and training begins anew") from error

    def _write(self, name: str, state: Mapping[str, Any]) -> None:
        """Write a file of this run, whole or not at all."""
        with atomic_file(self.work / name) as temporary:
            torch.save({"identity": self._identity, **state}, temporary)


class Trainer(ABC):
    """What `fit` trains: networks, their loss at each step, and figures on what was kept for validation.

    Attributes:
        optimiser: of the parameters that are trained.
        parts: all that changes in training, by name; the optimiser among it.
        warmup_steps: over which the learning rate rises.
        largest_gradient: norm that gradients are scaled down to where they are larger.
        log_every: steps between two reports.
    """

    optimiser: torch.optim.Optimizer
    parts: dict[str, Stateful]
    warmup_steps = 0
    largest_gradient = LARGEST_GRADIENT
    log_every = 50

    @abstractmethod
    def loss(self, step: int) -> Tensor:
        """Return the loss of the step of a number; what it draws with torch is the same for the same number."""

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Return figures on what was kept for validation, the one named `loss` among them."""

    def measured(self, step: int) -> dict[str, float]:
        """Return figures of the last step, beside its loss; `step` are done."""
        return {}

    def after_step(self, progress: float) -> None:  # noqa: B027 (optional to write)
        """Do what follows a step of the optimiser; `progress` runs from 0 to 1 over the training."""

    def after_checkpoint(self, step: int, figures: dict[str, float]) -> None:  # noqa: B027 (optional to write)
        """Do what follows the checkpoint of a step, whose validation gave `figures`."""


def figures_table(figures: Mapping[str, float]) -> str:
    """Return the figures of a training by name as a Markdown table, for a card."""
    rows = [(name.replace("_", " "), f"{value:.4g}") for name, value in figures.items()]
    return markdown_table([("figure", "value"), *rows]) + "\n"


def fit(
    trainer: Trainer, training: SteppedTraining, steps: int, job: Job, identity: Mapping[str, Any]
) -> dict[str, list[list[float]]]:
    """Take the steps that a run has left, and return the learning curve: `train` and `validation`, (step, loss) each.

    Args:
        trainer: what is trained.
        training: how.
        steps: in all.
        job: whose folder and `on_step`.
        identity: what, beside `training`, must be the same for a run to go on, as JSON has it.

    Raises:
        VjepaError: a figure is not a number any more, or the checkpoint is of another run.
    """
    run = TrainingRun(job.work, {**asdict(training), **identity}, trainer.parts, training.device)
    parameters = [parameter for group in trainer.optimiser.param_groups for parameter in group["params"]]
    step, curve = run.resume()
    curve = curve or {"train": [], "validation": []}
    began, since = time.monotonic(), step
    if 0 < step < steps and job.on_step:
        job.on_step(step, steps, {})

    def report(part: str, figures: dict[str, float], prefix: str = "") -> None:
        for name, value in figures.items():
            log.add_scalar(f"{part}/{name}", value, step)
        if job.on_step:
            job.on_step(step, steps, {f"{prefix}{name}": value for name, value in figures.items()})

    with run.events(step) as log:
        while step < steps:
            set_cosine_rate(trainer.optimiser, training.learning_rate, step, steps, trainer.warmup_steps)
            torch.manual_seed(training.seed * 1_000_003 + step)
            loss = trainer.loss(step)
            trainer.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, trainer.largest_gradient)
            trainer.optimiser.step()
            step += 1
            trainer.after_step(step / steps)
            if step % trainer.log_every == 0 or step == steps:
                figures = {"loss": float(loss.detach()), **trainer.measured(step)}
                require_finite(figures, step)
                curve["train"].append([step, figures["loss"]])
                report("train", figures | {"steps_per_s": (step - since) / (time.monotonic() - began)})
            if step % training.checkpoint_every == 0 or step == steps:
                figures = trainer.validate()
                curve["validation"].append([step, figures["loss"]])
                report("validation", figures, "validation_")
                run.save(step, curve)
                trainer.after_checkpoint(step, figures)
    return curve


def drawn(rows: np.ndarray, shape: int | tuple[int, ...], key: tuple[int, ...]) -> np.ndarray:
    """Return some of `rows`, of the given shape, drawn with replacement by the random numbers that `key` seeds."""
    return rows[np.random.default_rng(key).integers(len(rows), size=shape)]


def identity_of(dataset: Dataset) -> list[Any]:
    """Return what tells a dataset from another one in a training's identity: its rows, and how they came about."""
    return [len(dataset), hashlib.sha256(repr(dataset.info.sources).encode()).hexdigest()]


def provenance(dataset: Dataset, training: Training, command: str) -> dict[str, Any]:
    """Return what the configuration of a bundle has of its training: data, settings and command."""
    return {
        "encoder": dataset.info.encoder_name,
        "arm": arm_record(dataset.info.arm),
        "control_period_s": dataset.info.control_period_s,
        "dataset": list(dataset.info.sources),
        "training": asdict(training),
        "command": command,
    }


def require_finite(figures: Mapping[str, float], step: int) -> None:
    """Stop a training whose figures are not numbers any more.

    Raises:
        VjepaError: which, at which step.
    """
    wrong = [name for name, value in figures.items() if not math.isfinite(value)]
    if wrong:
        raise VjepaError(f"{', '.join(wrong)} not finite at step {step}; train with a lower learning rate")
