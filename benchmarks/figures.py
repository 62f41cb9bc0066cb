"""A measured figure with its aim, the record that contains it, and the arithmetic of both."""

import datetime
import os
import platform
import shlex
import statistics
from collections.abc import Mapping, Sequence
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
        what: description in words.
        value: the measured value.
        unit: unit of the value; empty for a plain number, `%` for a share (0 to 1), `exponent` for the b of a growth
            x^b.
        sample: description of the sample.
        aim: bound for the value.
        at_least: whether the aim is a lower bound; otherwise it is an upper one.
        interval_95: 95 % interval, if the sample allows one.
        interval_of: method of the interval.
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
        """Whether the value itself, not its interval, meets the aim; False for NaN."""
        return self.value >= self.aim if self.at_least else self.value <= self.aim


def record(name: str, figures: Sequence[Figure], command: str, seeds: Sequence[int], **more: Any) -> dict[str, Any]:
    """Return the record of the benchmark `name`: figures, and everything that a repetition needs.

    Args:
        name: name of the benchmark.
        figures: measured figures.
        command: the command that measures them again.
        seeds: seeds of the measurement.
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


def other_machines(folder: Path) -> list[dict[str, dict[str, Any]]]:
    """Return the records of other machines by the name of their benchmark: one entry for each folder in `folder`."""
    return [found for each in sorted(folder.glob("*/")) if (found := read_records(each))]


def named(machine: Mapping[str, Any]) -> str:
    """Return the processor of a machine in a record, and its instruction set where the record states it."""
    instructions = machine.get("instructions")
    return f"{machine['cpu']} ({instructions})" if instructions else str(machine["cpu"])


def machine() -> dict[str, Any]:
    """Return the machine that the figures depend on: its processor, cores and memory, and what this process uses.

    `instructions` is the widest instruction set that torch uses, such as `AVX2` or `AVX512`.
    """
    import torch  # Imported here, because processes that measure ROS alone import this module too.

    return {
        "cpu": _cpu_model(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "cores_used": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def command_of(name: str, **options: Any) -> str:
    """Return the command line, for the root of the checkout, that measures the benchmark `name` with `options`."""
    words = ["--only", name, "--cores", str(len(os.sched_getaffinity(0)))]
    for option, value in options.items():
        words += [f"--{option.replace('_', '-')}", str(value)]
    return shlex.join(["./vjepa", "--exec", "python", "-m", "benchmarks.run", *words])


def mean_with_interval(values: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Return the mean of `values` and its 95 % percentile-bootstrap interval."""
    return statistics.fmean(values), bootstrap_interval(values)
