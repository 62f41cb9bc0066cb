"""Encode an episode's frames offline, with the clips of a live node."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from vjepa_perception.clip import ClipBuffer
from vjepa_perception.encoder import Encoder

ENCODE_BATCH = 32


def encode_frames(encoder: Encoder, frames: Iterable[tuple[int, np.ndarray]]) -> np.ndarray:
    """Return the latents of one episode's frames, (T, rows, dimension) float32, from the clips of a live node.

    Args:
        encoder: the encoder.
        frames: stamp, nanoseconds, and (height, width, 3) uint8 of each frame; at most one batch of clips is held.
    """
    latents = list(encoded_batches(encoder, episode_clips(encoder, frames)))
    return np.concatenate(latents) if latents else np.empty((0, *encoder.shape), np.float32)


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
