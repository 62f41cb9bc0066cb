"""Pictures behind the arm, from a folder or drawn. A drawn picture depends on its number alone.

Functions import cv2 themselves, because its import takes long and most runs show no such picture.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from vjepa_interfaces.errors import VjepaError

SIDE = 256
"""Side of a picture, pixels."""
MOST_FRAMES = 100
"""The largest number of frames that are read from a video."""
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
VIDEOS = (".mp4", ".avi", ".mkv", ".mov", ".webm")

_STREAM = 6


class Pictures:
    """Videos by number, each a list of (SIDE, SIDE, 3) uint8 pictures.

    The videos of a folder are its entries, sorted by name. An entry is a folder of pictures, as in DAVIS, a video file
    or a single picture.
    """

    def __init__(self, folder: str = ""):
        """List the videos of `folder`. If it is empty, videos are drawn.

        Raises:
            VjepaError: the folder contains no pictures and no videos.
        """
        self._entries: list[Path] = []
        if folder:
            self._entries = [
                path
                for path in sorted(Path(folder).expanduser().glob("*"))
                if path.is_dir() or path.suffix.lower() in (*PICTURES, *VIDEOS)
            ]
            if not self._entries:
                raise VjepaError(
                    f"{folder} has no backgrounds; expected a folder with pictures ({', '.join(PICTURES)}), videos "
                    f"({', '.join(VIDEOS)}) or folders of pictures"
                )

    def video(self, number: int) -> Sequence[np.ndarray]:
        """Return the video `number`, modulo the number of the folder's videos."""
        return _read(self._entries[number % len(self._entries)]) if self._entries else drawn_video(number)


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURES


@lru_cache(maxsize=16)
def _read(path: Path) -> Sequence[np.ndarray]:
    import cv2

    frames: list[np.ndarray] = []
    if path.suffix.lower() in VIDEOS:
        capture = cv2.VideoCapture(str(path))
        while len(frames) < MOST_FRAMES and (got := capture.read())[0]:
            frames.append(cv2.cvtColor(got[1], cv2.COLOR_BGR2RGB))
        capture.release()
    else:
        pictures = [each for each in sorted(path.iterdir()) if _is_picture(each)] if path.is_dir() else [path]
        for picture in pictures[:MOST_FRAMES]:
            frame = cv2.imread(str(picture), cv2.IMREAD_COLOR_RGB)
            if frame is None:
                raise VjepaError(f"{picture} cannot be read; expected a picture for a background")
            frames.append(frame)
    if not frames:
        raise VjepaError(f"{path} has no frame that can be read; expected pictures or a video for a background")
    return [cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for frame in frames]


class DrawnVideo(Sequence[np.ndarray]):
    """A window that wanders over a picture."""

    def __init__(self, canvas: np.ndarray, offset: np.ndarray, velocity: np.ndarray):
        """Set up the window.

        Args:
            canvas: the picture, (SIDE, SIDE, 3) uint8.
            offset: the window's first position, (2,) pixels.
            velocity: the window's move in each step, (2,) pixels.
        """
        self._canvas, self._offset, self._velocity = canvas, offset, velocity

    def __len__(self) -> int:
        return MOST_FRAMES

    def __getitem__(self, index: Any) -> Any:
        return np.roll(self._canvas, tuple(np.round(self._offset + index * self._velocity).astype(int)), (0, 1))


@lru_cache(maxsize=64)
def drawn_video(number: int) -> DrawnVideo:
    """Draw a video: a window wanders over layers of clouds, stripes, tiles and shapes in random colours."""
    rng = np.random.default_rng((number, _STREAM))
    canvas = _clouds(rng)
    for _ in range(rng.integers(0, 3)):
        layer = (_clouds, _stripes, _cells, _shapes)[rng.integers(4)](rng)
        mask = _clouds(rng)[..., :1] > rng.uniform(0.2, 0.8) if rng.random() < 0.5 else rng.uniform(0.3, 1)
        canvas = canvas * (1 - mask) + layer * mask
    velocity = rng.uniform(-3, 3, 2)
    return DrawnVideo((255 * np.clip(canvas, 0, 1)).astype(np.uint8), rng.integers(0, SIDE, 2), velocity)


def _colours(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.uniform(0, 1, (count, 3)).astype(np.float32)


def _clouds(rng: np.random.Generator) -> np.ndarray:
    """Draw smooth noise of several sizes, in mixtures of three colours."""
    import cv2

    total = np.zeros((SIDE, SIDE), np.float32)
    for octave in range(int(rng.integers(2, 7))):
        coarse = rng.standard_normal((2 ** (octave + 1),) * 2).astype(np.float32)
        total += cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) * rng.uniform(0.4, 0.8) ** octave
    share = (total - total.min()) / max(float(np.ptp(total)), 1e-6)
    colours = _colours(rng, 3)
    return np.stack([np.interp(share, (0, 0.5, 1), colours[:, i]) for i in range(3)], -1).astype(np.float32)


def _stripes(rng: np.random.Generator) -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    angle, width = rng.uniform(0, np.pi), rng.uniform(4, 60)
    place = (rows * np.sin(angle) + columns * np.cos(angle)) / width
    colours = _colours(rng, 2)
    if rng.random() < 0.5:
        other = (rows * np.cos(angle) - columns * np.sin(angle)) / width
        return colours[(np.floor(place) + np.floor(other)).astype(int) % 2]
    return colours[np.floor(place).astype(int) % 2]


def _cells(rng: np.random.Generator) -> np.ndarray:
    """Draw random seeds, and each point in the colour of its nearest seed."""
    count = int(rng.integers(4, 40))
    seeds = rng.uniform(0, SIDE, (count, 2)).astype(np.float32)
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    nearest = np.argmin([(rows - y) ** 2 + (columns - x) ** 2 for y, x in seeds], axis=0)
    return _colours(rng, count)[nearest]


def _shapes(rng: np.random.Generator) -> np.ndarray:
    import cv2

    canvas = np.broadcast_to(_colours(rng, 1)[0], (SIDE, SIDE, 3)).copy()
    for colour in _colours(rng, int(rng.integers(2, 20))).tolist():
        centre = rng.integers(0, SIDE, 2).tolist()
        kind = rng.integers(3)
        if kind == 0:
            cv2.circle(canvas, centre, int(rng.integers(4, 50)), colour, -1, cv2.LINE_AA)
        elif kind == 1:
            cv2.line(canvas, centre, rng.integers(0, SIDE, 2).tolist(), colour, int(rng.integers(2, 20)), cv2.LINE_AA)
        else:
            corners = (np.array(centre) + rng.integers(-50, 50, (int(rng.integers(3, 6)), 2))).astype(np.int32)
            cv2.fillPoly(canvas, [corners], colour, cv2.LINE_AA)
    return canvas
