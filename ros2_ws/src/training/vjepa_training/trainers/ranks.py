"""Train in several processes: each takes its share of every batch, and gradients are averaged.

`torchrun` starts the processes, on one host or on several, and tells each its rank and the address of the first one.
A process that `torchrun` has not started is alone: it is the first, and its share is all.
"""

import contextlib
import datetime
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, distributed, nn

from vjepa_interfaces.errors import VjepaError

T = TypeVar("T")
TIMEOUT = datetime.timedelta(hours=2)
"""The longest time that processes wait for each other: the first one prepares data alone."""


class Stateful(Protocol):
    """A network or an optimiser of torch."""

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state that changes in training."""
        ...

    def load_state_dict(self, state: Any, /) -> Any:
        """Restore this state."""
        ...


@contextlib.contextmanager
def joined(device: str) -> Iterator[None]:
    """Join the processes that `torchrun` has started, throughout the context: by NCCL on GPUs, else by Gloo.

    Args:
        device: device of the training. With `cuda`, each process of a host takes a GPU of its own.

    Raises:
        VjepaError: all processes are to use one GPU, or the first process cannot be reached.
    """
    if not _are_several():
        yield
        return
    kind, _, index = device.partition(":")
    if index:
        raise VjepaError(f"device is '{device}' for all processes; expected cuda, with which each takes its own GPU")
    with _explained():
        if kind == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        distributed.init_process_group("nccl" if kind == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def refuse_several() -> None:
    """Refuse a training that cannot be shared, if `torchrun` has started several processes.

    Raises:
        VjepaError: there are several processes, and they have not joined.
    """
    if _are_several() and not distributed.is_initialized():
        raise VjepaError(
            "torchrun started several processes, which only train encoder and train dynamics can share; start this "
            "training without torchrun"
        )


def rank() -> int:
    """Return the number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def count() -> int:
    """Return the number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def is_first() -> bool:
    """Return whether this process is the first one, which alone writes files and shows progress."""
    return rank() == 0


def share(rows: np.ndarray) -> np.ndarray:
    """Return this process's share of a batch, (..., B): every n-th row for n processes.

    Raises:
        VjepaError: the batch cannot be divided evenly.
    """
    size = rows.shape[-1]
    if size % count():
        raise VjepaError(f"batch_size is {size}; expected a multiple of {count()}, the number of processes")
    return rows[..., rank() :: count()]


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace the gradients by their means over all processes."""
    if count() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    sums = torch.cat([gradient.flatten() for gradient in gradients])
    with _explained():
        distributed.all_reduce(sums)
    for gradient, mean in zip(gradients, (sums / count()).split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def gather(part: Tensor) -> Tensor:
    """Return the rows of a whole batch, (B, ...), from this process's rows for its share, (B / n, ...)."""
    if count() == 1:
        return part
    parts = [torch.empty_like(part) for _ in range(count())]
    with _explained():
        distributed.all_gather(parts, part.contiguous())
    return torch.cat(parts)


def mean_figures(figures: dict[str, float]) -> dict[str, float]:
    """Return the mean of each figure over all processes."""
    if count() == 1:
        return figures
    found: list[Any] = [None] * count()
    with _explained():
        distributed.all_gather_object(found, figures)
    return {name: sum(each[name] for each in found) / count() for name in figures}


def from_first(value: T) -> T:
    """Return the value that the first process gives."""
    if count() == 1:
        return value
    values = [value]
    with _explained():
        distributed.broadcast_object_list(values, src=0)
    return values[0]


def copy_from_first(parts: Mapping[str, Stateful], device: str) -> None:
    """Give networks and optimisers the state that they have in the first process."""
    if count() == 1:
        return
    buffer = io.BytesIO()
    if is_first():
        torch.save({name: part.state_dict() for name, part in parts.items()}, buffer)
    content = from_first(buffer.getvalue())
    if not is_first():
        state = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])


def require_same(identity: str) -> None:
    """Refuse a training that is not the one of the first process.

    Args:
        identity: settings and data of the training, as text.

    Raises:
        VjepaError: the first process has another identity.
    """
    if from_first(identity) != identity:
        raise VjepaError(f"process {rank()} has other settings or data than process 0; give all processes the same")


@contextlib.contextmanager
def first_before_others() -> Iterator[None]:
    """Let the first process run the context before the others, which then find the files that it wrote."""
    if not is_first():
        from_first(None)
    yield
    if is_first():
        from_first(None)


def _are_several() -> bool:
    return os.environ.get("WORLD_SIZE", "1") != "1"


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turn torch's errors of a connection into a VjepaError."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise VjepaError(
            f"the processes of the training are not connected ({reason}); see which of them ended first, and start all "
            "of them by torchrun"
        ) from error
