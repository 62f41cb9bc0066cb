"""The number type of an encoder that runs live on a processor: the faster one, by measurement."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence

import torch

from vjepa_perception.engine import Engine, weight_shapes
from vjepa_perception.model_config import ModelConfig

ROUNDS = 20
LIMIT_S = 0.5
"""After this time no further round begins."""

LEAST_GAIN = 1.2
"""The gain for which bfloat16 replaces float32: a smaller one is not worth its rounding."""


def faster_dtype(model: ModelConfig, clip_frames: int) -> tuple[torch.dtype, str]:
    """Return float32, or bfloat16 where it is clearly faster on this processor, and the reason in a few words.

    One layer of the encoder is timed in both types, which takes less than a second for models up to ViT-L. The number
    of threads is that of the calling thread.

    Args:
        model: configuration of the encoder.
        clip_frames: frames of a clip.
    """
    if not has_bfloat16_products():
        return torch.float32, "this processor has no matrix products of bfloat16"
    wide, narrow = shortest_times([_one_layer(model, clip_frames, dtype) for dtype in (torch.float32, torch.bfloat16)])
    reason = f"a layer takes {1e3 * wide:.2f} ms in float32 and {1e3 * narrow:.2f} ms in bfloat16"
    return (torch.bfloat16 if wide > LEAST_GAIN * narrow else torch.float32), reason


def has_bfloat16_products() -> bool:
    """Return whether this processor multiplies matrices of bfloat16, and torch's library may use these instructions."""
    instructions = torch.cpu.get_capabilities()
    has_instructions = any(instructions.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return has_instructions and torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def shortest_times(calls: Sequence[Callable[[], object]]) -> list[float]:
    """Return the shortest time of each call in seconds. The calls take turns, after one call each as a warm-up.

    The shortest time is the best estimate on a busy machine, because other work only adds to a time.
    """
    for call in calls:
        call()
    shortest = [math.inf for _ in calls]
    began_s = time.perf_counter()
    for _ in range(ROUNDS):
        for i, call in enumerate(calls):
            started_s = time.perf_counter()
            call()
            shortest[i] = min(shortest[i], time.perf_counter() - started_s)
        if time.perf_counter() - began_s > LIMIT_S:
            break
    return shortest


def _one_layer(model: ModelConfig, clip_frames: int, dtype: torch.dtype) -> Callable[[], object]:
    """Return a call that computes one layer for one clip. Its time does not depend on the values of the weights."""
    layer = dataclasses.replace(model, num_hidden_layers=1)
    weights = {name: torch.full(shape, 0.01, dtype=dtype) for name, shape in weight_shapes(layer).items()}
    engine = Engine(layer, weights, clip_frames)
    clip = [torch.zeros(3, model.crop_size, model.crop_size)] * clip_frames

    def compute() -> None:
        with torch.inference_mode():
            engine([clip])

    return compute
