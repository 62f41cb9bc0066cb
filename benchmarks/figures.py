"""A measured figure beside its aim, the record that holds it, and the arithmetic both need."""

import datetime
import os
import platform
import shlex
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vjepa_bringup.graph import versions
from vjepa_cli.result_files import write_result
from vjepa_interfaces.json_text import read_json
from vjepa_training.evaluation.bootstrap import bootstrap_interval

FILE_PREFIX = "benchmark-"


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    Attributes:
        what: what it is, in words.
        value: the measured value.
        unit: its unit; empty for a plain number, `%` for a share (0 to 1), `exponent` for the b of a growth x^b.
        sample: what it was measured on.
        aim: the bound it is held against.
        at_least: whether the aim is a lower bound; otherwise it is an upper one.
        interval_95: 95 % interval, where there is a sample to take one of.
        interval_of: how the interval was taken.
    """

    what: str
    value: float
    unit: str
    sample: str
    aim: float
    at_least: bool = False
    interval_95: tuple[float, float] | None = None
    interval_of: str = ""

    @property
    def met(self) -> bool:
        """Whether the value itself, not its interval, meets the aim; never where it is NaN."""
        return self.value >= self.aim if self.at_least else self.value <= self.aim


def record(name: str, figures: Sequence[Figure], command: str, seeds: Sequence[int], **more: Any) -> dict[str, Any]:
    """Return what is written of the benchmark `name`: figures, and all that a repetition needs.

    Args:
        name: of the benchmark.
        figures: what it measured.
        command: the command that measures it again.
        seeds: those used.
        more: further values, such as the figures of every run.
    """
    return {
        "benchmark": name,
        "figures": [{**asdict(figure), "met": figure.met} for figure in figures],
        "command": command,
        "seeds": list(seeds),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        **more,
    }


def write_record(folder: Path, content: dict[str, Any]) -> Path:
    """Write a record into `folder` and return its file."""
    path = folder / f"{FILE_PREFIX}{content['benchmark']}.json"
    write_result(str(path), content)
    return path


def read_records(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the records in `folder` by the name of their benchmark."""
    records = (read_json(path) for path in sorted(folder.glob(f"{FILE_PREFIX}*.json")))
    return {content["benchmark"]: content for content in records}


def machine() -> dict[str, Any]:
    """Return what the figures depend on: processor, cores there are and cores this process may use, memory."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "cores_used": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def command_of(name: str, **options: Any) -> str:
    """Return the command line that measures the benchmark `name` with `options`, typed in the root of the checkout."""
    words = ["--only", name, "--cores", str(len(os.sched_getaffinity(0)))]
    for option, value in options.items():
        words += [f"--{option.replace('_', '-')}", str(value)]
    return shlex.join(["./vjepa", "--exec", "python", "-m", "benchmarks.run", *words])


def mean_with_interval(values: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Return the mean of `values` and its 95 % percentile-bootstrap interval."""
    return statistics.fmean(values), bootstrap_interval(values)
