"""What every trainer needs to be killed at any moment and go on: a checkpoint, and TensorBoard's events beside it."""

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.files import atomic_file
from vjepa_interfaces.tables import markdown_table
from vjepa_training.data.dataset import Dataset
from vjepa_training.trainers.optimiser import set_cosine_rate

CHECKPOINT_FILE = "checkpoint.pt"
LOG_EVERY = 50
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


class Schedule(Protocol):
    """What `fit` reads of a trainer's settings."""

    @property
    def learning_rate(self) -> float:
        """At its highest; it falls to 0 along a cosine."""
        ...

    @property
    def seed(self) -> int:
        """Of all that is drawn."""
        ...

    @property
    def checkpoint_every(self) -> int:
        """Steps."""
        ...


class TrainingRun:
    """A training that goes on where its checkpoint left it.

    For the same result as without a kill, whatever a step draws at random has to come from its own number.
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
        self.work.mkdir(parents=True, exist_ok=True)

    def resume(self) -> tuple[int, dict[str, Any]]:
        """Load the checkpoint, if there is one; return the steps done and what `save` was given beside.

        Raises:
            VjepaError: it is damaged, or of a run with other settings or data; which, is named.
        """
        path = self.work / CHECKPOINT_FILE
        if not path.exists():
            return 0, {}
        try:
            return self._restored(path)
        except VjepaError:
            raise
        except Exception as error:  # torch raises many kinds
            what = f"{type(error).__name__}: {error}".splitlines()[0]
            raise VjepaError(f"{path} is damaged ({what}); remove it, and training begins anew") from error

    def _restored(self, path: Path) -> tuple[int, dict[str, Any]]:
        state = torch.load(path, map_location=self._device, weights_only=True)
        found, expected = json.loads(state["identity"]), json.loads(self._identity)
        differing = [name for name in expected if found.get(name) != expected[name]]
        if differing:
            raise VjepaError(
                f"{path} is of a run with other {', '.join(differing)}; give another --work folder, or remove this one"
            )
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        return int(state["step"]), json.loads(state["beside"])

    def save(self, step: int, beside: Mapping[str, Any] | None = None) -> None:
        """Write the checkpoint of `step`, whole or not at all, with what JSON can hold of `beside`."""
        state = {"identity": self._identity, "step": step, "beside": json.dumps(beside or {})}
        with atomic_file(self.work / CHECKPOINT_FILE) as temporary:
            torch.save(state | {name: part.state_dict() for name, part in self._parts.items()}, temporary)

    @contextlib.contextmanager
    def events(self, step: int) -> Iterator[Any]:
        """Yield TensorBoard's writer; what a killed run wrote behind `step` is struck out."""
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(self.work / "events"), purge_step=step or None) as writer:
            yield writer


def figures_table(figures: Mapping[str, float]) -> str:
    """Return the figures of a training by name as a Markdown table, for a card."""
    rows = [(name.replace("_", " "), f"{value:.4g}") for name, value in figures.items()]
    return markdown_table([("figure", "value"), *rows]) + "\n"


def fit(
    run: TrainingRun,
    optimiser: torch.optim.Optimizer,
    training: Schedule,
    steps: int,
    loss_of: Callable[[int], Tensor],
    validate: Callable[[], dict[str, float]],
    on_step: Callable[[int, int, dict[str, float]], None] | None = None,
) -> dict[str, list[list[float]]]:
    """Take the steps that are left of `run` and return the learning curve: `train` and `validation`, (step, loss) each.

    Args:
        run: checkpoint and events.
        optimiser: of the parameters that are trained.
        training: highest learning rate, seed, and steps between checkpoints.
        steps: in all.
        loss_of: returns the loss of the step of a number; what it draws with torch is the same for the same number.
        validate: returns figures on what was kept for validation, the one named `loss` among them.
        on_step: called now and then with the steps done, those there are, and the latest figures; where a checkpoint is
            gone on from at first without figures.

    Raises:
        VjepaError: the loss is not a number any more, or the checkpoint is of another run.
    """
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    step, curve = run.resume()
    curve = curve or {"train": [], "validation": []}
    began, since = time.monotonic(), step
    if 0 < step < steps and on_step:
        on_step(step, steps, {})

    def say(part: str, figures: dict[str, float], prefix: str = "") -> None:
        for name, value in figures.items():
            log.add_scalar(f"{part}/{name}", value, step)
        if on_step:
            on_step(step, steps, {f"{prefix}{name}": value for name, value in figures.items()})

    with run.events(step) as log:
        while step < steps:
            set_cosine_rate(optimiser, training.learning_rate, step, steps)
            torch.manual_seed(training.seed * 1_000_003 + step)
            loss = loss_of(step)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, LARGEST_GRADIENT)
            optimiser.step()
            step += 1
            if step % LOG_EVERY == 0 or step == steps:
                figures = {"loss": float(loss.detach())}
                require_finite(figures, step)
                curve["train"].append([step, figures["loss"]])
                say("train", figures | {"steps_per_s": (step - since) / (time.monotonic() - began)})
            if step % training.checkpoint_every == 0 or step == steps:
                figures = validate()
                curve["validation"].append([step, figures["loss"]])
                say("validation", figures, "validation_")
                run.save(step, curve)
    return curve


def identity_of(dataset: Dataset) -> list[Any]:
    """Return what tells a dataset from another one in a training's identity: its rows, and how they came about."""
    return [len(dataset), hashlib.sha256(repr(dataset.info.sources).encode()).hexdigest()]


def require_finite(figures: Mapping[str, float], step: int) -> None:
    """Stop a training whose figures are not numbers any more.

    Raises:
        VjepaError: which, at which step.
    """
    wrong = [name for name, value in figures.items() if not math.isfinite(value)]
    if wrong:
        raise VjepaError(f"{', '.join(wrong)} not finite at step {step}; train with a lower learning rate")
