"""The lines that `vjepa run` shows on a terminal while the arm moves, fitted to its width."""

import math
import textwrap
from collections import deque
from collections.abc import Sequence

from sim_bridge.score import RunScores
from vjepa_bringup.monitor import Diagnostics, number_in
from vjepa_cli.start_up import StartUp
from vjepa_interfaces.managed_node import ERROR, OK
from vjepa_training.fields import GAP, Field, bar, fitted

TREND_WIDTH = 48
LEVELS = "▁▂▃▄▅▆▇█"


class Dashboard:
    """The lines that describe a run. It keeps the fingertip's last distances, one for each update, for a curve."""

    def __init__(self, wanted: int, episode_steps: int, start_up: StartUp):
        """Prepare the lines of a run.

        Args:
            wanted: number of episodes; 0 if the run goes on until it is ended.
            episode_steps: control steps of an episode.
            start_up: the stages before the first step.
        """
        self._start_up = start_up
        self._wanted, self._episode_steps = wanted, episode_steps
        self._distances: deque[float] = deque(maxlen=TREND_WIDTH)
        self._episode = self._noted = 0
        self._rate_noted = False

    def lines(self, scores: RunScores, driver: str, nodes: Diagnostics, elapsed_s: float, width: int = 80) -> list[str]:
        """Return the lines that describe the run now.

        Args:
            scores: scores of the episodes.
            driver: the planner that drives; empty if none drives yet.
            nodes: latest diagnostics by node.
            elapsed_s: time since the command began, s.
            width: columns of a line. Fields that do not fit are left out; a message continues in the line below.
        """
        episodes = scores.episodes
        if not episodes:
            # The stages already show why the stack manager warns that not every node is active.
            others = {name: node for name, node in nodes.items() if name != "stack_manager" or node[0] == ERROR}
            return [*self._start_up.lines(elapsed_s, width), *troubles(others, width)]
        if scores.begun != self._episode:
            self._episode = scores.begun
            self._distances.clear()
        self._distances.append(scores.distance_m)
        lines = [fitted(self._progress(scores, elapsed_s), width)]
        if episodes[-1].started_in_target is not None:
            away = f"fingertip {100 * scores.distance_m:5.1f} cm from the target"
            room = max(0, width - len(away) - len(GAP))
            lines.append(GAP.join(filter(None, (away, curve(list(self._distances)[-room:] if room else ())))))
        return [*lines, fitted(_loop(driver, nodes), width), *troubles(nodes, width)]

    def _progress(self, scores: RunScores, elapsed_s: float) -> list[Field]:
        """Return the progress of the run, as fields."""
        now, returns = scores.episodes[-1], [episode.episode_return for episode in scores.finished]
        return [
            Field(f"episode {self._numbered(scores.begun)}"),
            Field(bar(now.steps / self._episode_steps), rank=4),
            Field(f"step {now.steps} of {self._episode_steps}", rank=1),
            Field(f"return {now.episode_return:.0f}", rank=2),
            *([Field(f"mean {sum(returns) / len(returns):.1f}", rank=2)] if returns else []),
            Field(f"{elapsed_s:.0f} s", rank=3),
        ]

    def ended(self, scores: RunScores, nodes: Diagnostics, elapsed_s: float) -> list[str]:
        """Return a line for each stage of the start and each episode that has ended since the last call.

        The first time that the loop does not hold its rate, there is a line about that too.
        """
        stages = self._start_up.update(nodes, elapsed_s)
        episodes = list(enumerate(scores.finished, 1))[self._noted :]
        self._noted += len(episodes)
        return [
            *stages,
            *self._rate_trouble(nodes),
            *(
                f"episode {self._numbered(number)}: return {episode.episode_return:.1f}, after {elapsed_s:.1f} s"
                for number, episode in episodes
            ),
        ]

    def _rate_trouble(self, nodes: Diagnostics) -> list[str]:
        """Return the simulation's line about a rate that it does not hold, once."""
        if self._rate_noted or not math.isfinite(number_in(nodes, "sim_bridge", "attainable_rate_hz")):
            return []
        self._rate_noted = True
        return [f"sim_bridge: {nodes['sim_bridge'][1]}"]

    def _numbered(self, episode: int) -> str:
        return f"{episode} of {self._wanted}" if self._wanted else str(episode)


def troubles(nodes: Diagnostics, width: int) -> list[str]:
    """Return the warnings and errors of nodes, wrapped to `width` columns."""
    warnings = [f"  {name}: {message}" for name, (level, message, _) in sorted(nodes.items()) if level != OK]
    return [line for warning in warnings for line in wrapped(warning, width)]


def driver_field(driver: str, nodes: Diagnostics) -> Field:
    """Return the planner that drives and, if it is a fallback, the chosen planner."""
    chosen = nodes.get("vjepa_planner", (OK, "", {}))[2].get("planner", driver)
    instead = f" for {chosen}" if driver and chosen != driver else ""
    return Field(f"{driver or 'nobody'} drives{instead}")


def _loop(driver: str, nodes: Diagnostics) -> list[Field]:
    """Return the driver and the figures of the loop as fields; figures that no node has published yet are left out."""
    found = [driver_field(driver, nodes)]
    for rank, (node, key, form) in enumerate(_FIGURES, 1):
        if math.isfinite(value := number_in(nodes, node, key)):
            more = number_in(nodes, node, key.replace("p50", "p99"))
            found.append(Field(form.format(value, more), rank))
    return found


_FIGURES = (
    ("sim_bridge", "achieved_rate_hz", "{:.1f} Hz"),
    ("sim_bridge", "latency_p50_ms", "frame to torque p50 {:.1f}, p99 {:.1f} ms"),
    ("sim_bridge", "stale_steps", "steps without a newer command {:.0f}"),
    ("vjepa_perception", "encode_p50_ms", "encoder {:.1f} ms"),
    ("vjepa_planner", "plan_p50_ms", "plan {:.1f} ms"),
)
"""Figures of the loop, the most important first: node, key in its diagnostics, and format."""


def wrapped(text: str, width: int) -> list[str]:
    """Return a text in lines of at most `width` columns, broken between words."""
    indent = " " * (len(text) - len(text.lstrip()))
    return textwrap.wrap(text, max(width, 20), subsequent_indent=f"{indent}  ") or [""]


def curve(values: Sequence[float]) -> str:
    """Return values as a curve of one line, from 0 to the largest value."""
    highest = max(values, default=0.0)
    if not highest > 0:
        return LEVELS[0] * len(values)
    return "".join(LEVELS[round(value / highest * (len(LEVELS) - 1))] for value in values)
