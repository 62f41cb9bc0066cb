"""A short animation of a run: the camera's frames, the planner that drives, and the latent."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from vjepa_cli.views.latent_picture import Projection, latent_picture
from vjepa_interfaces import topics
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.image_codec import image_to_rgb
from vjepa_interfaces.messages import latent_of
from vjepa_interfaces.rows import Rows
from vjepa_interfaces.stamps import begins_episode, to_nanoseconds

ANIMATED = (topics.IMAGE, topics.LATENT, topics.ACTIVE_PLANNER)
EVERY = 4
"""Frames for each frame of the animation."""
TRAIL = 12
"""Points of the projection that are visible at once."""
DPI = 100


@dataclass(frozen=True, eq=False)
class Shot:
    """One picture of the animation.

    Attributes:
        stamp_ns: stamp of the frame, nanoseconds.
        driver: the planner that drives.
        image: (height, width, 3) uint8.
        latent: (rows, dimension) grey levels.
        trail: (n, 2) projected mean rows of the latents of recent shots, this one last.
    """

    stamp_ns: int
    driver: str
    image: np.ndarray
    latent: np.ndarray
    trail: np.ndarray


def animate(messages: Iterable[tuple[topics.Topic, Any]], path: str) -> int:
    """Write every fourth frame with a latent as an animation at the speed of the stamps; return their number.

    Args:
        messages: pairs of a topic in `ANIMATED` and a message, in the order of arrival.
        path: the file; its suffix selects the format: `.gif`, or `.png` for an animated PNG.

    Raises:
        VjepaError: too few frames have a latent.
    """
    shots = list(_shots(messages))
    if len(shots) < 2:
        raise VjepaError(f"too few frames with a latent for an animation; it takes {EVERY + 1} at least")
    period_ns = float(np.median(np.diff([shot.stamp_ns for shot in shots])))
    pictures = list(_drawn(shots))
    if path.endswith(".gif"):
        pictures = _with_one_palette(pictures)
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=round(period_ns / 1e6), loop=0)
    return len(shots)


def _drawn(shots: list[Shot]) -> Iterator[Any]:
    """Draw each shot as a PIL image."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure, draw = _figure(shots)
    canvas = FigureCanvasAgg(figure)
    for shot in shots:
        draw(shot)
        canvas.draw()
        yield Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def _with_one_palette(pictures: list[Any]) -> list[Any]:
    """Give all pictures the same 256 colours: parts at rest then cost nothing, and the file is half as large."""
    from PIL import Image

    some = pictures[:: max(1, len(pictures) // 8)]
    sheet = Image.fromarray(np.concatenate([np.asarray(picture) for picture in some]))
    palette = sheet.quantize(256)
    return [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]


def _shots(messages: Iterable[tuple[topics.Topic, Any]]) -> Iterator[Shot]:
    rows = Rows((topics.IMAGE.name, topics.LATENT.name))
    projection = Projection()
    trail: list[np.ndarray] = []
    driver, count, previous_ns = "", 0, None
    for topic, message in messages:
        if topic == topics.ACTIVE_PLANNER:
            driver = message.data
            continue
        for stamp_ns, row in rows.add(to_nanoseconds(message.header.stamp), topic.name, message):
            if begins_episode(previous_ns, stamp_ns):
                trail, count = [], 0
            previous_ns, count = stamp_ns, count + 1
            if count % EVERY == 1:
                latent = latent_of(row[topics.LATENT.name])
                trail = [*trail, projection.point(latent)][-TRAIL:]
                image = image_to_rgb(row[topics.IMAGE.name])
                yield Shot(stamp_ns, driver, image, latent_picture(latent), np.array(trail))


def _figure(shots: list[Shot]) -> Any:
    """Return a figure with room for every shot, and a function that draws one into it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 4.2), dpi=DPI, layout="constrained")
    axes = figure.subplot_mosaic([["camera", "latent"], ["camera", "projection"]], width_ratios=(1.0, 1.1))
    titles = {"camera": "camera", "latent": "latent: rows x dimension", "projection": "its mean row, projected"}
    for name, title in titles.items():
        axes[name].set_title(title, fontsize="small")
        axes[name].set(xticks=[], yticks=[])
    camera = axes["camera"].imshow(shots[0].image, interpolation="nearest")
    latent = axes["latent"].imshow(shots[0].latent, cmap="gray", vmin=0, vmax=255, aspect="auto", interpolation="none")
    points = np.concatenate([shot.trail[-1:] for shot in shots])
    axes["projection"].plot(*points.T, linestyle="none")  # Fixes the limits of the axes.
    (line,) = axes["projection"].plot([], [], color="tab:blue", linewidth=1, alpha=0.5)
    (head,) = axes["projection"].plot([], [], color="tab:blue", marker="o", markersize=4)

    def draw(shot: Shot) -> None:
        axes["camera"].set_title(f"planner {shot.driver}", fontsize="small")
        camera.set_data(shot.image)
        latent.set_data(shot.latent)
        line.set_data(*shot.trail.T)
        head.set_data(*shot.trail[-1:].T)

    return figure, draw
