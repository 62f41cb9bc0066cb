"""Bundles: a trained model as a folder of `config.json`, `model.safetensors` and `MODEL_CARD.md`.

`config.json` has at least `kind` (encoder, policy, dynamics, reward, actor) and `architecture`. A bundle that reads
latents also has `encoder`, `encoder_fingerprint` and `latent_rows`. A bundle for an arm's actions has `arm` and
`control_period_s`, and one with weights has `weights_sha256`. Only JSON and safetensors are read: no pickle.
"""

import hashlib
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

from vjepa_interfaces.effort import EffortLimits
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.files import write_atomically
from vjepa_interfaces.json_text import read_json, write_json
from vjepa_interfaces.share import share_folder

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "MODEL_CARD.md"
SHIPPED_WITH = "vjepa_bringup"
"""The package whose share folder contains the bundles that ship with the project."""


class BundleError(VjepaError):
    """A bundle that cannot be used; the message states the file, its content and what was expected."""


@dataclass(frozen=True)
class Bundle:
    """A bundle read from disk. The architecture's own code loads the weights.

    Attributes:
        path: its folder.
        config: the object in `config.json`; see the module for the fields that every bundle has.
    """

    path: Path
    config: dict[str, Any]

    @property
    def label(self) -> str:
        """Its name in messages: the bundle's name if it ships with the project, else its folder."""
        return self.path.name if find_bundle(self.path.name) == str(self.path) else str(self.path)

    @property
    def weights(self) -> Path:
        """Path of `model.safetensors`, which need not exist for every kind."""
        return self.path / WEIGHTS_FILE

    @property
    def weights_sha256(self) -> str:
        """Hash of the weights' file, in hexadecimal; other bundles and results identify the weights by it.

        Raises:
            BundleError: the file cannot be read.
        """
        try:
            return file_sha256(self.weights)
        except OSError as error:
            raise BundleError(
                f"{self.weights} cannot be read: {error.strerror}; expected the weights of the bundle"
            ) from error

    def require(self, key: str, kind: type | tuple[type, ...]) -> Any:
        """Return `config[key]`.

        Args:
            key: name of the field.
            kind: the type, or the types, of its value.

        Raises:
            BundleError: the key is missing, or its value is of another type.
        """
        kinds = (kind,) if isinstance(kind, type) else kind
        value = self.config.get(key)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            found = "nothing" if value is None else repr(value)
            names = " or ".join(k.__name__ for k in kinds)
            raise BundleError(f"{self.path / CONFIG_FILE}: '{key}' is {found}; expected a value of type {names}")
        return value

    @property
    def control_periods_s(self) -> tuple[float, ...]:
        """Seconds from one frame to the next at each rate of its training; empty if the bundle does not record them.

        Older bundles have one number in place of a list.

        Raises:
            BundleError: the record is not of numbers above 0.
        """
        if "control_period_s" not in self.config:
            return ()
        recorded = self.require("control_period_s", (int, float, list))
        periods = recorded if isinstance(recorded, list) else [recorded]
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in periods)
        if not (periods and numbers and all(math.isfinite(value) and value > 0 for value in periods)):
            raise BundleError(
                f"{self.path / CONFIG_FILE}: 'control_period_s' is {recorded!r:.100}; expected seconds above 0, for "
                "each rate of its training"
            )
        return tuple(map(float, periods))

    @property
    def arm(self) -> EffortLimits | None:
        """The arm of its training; None if the bundle does not record it.

        Raises:
            BundleError: the record is not an arm.
        """
        if "arm" not in self.config:
            return None
        known = self.require("arm", dict)
        try:
            return EffortLimits.of(tuple(map(str, known["joint_names"])), known["effort_limit"])
        except (KeyError, TypeError, ValueError, OverflowError, VjepaError) as error:
            raise BundleError(
                f"{self.path / CONFIG_FILE}: 'arm' is {known!r:.100}; expected joint_names and effort_limit"
            ) from error

    def check_weights(self) -> None:
        """Refuse other weights than those of the writing; a bundle without a record of them passes.

        Raises:
            BundleError: `model.safetensors` has another hash than `config.json` records.
        """
        recorded = self.config.get("weights_sha256")
        if recorded is not None and self.weights.is_file() and recorded != (found := self.weights_sha256):
            raise BundleError(
                f"{self.weights} has sha256 {found}; {CONFIG_FILE} records {recorded!r}: one of the two was "
                "damaged or exchanged, get the whole bundle again"
            )

    def check_encoder(self, fingerprint: str, name: str = "") -> None:
        """Refuse latents of another encoder than in the bundle's training.

        Args:
            fingerprint: fingerprint of the encoder of the latents.
            name: name of that encoder, for the message.

        Raises:
            BundleError: `fingerprint` differs from the bundle's `encoder_fingerprint`; the message has both.
        """
        expected = self.require("encoder_fingerprint", str)
        if expected != fingerprint:
            trained = encoder_label(str(self.config.get("encoder", "")), expected)
            raise BundleError(
                f"{self.label} was trained on latents of encoder {trained}, but these come from "
                f"{encoder_label(name, fingerprint)}; use the encoder it was trained with, or train it again on this "
                "one"
            )

    def check_dynamics(self, dynamics: "Bundle") -> None:
        """Refuse another dynamics model than that of the training of these heads.

        Args:
            dynamics: bundle of the dynamics model.

        Raises:
            BundleError: its weights differ from the bundle's `dynamics_sha256`.
        """
        expected, found = self.require("dynamics_sha256", str), dynamics.weights_sha256
        if expected != found:
            raise BundleError(
                f"{self.label} reads the states of the dynamics model with weights {expected[:16]}, but "
                f"{dynamics.label} has weights {found[:16]}; train heads on its states: vjepa train reward"
            )

    def check_arm(self, arm: EffortLimits) -> None:
        """Refuse another arm than in the bundle's training; a bundle without a record of its arm passes.

        Args:
            arm: the present arm.

        Raises:
            BundleError: other joints, or another torque of an action of 1 for a joint; the message has both.
        """
        trained = self.arm
        if trained is None:
            return
        if trained.joint_names != arm.joint_names:
            raise BundleError(
                f"{self.label} was trained on an arm with the joints {', '.join(trained.joint_names)}, but this one "
                f"has {', '.join(arm.joint_names)}; use one that was trained on this arm"
            )
        if not all(map(partial(math.isclose, rel_tol=1e-6), trained.limits, arm.limits)):
            raise BundleError(
                f"{self.label} was trained where an action of 1 is {trained.limits_text} N·m, but here it is "
                f"{arm.limits_text}; set the same effort_limit, or train it again with this one"
            )


def encoder_label(name: str, fingerprint: str) -> str:
    """Return an encoder's name for messages: its name with the fingerprint in brackets, or only the fingerprint."""
    return f"{name} ({fingerprint})" if name else fingerprint


def encoder_in_card(name: str, fingerprint: str) -> str:
    """Return the text of `encoder_label` as Markdown, for a card."""
    return f"`{name}` (`{fingerprint}`)" if name else f"`{fingerprint}`"


class ArmRecord(TypedDict):
    """The entry `arm` of a configuration: the joints, and the torque of an action of 1 for each, N·m."""

    joint_names: list[str]
    effort_limit: list[float]


def arm_record(arm: EffortLimits) -> ArmRecord:
    """Return the entry of `arm`."""
    return {"joint_names": list(arm.joint_names), "effort_limit": list(arm.limits)}


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_bundle(name: str) -> str:
    """Return the folder of a bundle that ships with the project, or `name` itself: a path or a hub id."""
    if not name or "/" in name:
        return name
    try:
        shipped = share_folder(SHIPPED_WITH) / "models" / name
    except VjepaError:  # The computer at the arm has only this package.
        return name
    return str(shipped) if shipped.is_dir() else name


def is_bundle(name: Any) -> bool:
    """Return whether `name` is the folder of a bundle, or the name of one that ships with the project."""
    return isinstance(name, str) and bool(name) and Path(find_bundle(name), CONFIG_FILE).expanduser().is_file()


def shipped_bundles(kind: str = "") -> list[str]:
    """Return the names of the bundles that ship with the project, those of `kind` or all."""
    try:
        folder = share_folder(SHIPPED_WITH) / "models"
    except VjepaError:
        return []
    found = []
    for file in sorted(folder.glob(f"*/{CONFIG_FILE}")):
        if not kind or read_json(file, BundleError).get("kind") == kind:
            found.append(file.parent.name)
    return found


def read_bundle(path: Path | str, kind: str = "") -> Bundle:
    """Read a bundle.

    Args:
        path: its folder, or the name of a bundle that ships with the project.
        kind: the kind that is required; empty for any.

    Raises:
        BundleError: the folder does not exist, config.json is not readable, or the bundle is of another kind.
    """
    path = Path(find_bundle(str(path))).expanduser()
    file = path / CONFIG_FILE
    if not file.is_file():
        shipped = shipped_bundles(kind)
        ships = f", or one that ships: {', '.join(shipped)}" if shipped else ""
        raise BundleError(f"no bundle at '{path}': expected a folder with {CONFIG_FILE} and {WEIGHTS_FILE}{ships}")
    config = read_json(file, BundleError)
    if kind and config.get("kind") != kind:
        shipped = shipped_bundles(kind)
        ships = f", such as {' or '.join(shipped)}" if shipped else ""
        raise BundleError(f"{file} is of kind '{config.get('kind')}'; expected '{kind}'{ships}")
    return Bundle(path, config)


def write_bundle(path: Path | str, config: dict[str, Any], card: str) -> Bundle:
    """Write `config.json` and `MODEL_CARD.md` into a folder, made if necessary, and return the bundle.

    The caller saves `model.safetensors` first. So a folder with a `config.json` is complete, and the hash is known.

    Args:
        path: the folder.
        config: the fields of `config.json`; `weights_sha256` is added if the folder has weights.
        card: the text of `MODEL_CARD.md`.
    """
    path = Path(path).expanduser()
    if (path / WEIGHTS_FILE).is_file():
        config = {**config, "weights_sha256": file_sha256(path / WEIGHTS_FILE)}
    write_atomically(path / CARD_FILE, card)
    write_json(path / CONFIG_FILE, config)
    return Bundle(path, config)
