"""Augment clips in training by cheap changes, drawn for each clip, as other cameras, lenses and surroundings make them.

All frames of a clip share every draw except the noise, so that only moving things move. Each clip gets each change with
its own probability; three of ten stay unchanged.
"""

from collections.abc import Callable

import cv2
import numpy as np

Change = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]

UNCHANGED = 0.3
"""Share of the clips that stay unchanged."""


def augmented(clips: np.ndarray, seed: tuple[int, ...]) -> np.ndarray:
    """Return clips as another camera in other surroundings would show them.

    Args:
        clips: (B, frames, side, side, 3) uint8.
        seed: seed of all draws: a run's and a step's.

    Returns:
        A new array of the same shape and type.
    """
    rng = np.random.default_rng(seed)
    out = clips.copy()
    for number in range(len(clips)):
        if rng.random() < UNCHANGED:
            continue
        for change, probability in CHANGES:
            if rng.random() < probability:
                other = clips[rng.integers(len(clips)), -1]
                out[number] = change(out[number], other, rng)
    return out


def turn(clip: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shift by up to 5 % of the side, rotate by up to 5 degrees, scale by up to 6 %; new pixels repeat the edge."""
    side = clip.shape[1]
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-5, 5), rng.uniform(0.94, 1.06))
    matrix[:, 2] += rng.uniform(-0.05, 0.05, 2) * side
    return np.stack([cv2.warpAffine(frame, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE) for frame in clip])


def recolour(clip: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mix the colours, change contrast and brightness."""
    mix = (np.eye(3) + 0.2 * rng.standard_normal((3, 3))) * rng.uniform(0.6, 1.5)
    offset = np.full((3, 1), 255 * rng.uniform(-0.2, 0.2))
    return cv2.transform(_sheet(clip), np.hstack((mix, offset))).reshape(clip.shape)


def filter_at_random(clip: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blend each colour with a random filter of it (after Xu et al., Random Convolutions, 2021)."""
    kernels = rng.standard_normal((3, 3, 3)) / 3
    mix, share = rng.standard_normal((3, 3)), rng.uniform(0.2, 0.7)
    out = np.empty_like(clip)
    for frame, changed in zip(clip, out, strict=True):
        planes = [
            cv2.filter2D(frame[..., i], cv2.CV_32F, kernels[i], borderType=cv2.BORDER_REPLICATE) for i in range(3)
        ]
        filtered = cv2.transform(cv2.merge(planes), mix)
        cv2.addWeighted(filtered, share, frame.astype(np.float32), 1 - share, 0, dst=filtered)
        changed[:] = np.clip(filtered, 0, 255)
    return out


def overlay(clip: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blend a frame of another clip in, as a faint reflection with a share of up to 0.25."""
    share = rng.uniform(0, 0.25)
    other = cv2.flip(other, int(rng.integers(-1, 2)))
    return np.stack([cv2.addWeighted(frame, 1 - share, other, share, 0) for frame in clip])


def cover(clip: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cover the picture with one to three patches of one colour each, of up to a fifth of the side."""
    clip, side = clip.copy(), clip.shape[1]
    for _ in range(rng.integers(1, 4)):
        height, width = rng.integers(1, 1 + side // 5, 2)
        top, left = rng.integers(0, side, 2)
        clip[:, top : top + height, left : left + width] = rng.integers(0, 256, 3)
    return clip


def blur(clip: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur by a Gaussian of 0.3 to 1.6 pixels at 64 pixels a side; for half of the clips, less along one axis."""
    sigma = rng.uniform(0.3, 1.6) * clip.shape[1] / 64
    across = sigma * rng.choice((1.0, rng.uniform(0.2, 1)))
    across, sigma = rng.permutation((across, sigma))
    return np.stack([cv2.GaussianBlur(frame, (0, 0), sigma, sigmaY=across) for frame in clip])


def expose(clip: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change the light by up to 1.3 stops, and the gamma to 0.65 to 1.5."""
    levels = (np.arange(256) / 255) ** np.exp(rng.uniform(-0.43, 0.43)) * 2 ** rng.uniform(-1.3, 1.3)
    return cv2.LUT(_sheet(clip), (255 * np.clip(levels, 0, 1)).astype(np.uint8)).reshape(clip.shape)


def add_noise(clip: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add noise of the sensor, new in each frame, with a spread of up to 25 levels."""
    cv2.setRNGSeed(int(rng.integers(2**31)))
    noise = np.empty(_sheet(clip).shape, np.int16)
    cv2.randn(noise, np.zeros(1), np.array([rng.uniform(0, 25)]))
    return cv2.add(_sheet(clip), noise, dtype=cv2.CV_8U).reshape(clip.shape)


def compress(clip: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Compress as JPEG of quality 12 to 70."""
    quality = (cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(12, 71)))
    coded = [cv2.imencode(".jpg", frame, quality)[1] for frame in clip]
    return np.stack([np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)) for data in coded])


CHANGES: tuple[tuple[Change, float], ...] = (
    (turn, 0.4),
    (recolour, 0.5),
    (filter_at_random, 0.15),
    (overlay, 0.15),
    (cover, 0.25),
    (blur, 0.25),
    (expose, 0.3),
    (add_noise, 0.3),
    (compress, 0.1),
)


def _sheet(clip: np.ndarray) -> np.ndarray:
    """Return the clip's frames below each other, as one picture."""
    return clip.reshape(-1, *clip.shape[2:])
