"""The `vjepa` command, as benchmarks call it, and other work beside it."""

import contextlib
import random
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vjepa_bringup.domains import FIRST_DOMAIN, LAST_DOMAIN, hold_domain, in_use
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.json_text import read_json

ROOT = Path(__file__).resolve().parent.parent


def vjepa(*arguments: str, timeout_s: float) -> dict[str, Any]:
    """Run `./vjepa ARGUMENTS --json FILE` and return the contents of the file.

    Raises:
        VjepaError: the command failed, or took longer than `timeout_s`.
    """
    with tempfile.TemporaryDirectory(prefix="vjepa-bench-") as folder:
        file = Path(folder) / "result.json"
        command = [str(ROOT / "vjepa"), *arguments, "--json", str(file)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired as error:
            raise VjepaError(f"vjepa {' '.join(arguments)} did not end within {timeout_s:.0f} s") from error
        if done.returncode != 0:
            raise VjepaError(f"vjepa {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return read_json(file)


def free_domain() -> int:
    """Return a ROS domain that is free now, for a `vjepa run` whose domain must be known.

    It is drawn at random: other commands take the lowest free one, perhaps before that `vjepa run` has started.

    Raises:
        VjepaError: no domain is free.
    """
    for domain in random.sample(range(FIRST_DOMAIN, LAST_DOMAIN + 1), LAST_DOMAIN + 1 - FIRST_DOMAIN):
        with contextlib.suppress(VjepaError), hold_domain(domain, {"planner": "(benchmark)"}):
            if not in_use(domain):
                return domain
    raise VjepaError(f"no ROS domain from {FIRST_DOMAIN} to {LAST_DOMAIN} is free; end other stacks")


def real_time_run(episodes: int, seed: int) -> dict[str, Any]:
    """Run the loop in real time for short episodes, with small encoder and scripted expert, and return the result."""
    arguments = ["run", "--planner", "expert", "--encoder", "encoder-small"]
    arguments += ["--protocol", "short", "--episodes", str(episodes), "--seed", str(seed)]
    return vjepa(*arguments, timeout_s=120 + 30 * episodes)


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep `count` processes computing."""
    processes = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
