"""The planners of a node: those that are loaded, and those that a thread loads anew with other options beside them."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from vjepa_interfaces.bundle import is_bundle, read_bundle
from vjepa_interfaces.errors import VjepaError, unknown_name
from vjepa_interfaces.parameters import read_parameters
from vjepa_planner.contract import Planner, PlannerContext
from vjepa_planner.registry import failures_named, load_planner

LOADING = "loading"


class PlannerPool:
    """Planners by name: those that may drive, those that could not be loaded, and new instances that are not in use.

    Attributes:
        loaded: those that may drive.
        unready: why each of the others is not loaded.
    """

    def __init__(self) -> None:
        self.loaded: dict[str, Planner] = {}
        self.unready: dict[str, str] = {}
        self._renewed: dict[str, Future[Planner]] = {}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reload")

    def load(self, name: str, options: Mapping[str, Any], context: PlannerContext) -> None:
        """Load planner `name` with `options` for the arm in `context`; where that fails, `unready` has the reason too.

        Raises:
            VjepaError: as `load_planner`.
        """
        try:
            self.loaded[name] = load_planner(name, options, context)
        except VjepaError as error:
            self.unready[name] = str(error)
            raise

    def reload(self, name: str, options: Mapping[str, Any], context: PlannerContext) -> None:
        """Begin to load a planner anew with other options, if it is loaded; it drives as it is until `renew`."""
        if name in self.loaded:
            self._renewed[name] = self._thread.submit(load_planner, name, dict(options), context)

    def renew(self, name: str) -> bool:
        """Put the new instance of planner `name` in the place of the old one, and return whether there is one.

        Raises:
            VjepaError: it is still loading, or did not load; so it is until it is loaded anew.
        """
        renewed = self._new_instance(name)
        if renewed is None:
            return False
        self.loaded[name] = renewed
        del self._renewed[name]
        return True

    def check(self, name: str, encoder: Mapping[str, Any] | None) -> None:
        """Refuse a planner that cannot drive: it is not loaded, still loading anew, or of another encoder.

        Args:
            name: of the planner; where a new instance of it is loaded, that one is asked.
            encoder: what the encoder published of itself; None where that is not known yet.

        Raises:
            VjepaError: it states why, and which planners there are.
        """
        renewed = self._new_instance(name)
        planner = self.loaded.get(name) if renewed is None else renewed
        if planner is None:
            reason = f" ('{name}' is not ready: {self.unready[name]})" if name in self.unready else ""
            raise VjepaError(f"{unknown_name('planner', str(name), self.loaded)}{reason}")
        if encoder is not None:
            with failures_named(f"planner '{name}' cannot tell whether it knows this encoder"):
                planner.check_encoder(encoder["fingerprint"], str(encoder.get("model", "")))

    def check_options(self, name: str, options: Mapping[str, Any]) -> None:
        """Refuse options of a loaded planner: unknown, of another type, out of their range, or another bundle's damage.

        Raises:
            VjepaError: naming the option, or the bundle.
        """
        if name not in self.loaded:
            return
        before = self.loaded[name].config
        config = read_parameters(type(before), options, "option", f"planner '{name}'")
        for option, value in vars(config).items():
            present = getattr(before, option)
            if isinstance(value, str) and value and value != present and is_bundle(present):
                read_bundle(value)

    def failures(self) -> list[str]:
        """Return which planners did not load with their new options, and why."""
        failed = {name: renewed.exception() for name, renewed in self._renewed.items() if renewed.done()}
        return [
            f"planner '{name}' did not load with its new options: {error}" for name, error in failed.items() if error
        ]

    def status(self) -> dict[str, str]:
        """Return the entries of diagnostics: who is ready, who is not and why, and what became of new options."""
        values = {"ready": ", ".join(sorted(self.loaded))}
        values |= {f"not ready: {name}": reason for name, reason in self.unready.items()}
        for name, renewed in self._renewed.items():
            values[f"new options: {name}"] = str(renewed.exception() or "loaded") if renewed.done() else LOADING
        return values

    def close(self) -> None:
        """Forget all planners, so that their device memory is freed; what is loading is left to end by itself."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._renewed.clear()
        self.loaded.clear()
        self.unready.clear()

    def _new_instance(self, name: str) -> Planner | None:
        """Return the new instance of planner `name`, or None where none was asked for; raise as `renew`."""
        renewed = self._renewed.get(name)
        if renewed is None:
            return None
        if not renewed.done():
            raise VjepaError(f"planner '{name}' is being loaded with its new options; set it once it is loaded")
        return renewed.result()
