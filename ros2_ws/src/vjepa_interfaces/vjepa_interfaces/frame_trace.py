"""A trace of frames on their way through the nodes: steady times by stamp, as spans and in Chrome's trace format.

Each node publishes the times at which a frame passed its marks. All processes are on one machine, so their steady
clocks are the same clock. A span lasts from one mark to the next, so the spans of a frame add up.
"""

import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from vjepa_interfaces.files import write_atomically
from vjepa_interfaces.json_text import parse_json

SIM, PERCEPTION, PLANNER = "sim_bridge", "vjepa_perception", "vjepa_planner"

BEGIN = (SIM, "begun")
"""The mark at which a frame's way begins: before the simulation's step."""

SPANS = (
    ("simulation step", SIM, "rendered"),
    ("publish frame", SIM, "sent"),
    ("receive frame", PERCEPTION, "arrived"),
    ("preprocess", PERCEPTION, "preprocessed"),
    ("wait for encoder", PERCEPTION, "taken"),
    ("encode", PERCEPTION, "encoded"),
    ("publish latent", PERCEPTION, "sent"),
    ("receive latent", PLANNER, "arrived"),
    ("join", PLANNER, "joined"),
    ("plan", PLANNER, "planned"),
    ("publish command", PLANNER, "sent"),
    ("receive command", SIM, "answered"),
)
"""The spans of a frame in order: name, node, and the node's mark at the end of the span."""


class Span(NamedTuple):
    """A part of a frame's way, from `begin_s` to `end_s` of the steady clock; `number` is its place in `SPANS`."""

    number: int
    begin_s: float
    end_s: float


def trace_text(node: str, stamp_ns: int, times: dict[str, float]) -> str:
    """Return the text of a message on `trace`: the steady times in seconds by mark of a frame in one node."""
    return json.dumps({"node": node, "stamp": stamp_ns, "times": times})


class FrameTrace:
    """The frames of a run and their times, from the messages on `trace`."""

    def __init__(self) -> None:
        self._times: defaultdict[int, dict[tuple[str, str], float]] = defaultdict(dict)

    def read(self, text: str) -> None:
        """Read a message. A mark that a frame has passed already keeps its time.

        Raises:
            ValueError: the text is not that of such a message.
        """
        found = parse_json(text)
        try:
            node, stamp_ns = str(found["node"]), int(found["stamp"])
            times = {(node, str(mark)): float(time_s) for mark, time_s in found["times"].items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"it is no trace of a frame: {error!r}") from error
        self._times[stamp_ns] = times | self._times[stamp_ns]

    def frames(self) -> dict[int, list[Span]]:
        """Return the spans of each frame, in order, by stamp. A span is left out if one of its marks is missing."""
        return {stamp_ns: list(_spans(times)) for stamp_ns, times in sorted(self._times.items())}

    def complete_frames(self) -> dict[int, list[Span]]:
        """Return the spans of the frames that have all of them, by stamp."""
        return {stamp_ns: spans for stamp_ns, spans in self.frames().items() if len(spans) == len(SPANS)}

    def write(self, path: Path | str) -> None:
        """Write all spans to the file `path` in Chrome's trace format, with a row for each span of each node."""
        nodes = (SIM, PERCEPTION, PLANNER)
        events: list[dict[str, Any]] = [
            {"ph": "M", "name": "process_name", "pid": pid, "args": {"name": node}} for pid, node in enumerate(nodes)
        ]
        for number, (name, node, _) in enumerate(SPANS):
            row = {"pid": nodes.index(node), "tid": number}
            events.append({"ph": "M", "name": "thread_name", **row, "args": {"name": name}})
            events.append({"ph": "M", "name": "thread_sort_index", **row, "args": {"sort_index": number}})
        for stamp_ns, spans in self.frames().items():
            for number, begin_s, end_s in spans:
                name, node, _ = SPANS[number]
                times = {"ts": 1e6 * begin_s, "dur": 1e6 * (end_s - begin_s)}
                row = {"pid": nodes.index(node), "tid": number}
                events.append({"ph": "X", "name": name, **row, **times, "args": {"stamp": stamp_ns}})
        write_atomically(path, json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}) + "\n")


def _spans(times: dict[tuple[str, str], float]) -> list[Span]:
    """Return the spans whose two marks are in `times`, in order."""
    marks = [BEGIN, *((node, mark) for _, node, mark in SPANS)]
    pairs = enumerate(pairwise(marks))
    return [Span(i, times[begin], times[end]) for i, (begin, end) in pairs if begin in times and end in times]
