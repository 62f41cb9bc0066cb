"""The growth of costs: sweeps over sizes, the exponent fitted to each sweep, and the expected exponent."""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.figures import Figure, mean_with_interval

FLAT, LINEAR = 0.0, 1.0
TOLERANCE = 0.1
"""Of the exponent: a flat cost may then become at most 1.6 times as large at a hundredfold size."""

UNIT = "exponent"


@dataclass(frozen=True)
class Sweep:
    """A cost measured at several sizes.

    Attributes:
        what: description of the cost and of its size; unique among all sweeps.
        panel: panel of the picture; sweeps of one panel share its axes.
        x: description of the sizes, with their unit.
        y: description of the cost, with its unit.
        expected: exponent of the growth: `FLAT`, `LINEAR`, or the exponent of the arithmetic.
        points: cost in each round, above 0, by size.
        gain: whether `y` is not a cost but a gain, which should grow no slower than expected.
        sample: description of the sample.
    """

    what: str
    panel: str
    x: str
    y: str
    expected: float
    points: dict[float, list[float]]
    gain: bool = False
    sample: str = ""

    def content(self) -> dict[str, Any]:
        """Return the sweep with its fit, in the types of JSON."""
        points = [{"x": x, "values": values} for x, values in self.points.items()]
        mean, interval = self.exponent()
        return {**asdict(self), "points": points, "exponent": mean, "interval_95": interval}

    def exponent(self) -> tuple[float, tuple[float, float] | None]:
        """Return the mean of the rounds' exponents and, for several rounds, its 95 % bootstrap interval."""
        rounds = zip(*self.points.values(), strict=True)
        found = [exponent(list(self.points), costs) for costs in rounds]
        mean, interval = mean_with_interval(found)
        return mean, interval if len(found) > 1 else None

    def figure(self) -> Figure:
        """Return the exponent with the expected one as its aim."""
        value, interval = self.exponent()
        sizes = list(self.points)
        rounds = len(next(iter(self.points.values())))
        sample = f"{self.x}: {', '.join(f'{size:g}' for size in sizes)}" if len(sizes) < 8 else self.x
        return Figure(
            f"growth of {self.what}",
            value,
            UNIT,
            f"{self.sample + '; ' if self.sample else ''}{sample}; {rounds} rounds",
            round(self.expected - TOLERANCE if self.gain else self.expected + TOLERANCE, 3),
            at_least=self.gain,
            interval_95=interval,
            interval_of="bootstrap over rounds" if interval else "",
        )


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Return b of the least-squares fit `cost = a size^b` in logarithms: 0 is flat, 1 linear, 2 quadratic."""
    slope, _ = np.polyfit(np.log(sizes), np.log(costs), 1)
    return float(slope)


def peak_tensors_mib(call: Callable[[], object]) -> float:
    """Return the largest memory, MiB, that torch had allocated during `call`, beyond the memory before it."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    with tempfile.TemporaryDirectory(prefix="vjepa-bench-") as folder:
        path = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    changes = [event["args"]["Bytes"] for event in events if event["name"] == "[memory]"]
    return float(np.cumsum(changes).max()) / 2**20
