"""What `vjepa run` shows on a terminal while the arm moves: a few lines, drawn in place of those before."""

import math
import shutil
import sys
from collections import deque
from collections.abc import Sequence

from vjepa_bringup.monitor import Diagnostics, number_in
from vjepa_interfaces.managed_node import OK
from vjepa_training.catalogue import is_about_reaching
from vjepa_training.score import ScoreKeeper

BAR_WIDTH = 24
TREND_WIDTH = 48
LEVELS = "▁▂▃▄▅▆▇█"


class Dashboard:
    """The lines of a run that goes on. It keeps the fingertip's last distances, one an update, for a small curve."""

    def __init__(self, wanted: int, episode_steps: int):
        """Begin.

        Args:
            wanted: episodes in all.
            episode_steps: control steps of each.
        """
        self._wanted, self._episode_steps = wanted, episode_steps
        self._distances: deque[float] = deque(maxlen=TREND_WIDTH)
        self._episode = 0

    def lines(self, keeper: ScoreKeeper, driver: str, nodes: Diagnostics, elapsed_s: float) -> list[str]:
        """Return what there is to say now.

        Args:
            keeper: of the scores.
            driver: the planner that drives; empty where none does yet.
            nodes: their latest diagnostics.
            elapsed_s: since the command began, s.
        """
        trouble = [f"  {name}: {message}" for name, (level, message, _) in sorted(nodes.items()) if level != OK]
        if not keeper.episodes:
            return [f"starting  {elapsed_s:.0f} s", *trouble]
        episodes, now = keeper.episodes, keeper.episodes[-1]
        if len(episodes) != self._episode:
            self._episode = len(episodes)
            self._distances.clear()
        self._distances.append(keeper.distance_m)
        returns = [episode.episode_return for episode in episodes if episode.done]
        mean = f"   mean {sum(returns) / len(returns):.1f}" if returns else ""
        share = now.steps / self._episode_steps
        lines = [
            f"episode {len(episodes)} of {self._wanted}  {bar(share)}  step {now.steps} of {self._episode_steps}   "
            f"return {now.episode_return:.0f}{mean}   {elapsed_s:.0f} s",
        ]
        if is_about_reaching(keeper.task):
            lines.append(f"fingertip {100 * keeper.distance_m:5.1f} cm from the target  {curve(self._distances)}")

        def value(node: str, key: str, digits: int = 0, unit: str = "") -> str:
            found = number_in(nodes, node, key)
            return f"{found:.{digits}f}{unit}" if math.isfinite(found) else "?"

        lines.append(
            f"{driver or 'nobody'} drives   {value('sim_bridge', 'achieved_rate_hz', 1, ' Hz')}   "
            f"frame to torque p50 {value('sim_bridge', 'latency_p50_ms', 1)}, "
            f"p99 {value('sim_bridge', 'latency_p99_ms', 1, ' ms')}   "
            f"encoder {value('vjepa_perception', 'encode_p50_ms', 1, ' ms')}   "
            f"plan {value('vjepa_planner', 'plan_p50_ms', 1, ' ms')}   "
            f"steps without a newer command {value('sim_bridge', 'stale_steps')}"
        )
        return [*lines, *trouble]


def bar(share: float) -> str:
    """Return a bar filled to a share, 0 to 1."""
    filled = round(BAR_WIDTH * min(1.0, max(0.0, share)))
    return "█" * filled + "░" * (BAR_WIDTH - filled)


def curve(values: Sequence[float]) -> str:
    """Return values as a curve of one line, from 0 to the largest of them."""
    highest = max(values, default=0.0)
    if not highest > 0:
        return LEVELS[0] * len(values)
    return "".join(LEVELS[round(value / highest * (len(LEVELS) - 1))] for value in values)


class Screen:
    """Draws lines on a terminal in place of those before, and nothing elsewhere."""

    def __init__(self) -> None:
        self._drawn = 0

    def show(self, *lines: str) -> None:
        """Draw these lines, each cut to the terminal's width; none to wipe out what is there."""
        if not sys.stdout.isatty():
            return
        width = shutil.get_terminal_size().columns - 1
        back = f"\x1b[{self._drawn}F" if self._drawn else "\r"
        body = "".join(f"{line[:width]}\x1b[K\n" for line in lines)
        sys.stdout.write(f"{back}{body}\x1b[J")
        sys.stdout.flush()
        self._drawn = len(lines)
