"""The time of the first `make run` on a fresh clone: the set-up, and then the start until the arm moves."""

import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, command_of, mean_with_interval, record
from benchmarks.stack import ROOT
from benchmarks.start_up import first_torque_s as start
from vjepa_interfaces.errors import VjepaError

AIM_S = 100.0
"""The aim from nothing to a moving arm, if all downloads are already on this machine."""


def measure(runs: int, seed: int) -> dict[str, Any]:
    """Set up fresh clones, the first without any downloads, and start each; return the record."""
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        whole = [first_start(Path(folder) / f"clone-{i}", cache, seed + i) for i in range(runs + 1)]
    mean, interval = mean_with_interval([sum(both) for both in whole[1:]])
    figure = Figure(
        "`make run` on a fresh clone to its first torque command",
        mean,
        "s",
        f"{runs} clones, nothing installed, what they download in the cache",
        AIM_S,
        interval_95=interval,
        interval_of="bootstrap over clones",
    )
    rows = [
        {"what": "in the cache" if i else "from the registry", "set_up_s": set_up_s, "first_torque_s": first_torque_s}
        for i, (set_up_s, first_torque_s) in enumerate(whole)
    ]
    command = command_of("set-up", runs=runs, seed=seed)
    return record("set-up", [figure], command, range(seed, seed + runs + 1), runs=rows)


def first_start(clone: Path, cache: Path, seed: int) -> tuple[float, float]:
    """Return the time of the set-up in a fresh clone, and that from the start there to the first torque command, s.

    Args:
        clone: path of the new clone.
        cache: folder of the caches of uv and pip, which the clones share.
        seed: seed of the episode.

    Raises:
        VjepaError: the set-up failed.
    """
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    environment = clean_environment() | {"UV_CACHE_DIR": str(cache / "uv"), "PIP_CACHE_DIR": str(cache / "pip")}
    begin = time.monotonic()
    done = subprocess.run(
        [str(clone / "vjepa"), "--setup-only"], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise VjepaError(f"the set-up of {clone} failed: {done.stderr[-2000:]}")
    seconds = time.monotonic() - begin
    return seconds, start(seed, clone / "vjepa", environment)


def clean_environment() -> dict[str, str]:
    """Return the variables of a shell outside any environment of this project."""
    ours = {"PYTHONPATH", "LD_LIBRARY_PATH", "AMENT_PREFIX_PATH", "VIRTUAL_ENV", "_ROS_WHEELS_BOOTSTRAP_COMPLETE"}
    kept = {name: value for name, value in os.environ.items() if name not in ours and not name.startswith("VJEPA_")}
    inside = os.environ.get("VIRTUAL_ENV", "/nowhere")
    kept["PATH"] = os.pathsep.join(p for p in kept["PATH"].split(os.pathsep) if not p.startswith(inside))
    return kept
