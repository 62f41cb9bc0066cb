"""The start of a stack as text: the task of each node until it is ready, and the time that it took."""

import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from vjepa_bringup.graph import NodeSpec
from vjepa_bringup.monitor import Diagnostics

READY = ("inactive", "active")
"""Lifecycle states of a node that has loaded everything."""


def _others(parameters: dict[str, Any]) -> str:
    """Return the number of planners that are loaded beside the driving one, as text."""
    others = {*parameters.get("planners", ()), *parameters.get("fallbacks", ())} - {parameters["planner"]}
    return f" and {len(others)} more" if others else ""


_WORDS: dict[str, Callable[[dict[str, Any]], str]] = {
    "sim_bridge": lambda parameters: f"starting simulation {parameters['task']}",
    "camera": lambda parameters: "opening camera",
    "vjepa_perception": lambda parameters: f"loading {Path(parameters['encoder']).name or 'encoder'}",
    "vjepa_planner": lambda parameters: f"loading planner {parameters['planner']}{_others(parameters)}",
    "episode_recorder": lambda parameters: "starting recorder",
}


class StartUp:
    """The stages of a start, one for each lifecycle node; they run at the same time."""

    def __init__(self, nodes: Iterable[NodeSpec]):
        """Prepare the stages.

        Args:
            nodes: nodes of the graph that starts.
        """
        self._words = {
            node.name: _WORDS[node.name](node.parameters) if node.name in _WORDS else f"starting {node.name}"
            for node in nodes
            if node.lifecycle
        }
        self._ready_s: dict[str, float] = {}

    def update(self, diagnostics: Diagnostics, elapsed_s: float) -> list[str]:
        """Read the latest diagnostics and return a line for each stage that has ended since the last call."""
        states = diagnostics.get("stack_manager", (b"", "", {}))[2]
        ready = [name for name in self._words if name not in self._ready_s and states.get(name) in READY]
        self._ready_s |= dict.fromkeys(ready, elapsed_s)
        return [self._line(name, elapsed_s) for name in ready]

    def lines(self, elapsed_s: float, width: int) -> list[str]:
        """Return a line for each stage and, after all have ended, for the first frame; of at most `width` columns."""
        lines = [self._line(name, elapsed_s) for name in self._words]
        if len(self._ready_s) == len(self._words):
            lines.append(f"waiting for the first frame … {elapsed_s - max(self._ready_s.values()):.1f} s")
        return [part for line in lines for part in textwrap.wrap(line, width, subsequent_indent="  ")]

    def _line(self, name: str, elapsed_s: float) -> str:
        ready = ", ready" if name in self._ready_s else ""
        return f"{self._words[name]} … {self._ready_s.get(name, elapsed_s):.1f} s{ready}"
