"""A Ray cluster of several nodes on this machine."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.stack import ROOT
from vjepa_interfaces.errors import VjepaError

FOLDER = ROOT / ".vjepa" / "ray"
"""The folder of Ray, which `./vjepa --with ray` installs."""
TIMEOUT_S = 120.0
_RAY = "from ray.scripts.scripts import main; main()"


def environment() -> dict[str, str]:
    """Return the environment of processes that import Ray."""
    path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(FOLDER)])
    return {**os.environ, "PYTHONPATH": path, "RAY_USAGE_STATS_ENABLED": "0"}


@contextlib.contextmanager
def ray_nodes(count: int) -> Iterator[str]:
    """Start `count` nodes with a CPU each, and yield the address of the cluster.

    Raises:
        VjepaError: not all nodes joined the cluster in time; the message quotes their output.
    """
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    address = f"127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="ray-") as folder, contextlib.ExitStack() as started:
        # The paths of its sockets may have 107 characters, so its folder has a short name.
        head = ["--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}/r"]
        common = ["--node-ip-address=127.0.0.1", "--num-cpus=1", "--block"]
        said = Path(folder) / "said"
        for number in range(count):
            options = head if number == 0 else [f"--address={address}"]
            command = [sys.executable, "-P", "-c", _RAY, "start", *options, *common]
            with said.open("a") as output:
                process = subprocess.Popen(
                    command, env=environment(), stdout=output, stderr=output, cwd=folder, start_new_session=True
                )
            started.callback(_end, process)
            _wait_for(number + 1, address, process, said)
        yield address


def _wait_for(count: int, address: str, process: subprocess.Popen, said: Path) -> None:
    """Wait until the cluster has `count` nodes."""
    command = [sys.executable, "-m", "benchmarks.ray_nodes", address]
    end = time.monotonic() + TIMEOUT_S
    while process.poll() is None and time.monotonic() < end:
        asked = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True, check=False)
        if asked.stdout.strip() == str(count):
            return
    raise VjepaError(f"no Ray cluster of {count} nodes at {address}: {said.read_text()[-2000:]}")


def _end(process: subprocess.Popen) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(30.0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    import ray

    ray.init(address=sys.argv[1], log_to_driver=False)
    print(sum(node["Alive"] for node in ray.nodes()))
