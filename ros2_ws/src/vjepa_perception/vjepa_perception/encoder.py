"""The frozen V-JEPA 2 encoder: clips of frames in, latents out. No ROS."""

import contextlib
import ctypes
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from vjepa_interfaces.bundle import find_bundle
from vjepa_interfaces.encoder_info import EncoderInfo
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.forked import mark_initialised, refuse_fork
from vjepa_perception.checkpoint import Checkpoint, CheckpointError, find_checkpoint
from vjepa_perception.dtype_choice import faster_dtype
from vjepa_perception.engine import Engine, activation, weight_shapes
from vjepa_perception.model_config import ModelConfig, model_config
from vjepa_perception.perception_parameters import ALL_TOKENS, EncoderConfig
from vjepa_perception.placement import AUTO
from vjepa_perception.preprocessing import Preprocessing
from vjepa_perception.weights import (
    check_memory,
    explained_shortage,
    free_bytes,
    hash_weights,
    parameter_count,
    read_weights,
)

TORCH = "torch"
"""The names of the thread pool and of the GPU's context in `vjepa_interfaces.forked`."""
MEAN_ONLY = 0

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Options of mallopt(3)."""
KEPT_BYTES, MAPPED_BYTES = 2**27, 2**25

PROCESS_BYTES = 2**30
"""Memory of a process that encodes, beside the weights: libraries, the GPU's context, activations. An estimate."""

_MEANT_BY_WEIGHTS = ("patch_size", "tubelet_size", "num_attention_heads", "layer_norm_eps", "hidden_act")
"""The fields of a model's configuration that change its latents but not its weights' shapes."""


class EncoderError(VjepaError):
    """An encoder that cannot run with the given configuration, or clips that it cannot encode."""


class Encoder:
    """A V-JEPA 2 encoder with its preprocessing and pooling; `load_encoder` makes one.

    `preprocess` and `encode` may run in different threads, but `encode` only in one at a time.

    Attributes:
        name: hub id, or name of the folder.
        fingerprint: 16 hexadecimal digits over weights, preprocessing, clip length, image size and pooling; not over
            device or dtype.
        clip_frames: frames of a clip.
        grid: the pooling, see `EncoderConfig`.
        shape: rows and dimension of a latent.
        untrained: whether the weights were drawn from a seed.
        parameters: number of the encoder's parameters.
        device: the device on which it runs.
        dtype: the type in which it computes.
        dtype_reason: the reason for `dtype` if it was measured, with the measured times; otherwise empty.
    """

    def __init__(
        self,
        model: Any,
        weights: dict[str, torch.Tensor],
        checkpoint: Checkpoint,
        weights_digest: str,
        config: EncoderConfig,
        dtype_reason: str = "",
    ) -> None:
        self._engine: Engine | None = Engine(model, weights, config.clip_frames)
        self._preprocessing: Preprocessing = checkpoint.preprocessing
        self._side = model.crop_size // model.patch_size
        weight = next(iter(weights.values()))
        self.device: torch.device = weight.device
        self.dtype: torch.dtype = weight.dtype
        self.dtype_reason = dtype_reason
        self.name = checkpoint.name
        self.clip_frames = config.clip_frames
        self.grid = config.grid
        tokens = config.clip_frames // model.tubelet_size * self._side**2
        self.shape = (1 + (tokens if self.grid == ALL_TOKENS else self.grid**2), model.hidden_size)
        self.untrained = checkpoint.init_seed is not None
        self.parameters = sum(weight.numel() for weight in weights.values())
        self.fingerprint = _fingerprint(weights_digest, model, checkpoint.preprocessing, config)

    def preprocess(self, rgb: np.ndarray) -> torch.Tensor:
        """Return a frame, uint8 of shape (height, width, 3), as the encoder takes it: float32, (3, side, side).

        The CPU computes it, with exactly the arithmetic of the checkpoint's own processor. The result is on the
        encoder's device, so that each frame of a sliding clip is copied there once.

        Raises:
            FrameError: the frame has another shape or type.
            ForkedError: this process was forked after an encoder had been loaded.
        """
        refuse_fork(TORCH)
        return self._preprocessing.apply(rgb).to(self.device)

    def encode(self, clips: Sequence[Sequence[torch.Tensor]]) -> np.ndarray:
        """Return the latents of `clips`: float32, shape (B, rows, dimension).

        Row 0 is the mean of all tokens. The others are the averaged cells of the last tubelet's grid, row by row from
        the top left. With the grid for all tokens they are the tokens, tubelet by tubelet.

        Args:
            clips: B clips of `clip_frames` frames each, oldest first, as `preprocess` returns them. Frames must not be
                changed afterwards.

        Raises:
            EncoderError: there are no clips, or clips of another length or with frames of another shape.
            MemoryShortageError: the batch does not fit into memory.
            ForkedError: this process was forked after an encoder had been loaded.
        """
        refuse_fork(TORCH)
        engine = self._check(clips)
        with explained_shortage(f"encoding {len(clips)} clips on {self.device}"), torch.inference_mode():
            tokens = engine(clips).to(torch.float32)
            return pooled(tokens, self._side, self.grid).cpu().numpy()

    def info(self) -> EncoderInfo:
        """Return the content of `~/latent_info`: the origin and the shape of the latents."""
        return {
            "model": self.name,
            "fingerprint": self.fingerprint,
            "clip_frames": self.clip_frames,
            "grid": self.grid,
            "shape": list(self.shape),
            "image_size": self._preprocessing.crop,
            "untrained": self.untrained,
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    def warm_up(self) -> None:
        """Encode a grey clip twice, so that the first real one is as fast as the others.

        Raises:
            EncoderError: the latents are not finite.
        """
        for _ in range(2):
            latents = self.encode([self._grey_clip()])
        if not np.isfinite(latents).all():
            raise EncoderError(
                f"{self.name} gives latents that are not finite in {self.dtype}; its weights are damaged "
                "or the type is too narrow for them: use dtype float32 or bfloat16"
            )

    def encode_time_s(self, clips: int = 10) -> float:
        """Return the median time of encoding one of `clips` clips, seconds, after a warm-up.

        Raises:
            EncoderError: as `warm_up`.
        """
        self.warm_up()
        clip, times_s = self._grey_clip(), []
        for _ in range(clips):
            began_s = time.monotonic()
            self.encode([clip])
            times_s.append(time.monotonic() - began_s)
        return float(np.median(times_s))

    def _grey_clip(self) -> list[torch.Tensor]:
        side = self._preprocessing.resize
        return [self.preprocess(np.full((side, side, 3), 128, np.uint8))] * self.clip_frames

    def close(self) -> None:
        """Free the weights' memory; the encoder cannot be used afterwards."""
        self._engine = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _check(self, clips: Any) -> Engine:
        """Return the engine, after a check of the clips."""
        shape = (3, self._preprocessing.crop, self._preprocessing.crop)
        if self._engine is None:
            raise EncoderError(f"{self.name} was closed; load it again")
        lengths = {len(clip) for clip in clips}
        if lengths != {self.clip_frames}:
            raise EncoderError(
                f"clips have {sorted(lengths) or 'no'} frames; expected one clip or more of {self.clip_frames}"
            )
        wrong = next((frame for clip in clips for frame in clip if tuple(frame.shape) != shape), None)
        if wrong is not None:
            raise EncoderError(f"a clip has a frame of shape {tuple(wrong.shape)}; expected {shape}, from preprocess()")
        return self._engine


def load_encoder(config: EncoderConfig, live: bool = False) -> Encoder:
    """Load the encoder that `config` names; a cached checkpoint is not downloaded again.

    Args:
        config: the encoder, and how to run it.
        live: on a processor, dtype `auto` is the faster of float32 and bfloat16, by measurement. Otherwise it is
            float32, so that equal runs give equal latents.

    Raises:
        CheckpointError: the checkpoint does not exist, is not V-JEPA 2's, or has damaged files.
        EncoderError: the clip length or the pooling does not fit the model, or the device does not exist.
        MemoryShortageError: it does not fit into memory.
        ForkedError: this process was forked after an encoder had been loaded.
        VjepaError: the preprocessing is not V-JEPA 2's.
    """
    checkpoint, model, device, dtype = _resolved(config)
    if config.threads:
        torch.set_num_threads(config.threads)
    _keep_freed_memory()
    reason = ""
    if live and config.dtype == AUTO and device.type == "cpu":
        dtype, reason = faster_dtype(model, config.clip_frames)
    weights, digest = read_weights(weight_shapes(model), checkpoint, device, dtype)
    return Encoder(model, weights, checkpoint, digest, config, reason)


def identify_encoder(config: EncoderConfig) -> tuple[str, str]:
    """Return the name and the fingerprint of the encoder that `config` names, without loading it.

    It reads every weight once, keeps none, and raises the same errors as `load_encoder`.

    Raises:
        VjepaError: as `load_encoder`.
    """
    checkpoint, model, device, dtype = _resolved(config)
    shapes = weight_shapes(model)
    check_memory(shapes, checkpoint, device, dtype)
    return checkpoint.name, _fingerprint(hash_weights(shapes, checkpoint), model, checkpoint.preprocessing, config)


def copies_in_memory(config: EncoderConfig) -> int:
    """Return how many processes can have the encoder in the device's free memory at once, at least 1.

    Each is taken to need `PROCESS_BYTES` and twice its weights.

    Raises:
        VjepaError: as `load_encoder`, but damaged weights are not detected.
    """
    _, model, device, dtype = _resolved(config)
    weights = parameter_count(weight_shapes(model)) * dtype.itemsize
    free = free_bytes(device)
    return sys.maxsize if free is None else max(1, free // (PROCESS_BYTES + 2 * weights))


def _resolved(config: EncoderConfig) -> tuple[Checkpoint, ModelConfig, torch.device, torch.dtype]:
    """Return checkpoint, the model's configuration, device and type of an encoder, after checks of all of them."""
    mark_initialised(TORCH)
    device = _device(config.device)
    dtype = _dtype(config.dtype, device)
    checkpoint = find_checkpoint(find_bundle(config.encoder))
    model = model_config(checkpoint)
    _check_fit(model, checkpoint, config)
    return checkpoint, model, device, dtype


def _fingerprint(weights_digest: str, model: ModelConfig, preprocessing: Preprocessing, config: EncoderConfig) -> str:
    """Return the `fingerprint` of an `Encoder`."""
    facts = {
        "weights": weights_digest,
        "model": {name: getattr(model, name) for name in _MEANT_BY_WEIGHTS},
        "preprocessing": asdict(preprocessing),
        "clip_frames": config.clip_frames,
        "grid": config.grid,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _keep_freed_memory() -> None:
    """Let the C library keep up to `KEPT_BYTES` of freed memory for the next clip.

    By default it returns freed memory to the system, depending on the order of allocations. The next encoding then
    waits for the same pages again: up to 160 page faults for each clip of the small encoder.
    """
    with contextlib.suppress(OSError, AttributeError):  # Not every C library has it.
        library = ctypes.CDLL(None)
        library.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        library.mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)  # At most so much may lie in the heap.


def pooled(tokens: torch.Tensor, side: int, grid: int) -> torch.Tensor:
    """Return the rows of latents, (B, rows, D), of `tokens`, (B, N, D), in the order of V-JEPA 2: tubelet, row, column.

    Args:
        tokens: encoder output; the last `side` x `side` tokens are the last tubelet's.
        side: patches along a side of the image.
        grid: the pooling, see `EncoderConfig`.
    """
    mean = tokens.mean(dim=1, keepdim=True)
    if grid == MEAN_ONLY:
        return mean
    if grid == ALL_TOKENS:
        return torch.cat([mean, tokens], dim=1)
    last = tokens[:, -(side**2) :].transpose(1, 2).unflatten(2, (side, side))
    cells = functional.adaptive_avg_pool2d(last, grid).flatten(2).transpose(1, 2)
    return torch.cat([mean, cells], dim=1)


def empty_module(checkpoint: Checkpoint) -> Any:
    """Return transformers' encoder module without weights (on the meta device) and without a predictor.

    Raises:
        CheckpointError: as `model_config`.
        EncoderError: transformers cannot be imported.
    """
    model = model_config(checkpoint)
    try:
        from transformers.models.vjepa2.configuration_vjepa2 import VJEPA2Config
        from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2Encoder
    except (ImportError, RuntimeError) as error:
        raise EncoderError(
            f"transformers' V-JEPA 2 does not import: {error}; if the reason is a torchvision made for another torch "
            f"than {torch.__version__}, uninstall it (it is not needed here) or install the one that matches"
        ) from error
    with torch.device("meta"):
        return VJEPA2Encoder(VJEPA2Config.from_dict(dict(vars(model)), attn_implementation="sdpa"))


def _check_fit(model: ModelConfig, checkpoint: Checkpoint, config: EncoderConfig) -> None:
    """Refuse an unknown activation, and a clip length, pooling or image size that does not fit the model."""
    activation(model.hidden_act)
    side, crop = model.crop_size // model.patch_size, checkpoint.preprocessing.crop
    if crop != model.crop_size or crop % model.patch_size:
        raise CheckpointError(
            f"{checkpoint.path}: preprocessing crops to {crop} pixels and the model takes {model.crop_size} in patches "
            f"of {model.patch_size}; expected equal sizes, a multiple of the patch"
        )
    if config.clip_frames % model.tubelet_size:
        raise EncoderError(
            f"clip_frames is {config.clip_frames}; expected a multiple of {checkpoint.name}'s tubelet size, "
            f"{model.tubelet_size}"
        )
    if checkpoint.clip_frames not in (None, config.clip_frames):
        raise EncoderError(
            f"clip_frames is {config.clip_frames}, but {checkpoint.name} was made for clips of "
            f"{checkpoint.clip_frames}; set clip_frames to that"
        )
    if config.grid > side:
        raise EncoderError(
            f"grid is {config.grid}; expected 1 to {side} ({checkpoint.name} has {side} x {side} patches), "
            "0 for the mean row alone or -1 for every token"
        )


def _device(name: str) -> torch.device:
    if name == AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "cuda" and int(index or 0) >= count:
        raise EncoderError(
            f"device is '{name}', but torch {torch.__version__} finds {count} CUDA devices; "
            "use device auto or cpu, or install a driver and a CUDA build of torch"
        )
    return torch.device(name)


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == AUTO:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return getattr(torch, name)
