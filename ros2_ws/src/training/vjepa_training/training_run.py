"""What every trainer needs to be killed at any moment and go on: a checkpoint, and TensorBoard's events beside it."""

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from vjepa_interfaces.errors import VjepaError

CHECKPOINT_FILE = "checkpoint.pt"


class Stateful(Protocol):
    """A network or an optimiser, as torch has them."""

    def state_dict(self) -> dict[str, Any]:
        """Return all that changes in training."""
        ...

    def load_state_dict(self, state: Any, /) -> Any:
        """Take it back."""
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
            VjepaError: it is of a run with other settings or data; which, is named.
        """
        path = self.work / CHECKPOINT_FILE
        if not path.exists():
            return 0, {}
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
        path = self.work / CHECKPOINT_FILE
        temporary = path.with_name(path.name + ".tmp")
        torch.save(state | {name: part.state_dict() for name, part in self._parts.items()}, temporary)
        temporary.replace(path)

    @contextlib.contextmanager
    def events(self, step: int) -> Iterator[Any]:
        """Yield TensorBoard's writer; what a killed run wrote behind `step` is struck out."""
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(self.work / "events"), purge_step=step or None) as writer:
            yield writer


def require_finite(figures: Mapping[str, float], step: int) -> None:
    """Stop a training whose figures are not numbers any more.

    Raises:
        VjepaError: which, at which step.
    """
    wrong = [name for name, value in figures.items() if not math.isfinite(value)]
    if wrong:
        raise VjepaError(f"{', '.join(wrong)} not finite at step {step}; train with a lower learning rate")
