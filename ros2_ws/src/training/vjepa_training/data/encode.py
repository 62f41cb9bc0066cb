"""Encoding an episode's frames offline, as a live node would have."""

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

from vjepa_perception.clip import ClipBuffer
from vjepa_perception.encoder import Encoder

ENCODE_BATCH = 32


def encode_frames(encoder: Encoder, frames: Iterable[tuple[int, np.ndarray]]) -> np.ndarray:
    """Return the latents of one episode's frames, (T, rows, dimension) float32, from the clips a live node would see.

    Args:
        encoder: the encoder.
        frames: stamp, nanoseconds, and (height, width, 3) uint8 of each frame; no more than a batch of clips is held.
    """
    latents = list(encoded_batches(encoder, frames))
    return np.concatenate(latents) if latents else np.empty((0, *encoder.shape), np.float32)


def encoded_batches(encoder: Encoder, frames: Iterable[tuple[int, np.ndarray]]) -> Iterator[np.ndarray]:
    """Yield the same latents batch by batch, (B, rows, dimension) float32, so that an episode may have any length."""
    clip = ClipBuffer(encoder.clip_frames)
    clips = (clip.push(stamp_ns, encoder.preprocess(rgb)) for stamp_ns, rgb in frames)
    while batch := list(islice(clips, ENCODE_BATCH)):
        yield encoder.encode(batch)
