"""Planners loaded anew with other options, beside those that drive: in a thread, so that no latent waits for it."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from vjepa_interfaces.errors import VjepaError
from vjepa_planner.contract import Planner, PlannerContext
from vjepa_planner.registry import load_planner

LOADING = "loading"


class Reloader:
    """Instances that are loading or loaded, and not in use yet; the newest options of a planner count."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reload")
        self._loading: dict[str, Future[Planner]] = {}

    def begin(self, name: str, options: Mapping[str, Any], context: PlannerContext) -> None:
        """Begin to load planner `name` with `options`, as `load_planner` does; what was begun before is forgotten."""
        self._loading[name] = self._pool.submit(load_planner, name, dict(options), context)

    def ready(self, name: str) -> Planner | None:
        """Return the new instance of planner `name`, or None where none was begun since the last one was taken.

        Raises:
            VjepaError: it is still loading, or it did not load; why is said until it is begun anew.
        """
        loading = self._loading.get(name)
        if loading is None:
            return None
        if not loading.done():
            raise VjepaError(f"planner '{name}' is being loaded with its new options; set it once it is loaded")
        return loading.result()

    def taken(self, name: str) -> None:
        """Forget the instance of planner `name`, which is in use now."""
        self._loading.pop(name, None)

    def status(self) -> dict[str, str]:
        """Return, by name, `loading`, `loaded` or why it did not load."""
        return {name: self._status_of(loading) for name, loading in self._loading.items()}

    def failures(self) -> list[str]:
        """Return which planners did not load with their new options, and why."""
        failed = {name: loading.exception() for name, loading in self._loading.items() if loading.done()}
        return [
            f"planner '{name}' did not load with its new options: {error}" for name, error in failed.items() if error
        ]

    def close(self) -> None:
        """Forget all of them; what is loading is left to end by itself."""
        self._loading.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)

    @staticmethod
    def _status_of(loading: "Future[Planner]") -> str:
        if not loading.done():
            return LOADING
        error = loading.exception()
        return "loaded" if error is None else str(error)
