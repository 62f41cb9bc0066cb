"""Encode an episode's frames offline, with the clips of a live node."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from vjepa_perception.clip import ClipBuffer
from vjepa_perception.encoder import Encoder

ENCODE_BATCH = 32


def episode_clips(encoder: Encoder, frames: Iterable[tuple[int, np.ndarray]]) -> Iterator[tuple[Any, ...]]:
    """Yield the clip that ends with each of one episode's frames, oldest frame first, preprocessed for `encoder`."""
    clip = ClipBuffer(encoder.clip_frames)
    for stamp_ns, rgb in frames:
        yield clip.push(stamp_ns, encoder.preprocess(rgb))


def encoded_batches(
    encoder: Encoder, clips: Iterator[tuple[Any, ...]], size: int = ENCODE_BATCH
) -> Iterator[np.ndarray]:
    """Yield the latents of any number of `clips`, in batches of at most `size`: (B, rows, dimension) float32."""
    while batch := list(islice(clips, size)):
        yield encoder.encode(batch)
