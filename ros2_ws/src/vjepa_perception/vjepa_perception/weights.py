"""The weights of a V-JEPA 2 encoder: read from safetensors or drawn from a seed, hashed, and put on a device."""

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Set
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from vjepa_interfaces.bundle import WEIGHTS_FILE
from vjepa_interfaces.errors import VjepaError
from vjepa_perception.checkpoint import Checkpoint, CheckpointError

_PREFIXES = ("vjepa2.encoder.", "encoder.")
"""Prefixes of an encoder's tensors: in a video classifier's file, and in every other file."""


_OF_VERSION_2_1 = ("norms_block", "mod_embed", "modality", "patch_embed_img", "patch_embeddings_img")
"""Parts of tensors' names that only V-JEPA 2.1 has: norms of several depths, embeddings of still images."""


class MemoryShortageError(VjepaError):
    """An encoder or a batch that does not fit into the device's memory."""


def place_weights(encoder: nn.Module, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> str:
    """Load the checkpoint's encoder weights into `encoder`, a module on the meta device, and return their sha256.

    Args:
        encoder: transformers' encoder module, without weights.
        checkpoint: the checkpoint on disk.
        device: the device of the loaded weights.
        dtype: the type of the loaded weights.

    Raises:
        CheckpointError: as `read_weights`.
        MemoryShortageError: as `read_weights`.
    """
    shapes = {name: tuple(parameter.shape) for name, parameter in encoder.named_parameters()}
    weights, digest = read_weights(shapes, checkpoint, device, dtype)
    encoder.load_state_dict(weights, assign=True)
    return digest


def read_weights(
    shapes: dict[str, tuple[int, ...]], checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype
) -> tuple[dict[str, torch.Tensor], str]:
    """Read the checkpoint's encoder weights by name; predictors stay on disk.

    Weights are handled one at a time, so the peak memory is the encoder in `dtype` and one tensor in float32.

    Args:
        shapes: shapes of the configuration's weights, by name.
        checkpoint: the checkpoint on disk.
        device: the device of the returned weights.
        dtype: the type of the returned weights.

    Returns:
        The weights, and the sha256 of names, shapes and values as float32, in the order of the names. The hash does not
        depend on the device, the dtype or the kind of file.

    Raises:
        CheckpointError: a file is truncated or corrupt, or its tensors are not those of the configuration.
        MemoryShortageError: the weights do not fit.
    """
    check_memory(shapes, checkpoint, device, dtype)
    digest = hashlib.sha256()
    placed = {}
    with explained_shortage(f"loading {checkpoint.name} as {dtype} on {device}"):
        for name, weight in _hashed_weights(shapes, checkpoint, digest):
            # A copy, since the tensor just read may be a view of the file.
            placed[name] = weight.to(device, dtype, copy=True)
    return placed, digest.hexdigest()


def hash_weights(shapes: dict[str, tuple[int, ...]], checkpoint: Checkpoint) -> str:
    """Return the sha256 that `read_weights` returns, keeping no weight in memory.

    Raises:
        CheckpointError: as `read_weights`.
    """
    digest = hashlib.sha256()
    for _ in _hashed_weights(shapes, checkpoint, digest):
        pass
    return digest.hexdigest()


def check_memory(
    shapes: dict[str, tuple[int, ...]], checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype
) -> None:
    """Refuse weights that do not fit into a device's free memory.

    Args:
        shapes: shapes of the configuration's weights, by name.
        checkpoint: the checkpoint on disk, for the message.
        device: the device of the weights.
        dtype: the type of the weights.

    Raises:
        MemoryShortageError: the device has too little free memory.
    """
    count = parameter_count(shapes)
    _check_memory(f"{checkpoint.name} ({count / 1e6:.0f}M parameters, {dtype})", count * dtype.itemsize, device)


def parameter_count(shapes: dict[str, tuple[int, ...]]) -> int:
    """Return the number of values in weights of these shapes, by name."""
    return sum(map(math.prod, shapes.values()))


def _hashed_weights(
    shapes: dict[str, tuple[int, ...]], checkpoint: Checkpoint, digest: "hashlib._Hash"
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield each weight as float32, in the order of the names, once it is in the digest."""
    with contextlib.ExitStack() as stack:
        if checkpoint.init_seed is not None:
            read = _seeded(shapes, checkpoint.init_seed, checkpoint.model.get("initializer_range", 0.02))
        else:
            read = stack.enter_context(_opened(checkpoint.weights, shapes))
        for name in sorted(shapes):
            weight = read(name).to(torch.float32).contiguous()
            digest.update(json.dumps([name, list(weight.shape)]).encode())
            digest.update(weight.numpy().data)
            yield name, weight


@contextlib.contextmanager
def explained_shortage(doing: str) -> Iterator[None]:
    """Turn torch's errors of running out of memory while `doing` something into a MemoryShortageError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "can't allocate memory" not in str(error):
            raise
        raise MemoryShortageError(
            f"out of memory while {doing}; use a smaller batch, dtype bfloat16, a smaller encoder or another device"
        ) from error


@contextlib.contextmanager
def _opened(files: tuple[Path, ...], shapes: dict[str, tuple[int, ...]]) -> Iterator[Callable[[str], torch.Tensor]]:
    """Open safetensors files and yield a function that reads an encoder's weight by its name."""
    sources, keys = {}, set[str]()
    with contextlib.ExitStack() as stack:
        for file in files:
            try:
                handle = stack.enter_context(safe_open(file, framework="pt"))
            except (SafetensorError, OSError) as error:
                raise CheckpointError(
                    f"{file} ({file.stat().st_size} bytes) is truncated or corrupt: {error}; copy or download it again"
                ) from error
            for key in handle.keys():  # noqa: SIM118 (a file handle, not a dict)
                keys.add(key)
                prefix = next((prefix for prefix in _PREFIXES if key.startswith(prefix)), None)
                if prefix:
                    sources[key.removeprefix(prefix)] = (file, handle, key)
        if sources.keys() != shapes.keys():
            raise _other_weights(files[0].parent, shapes.keys(), sources.keys(), keys)

        def read(name: str) -> torch.Tensor:
            file, handle, key = sources[name]
            try:
                weight = handle.get_tensor(key)
            except SafetensorError as error:
                raise CheckpointError(f"{file} is corrupt at '{key}' ({error}); download it again") from error
            if tuple(weight.shape) != shapes[name] or not weight.is_floating_point():
                raise CheckpointError(
                    f"{file}: '{key}' has shape {tuple(weight.shape)} and type {weight.dtype}; "
                    f"the configuration expects {shapes[name]} in floating point"
                )
            return weight

        yield read


def _other_weights(folder: Path, expected: Set[str], found: Set[str], keys: Set[str]) -> CheckpointError:
    """Return the error for weights that do not match the configuration, with the most likely cause.

    Args:
        folder: folder of the weights.
        expected: names of the encoder's weights, by the configuration.
        found: names of the encoder's weights in the files, without their prefix.
        keys: names of all tensors in the files, unchanged.
    """
    missing, unknown = sorted(expected - found), sorted(found - expected)
    if wrapper := _wrapper(expected, keys):
        return CheckpointError(
            f"the weights in {folder} are wrapped: the encoder's names begin with '{wrapper}', and '{_PREFIXES[-1]}' "
            f"is expected; save them anew from the model within, or rename them so in {folder / WEIGHTS_FILE}"
        )
    newer = [name for name in unknown if any(mark in name for mark in _OF_VERSION_2_1)]
    if newer:
        return CheckpointError(
            f"the weights in {folder} are those of V-JEPA 2.1, which this release does not compute: they have "
            f"{', '.join(newer[:3])}; expected V-JEPA 2's, such as facebook/vjepa2-vitl-fpc64-256"
        )
    if not missing:
        hint = "they are of another architecture, or the configuration leaves out a part of it"
    elif not found:
        hint = f"no tensor's name begins with {' or '.join(_PREFIXES)}; the files have {sorted(keys)[:3]}"
    else:
        hint = "both files must be of one checkpoint"
    return CheckpointError(
        f"the weights in {folder} are not those of its configuration: {len(missing)} missing {missing[:3]}, "
        f"{len(unknown)} unknown {unknown[:3]}; {hint}"
    )


def _wrapper(expected: Set[str], keys: Set[str]) -> str | None:
    """Return the prefix of all expected names in the files, if it is the same for all and not a known prefix."""
    first = max(expected, key=len)
    for key in sorted(keys):
        prefix = key.removesuffix(first)
        if prefix != key and prefix not in _PREFIXES and all(prefix + name in keys for name in expected):
            return prefix
    return None


def _seeded(shapes: dict[str, tuple[int, ...]], seed: int, spread: float) -> Callable[[str], torch.Tensor]:
    """Return a function that draws an untrained encoder's weights; it must be called in the order of the names.

    Matrices are uniform with the standard deviation `spread`, biases are 0, and the norms' gains are 1. A uniform draw
    takes one rounding. So the bits, and the fingerprint, are the same on every machine.
    """
    generator = torch.Generator().manual_seed(seed)
    width = spread * 12**0.5

    def read(name: str) -> torch.Tensor:
        if name.endswith(".bias"):
            return torch.zeros(shapes[name])
        if len(shapes[name]) == 1:
            return torch.ones(shapes[name])
        return (torch.rand(shapes[name], generator=generator) - 0.5) * width

    return read


def _check_memory(what: str, needed: int, device: torch.device) -> None:
    free = free_bytes(device)
    if free is not None and needed > free:
        raise MemoryShortageError(
            f"{what} needs {needed / 2**30:.1f} GiB for its weights, but {device} has {free / 2**30:.1f} GiB free; "
            "use dtype bfloat16, a smaller encoder or another device"
        )


def free_bytes(device: torch.device) -> int | None:
    """Return the free memory of a device; None if it is unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None
