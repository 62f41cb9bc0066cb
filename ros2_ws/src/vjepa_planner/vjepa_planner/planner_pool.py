"""The planners of a node: loaded instances, and new instances that a thread loads with other options."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from vjepa_interfaces.bundle import is_bundle, read_bundle
from vjepa_interfaces.encoder_info import EncoderInfo
from vjepa_interfaces.errors import VjepaError, unknown_name
from vjepa_interfaces.parameters import read_parameters
from vjepa_planner.contract import Planner, PlannerContext
from vjepa_planner.registry import failures_named, load_planner

LOADING = "loading"


class PlannerPool:
    """Planners by name: loaded planners, failed ones, and new instances that are not in use.

    Attributes:
        loaded: the planners that may drive.
        unready: why each failed planner did not load.
    """

    def __init__(self) -> None:
        self.loaded: dict[str, Planner] = {}
        self.unready: dict[str, str] = {}
        self._renewed: dict[str, Future[Planner]] = {}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reload")

    def load(self, name: str, options: Mapping[str, Any], context: PlannerContext) -> None:
        """Load planner `name` with `options` for the arm in `context`. A failure is stored in `unready` too.

        Raises:
            VjepaError: as in `load_planner`.
        """
        try:
            self.loaded[name] = load_planner(name, options, context)
        except VjepaError as error:
            self.unready[name] = str(error)
            raise

    def reload(self, name: str, options: Mapping[str, Any], context: PlannerContext) -> None:
        """Begin to load a new instance of a loaded planner with other options. The old one drives until `renew`."""
        if name in self.loaded:
            self._renewed[name] = self._thread.submit(load_planner, name, dict(options), context)

    def renew(self, name: str) -> bool:
        """Replace planner `name` by its new instance, and return whether there is one.

        Raises:
            VjepaError: the new instance is still loading, or did not load. Only `reload` ends a failure.
        """
        renewed = self._new_instance(name)
        if renewed is None:
            return False
        self.loaded[name] = renewed
        del self._renewed[name]
        return True

    def check(self, name: str, encoder: EncoderInfo | None) -> None:
        """Refuse a planner that cannot drive: not loaded, its new instance still loading, or for another encoder.

        Args:
            name: name of the planner; the check uses its new instance if there is one.
            encoder: the encoder's message on `latent_info`; None while it is unknown.

        Raises:
            VjepaError: the planner cannot drive; the message states why, and lists the planners.
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
        """Refuse options of a loaded planner that are unknown, of another type, out of range, or a damaged bundle.

        Raises:
            VjepaError: an option is refused; the message names it or the bundle.
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
        """Return the entries of diagnostics: ready planners, failures with reasons, and the state of new options."""
        values = {"ready": ", ".join(sorted(self.loaded))}
        values |= {f"not ready: {name}": reason for name, reason in self.unready.items()}
        for name, renewed in self._renewed.items():
            values[f"new options: {name}"] = str(renewed.exception() or "loaded") if renewed.done() else LOADING
        return values

    def close(self) -> None:
        """Drop all planners to free their device memory. A planner that is loading ends by itself."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._renewed.clear()
        self.loaded.clear()
        self.unready.clear()

    def _new_instance(self, name: str) -> Planner | None:
        """Return the new instance of planner `name`, or None if none was requested; raise as `renew` does."""
        renewed = self._renewed.get(name)
        if renewed is None:
            return None
        if not renewed.done():
            raise VjepaError(f"planner '{name}' is being loaded with its new options; set it once it is loaded")
        return renewed.result()
