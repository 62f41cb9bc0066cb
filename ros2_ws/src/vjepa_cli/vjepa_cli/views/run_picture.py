"""A picture of a recorded run: the camera's frames, and below them distance, reward and torque over time."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vjepa_interfaces import topics
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.image_codec import image_to_rgb
from vjepa_interfaces.messages import FIRST, timestep_of
from vjepa_interfaces.stamps import EPISODE_GAP_NS, to_nanoseconds

DRAWN = (
    topics.IMAGE,
    topics.TIMESTEP,
    topics.TARGET,
    topics.FINGERTIP,
    topics.JOINT_COMMAND,
    topics.ACTIVE_PLANNER,
)
FRAMES = 8
"""Frames of the camera in the picture."""
MOST_FRAMES = 8 * FRAMES
"""Frames that are kept while a bag is read; of a longer bag every second one, then every fourth, and so on."""
DPI = 120


@dataclass
class Run:
    """The contents of a picture, by stamp in nanoseconds.

    Attributes:
        frames: (stamp, picture), evenly spread over the run.
        rewards: rewards of the steps.
        points: positions of target and fingertip by topic, (3,) metres.
        efforts: (stamp, N·m) by joint.
        begins: stamps at which an episode began.
        drivers: (stamp, name of the planner that drove from there on).
    """

    frames: list[tuple[int, np.ndarray]] = field(default_factory=list)
    rewards: dict[int, float] = field(default_factory=dict)
    points: dict[topics.Topic, dict[int, np.ndarray]] = field(default_factory=lambda: defaultdict(dict))
    efforts: dict[str, list[tuple[int, float]]] = field(default_factory=lambda: defaultdict(list))
    begins: list[int] = field(default_factory=list)
    drivers: list[tuple[int, str]] = field(default_factory=list)


def draw_run(messages: Iterable[tuple[topics.Topic, Any]], path: str) -> None:
    """Write the picture of a run.

    Args:
        messages: pairs of a topic in `DRAWN` and a message, in the order of arrival.
        path: the file; its suffix selects the format, such as `.png`.

    Raises:
        VjepaError: the run has no frame of the camera.
    """
    run = _read(messages)
    if not run.frames:
        raise VjepaError(f"no frame of the camera, on the topic {topics.IMAGE.name}, to draw")
    figure = _figure(run)
    figure.savefig(path, dpi=DPI)


def _read(messages: Iterable[tuple[topics.Topic, Any]]) -> Run:
    """Return the contents of the messages. A message without a stamp gets the newest stamp before it."""
    run = Run()
    count, stride, newest_ns = 0, 1, 0
    for topic, message in messages:
        if topic == topics.ACTIVE_PLANNER:
            run.drivers.append((newest_ns, message.data))
            continue
        stamp_ns = to_nanoseconds(message.header.stamp)
        if topic == topics.JOINT_COMMAND:
            if stamp_ns:  # The last zeros of a planner that is taken down have no stamp.
                for name, effort in zip(message.name, message.effort, strict=False):
                    run.efforts[name].append((stamp_ns, effort))
            continue
        newest_ns = max(newest_ns, stamp_ns)
        if topic == topics.IMAGE:
            if count % stride == 0:
                run.frames.append((stamp_ns, image_to_rgb(message)))
            count += 1
            if len(run.frames) > MOST_FRAMES:
                run.frames, stride = run.frames[::2], 2 * stride
        elif topic == topics.TIMESTEP:
            timestep = timestep_of(message)
            run.rewards[stamp_ns] = timestep.reward
            if timestep.step_type == FIRST:
                run.begins.append(stamp_ns)
        else:
            run.points[topic][stamp_ns] = np.array([message.point.x, message.point.y, message.point.z])
    return run


def _figure(run: Run) -> Any:
    """Return the figure: frames above, a plot below for each quantity that the run has."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    begin_ns = run.frames[0][0]
    plots = [(name, lines) for name, lines in _plots(run).items() if lines]
    figure = Figure(figsize=(10, 2.0 + 1.4 * len(plots)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(1 + len(plots), FRAMES, height_ratios=[1.2, *[1.0] * len(plots)])
    chosen = np.unique(np.linspace(0, len(run.frames) - 1, FRAMES).round().astype(int))
    for column, number in enumerate(chosen):
        stamp_ns, image = run.frames[number]
        axes = figure.add_subplot(grid[0, column])
        axes.imshow(image)
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"{(stamp_ns - begin_ns) / 1e9:.1f} s", fontsize="small")
    drivers = ", then ".join(dict.fromkeys(name for _, name in run.drivers)) or "unknown"
    figure.suptitle(f"planner: {drivers}")
    shared = None
    for row, (label, lines) in enumerate(plots, 1):
        shared = axes = figure.add_subplot(grid[row, :], sharex=shared)
        for name, points in lines.items():
            stamps, values = _broken(points)
            axes.plot((stamps - begin_ns) / 1e9, values, label=name, linewidth=1)
        for stamp_ns in run.begins:
            axes.axvline((stamp_ns - begin_ns) / 1e9, color="0.8", linewidth=1, zorder=0)
        axes.set_ylabel(label, fontsize="small")
        if len(lines) > 1:
            axes.legend(fontsize="small", loc="upper right")
    if shared is not None:
        shared.set_xlabel("seconds; grey lines: an episode begins")
    return figure


def _broken(points: list[tuple[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Return stamps (n,), ns, and values (n,) of points in order, with a NaN wherever the stamps leap."""
    stamps, values = (np.array(column) for column in zip(*sorted(points), strict=True))
    leaps = 1 + np.flatnonzero(np.diff(stamps) > EPISODE_GAP_NS)
    return np.insert(stamps, leaps, stamps[leaps - 1]), np.insert(values.astype(float), leaps, np.nan)


def _plots(run: Run) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Return the plots by the label of their axis: lines by name, each of (stamp, value)."""
    targets, fingertips = run.points[topics.TARGET], run.points[topics.FINGERTIP]
    both = targets.keys() & fingertips.keys()
    distances = [(ns, 100 * float(np.linalg.norm(targets[ns] - fingertips[ns]))) for ns in both]
    return {
        "to target, cm": {"distance": distances} if distances else {},
        "reward": {"reward": list(run.rewards.items())} if run.rewards else {},
        "torque, N·m": dict(run.efforts),
    }
