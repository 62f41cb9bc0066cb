"""Do units of work on a Ray cluster instead of processes of this machine."""

import importlib
import socket
from collections.abc import Callable, Sequence
from typing import Any

from vjepa_interfaces.errors import VjepaError

CONNECTION_TIMEOUT_S = 10.0

Unit = Callable[[int], Any]
"""Does one unit of work and returns its result."""


def run_on_ray(
    make: Callable[[], Unit], units: Sequence[int], address: str, on_result: Callable[[int, Any], None]
) -> None:
    """Do all `units` on the Ray cluster at `address`, whose machines have this stack installed.

    Each CPU of the cluster has an actor, which does one unit after another. Ray restarts an actor that died, and only
    its open unit is done again.

    Args:
        make: called once in each actor. It is a function of a module, or a `functools.partial` of one.
        units: numbers of the units.
        address: address of the cluster, as `ray.init` takes it.
        on_result: called in this process with each unit and its result, in the order of their arrival.

    Raises:
        VjepaError: Ray is not installed here, there is no cluster at the address, or an actor refused its work.
    """
    if not address:
        raise VjepaError("--ray-address is empty; expected the address of a Ray cluster, HOST:PORT, or auto")
    try:
        ray = importlib.import_module("ray")
        actor_pool = importlib.import_module("ray.util").ActorPool
    except ImportError as error:
        raise VjepaError(f"--ray-address needs Ray, which is not importable ({error}): pip install ray") from error
    try:
        _require_listener(address)
        ray.init(address=address, ignore_reinit_error=True)
    except (OSError, ValueError) as error:
        raise VjepaError(f"no Ray cluster at '{address}': {error}") from error
    remote = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=-1)(_Actor)
    try:
        count = min(len(units), int(ray.cluster_resources().get("CPU", 1)))
        pool = actor_pool([remote.remote(make) for _ in range(count)])
        for unit, result in pool.map_unordered(lambda actor, unit: actor.do.remote(unit), units):
            on_result(unit, result)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, VjepaError):
            raise VjepaError(str(error.cause)) from error
        raise
    finally:
        ray.shutdown()


def refuse_workers_on_ray(workers: int | None, address: str | None) -> None:
    """Raise VjepaError if both a number of processes and a cluster's address are given."""
    if workers is not None and address is not None:
        raise VjepaError(
            "--workers is for this machine and --ray-address for a Ray cluster, which has one worker for each CPU; "
            "leave one of them out"
        )


def _require_listener(address: str) -> None:
    """Raise OSError if nothing listens at an address HOST:PORT, where `ray.init` would try for minutes."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), CONNECTION_TIMEOUT_S).close()


class _Actor:
    """What Ray runs on each CPU."""

    def __init__(self, make: Callable[[], Unit]):
        self._make = make
        self._unit: Unit | None = None

    def do(self, number: int) -> tuple[int, Any]:
        if self._unit is None:  # Not in the constructor, whose error would reach the caller as a dead actor.
            self._unit = self._make()
        return number, self._unit(number)
