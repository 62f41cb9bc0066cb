"""Networks as bundles: write a bundle, and read one with checks of every tensor."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from vjepa_interfaces.bundle import WEIGHTS_FILE, Bundle, BundleError, write_bundle
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.files import write_atomically

_Module = TypeVar("_Module", bound=nn.Module)

MAX_SIZE = 1_000_000
"""Largest size accepted for any one dimension in a bundle's configuration."""


def save_module(
    path: Path | str, module: nn.Module, config: Mapping[str, Any], card: str, provenance: Mapping[str, Any] | None
) -> Bundle:
    """Write parameters and buffers of `module` with its configuration as a bundle into the folder `path`.

    Args:
        path: folder of the bundle, created if missing.
        module: the module whose `state_dict` is written.
        config: entries of config.json that describe the module.
        card: text of MODEL_CARD.md.
        provenance: further entries of config.json.

    Raises:
        VjepaError: `provenance` and `config` have an entry of the same name.
    """
    provenance = provenance or {}
    if taken := sorted(config.keys() & provenance.keys()):
        raise VjepaError(f"provenance names {', '.join(taken)}, which the bundle also writes; rename them")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    write_atomically(Path(path, WEIGHTS_FILE), save(tensors))
    return write_bundle(path, {**config, **provenance}, card)


def load_module(bundle: Bundle, make: Callable[[], _Module], device: str | torch.device) -> _Module:
    """Return a module from `make` with the tensors of `bundle`, in evaluation mode, on `device`.

    Nothing is allocated before names, shapes and types of the tensors have been compared with the module's.

    Args:
        bundle: the bundle with the weights.
        make: creates the module; it is called on torch's meta device.
        device: device of the result.

    Raises:
        BundleError: the weights are missing, changed after writing, do not fit the module, or are not finite.
    """
    bundle.check_weights()
    with torch.device("meta"):
        module = make()
    module.load_state_dict(_read_tensors(bundle.weights, module.state_dict()), assign=True)
    return module.eval().requires_grad_(False).to(device)


def require_sizes(name: str, values: Any, least: int) -> None:
    """Refuse `values` that are not integers from `least` to `MAX_SIZE`.

    Raises:
        VjepaError: a value is refused; the message contains `name`.
    """
    for value in values:
        if type(value) is not int or not least <= value <= MAX_SIZE:
            raise VjepaError(f"'{name}' has {value!r}; expected integers from {least} to {MAX_SIZE}")


def config_from(bundle: Bundle, config_class: Any, values: Mapping[str, Any]) -> Any:
    """Return a `config_class` with the `values` of its fields; other values are ignored.

    Raises:
        BundleError: a value is of a wrong type or out of range.
    """
    names = config_class.__dataclass_fields__
    try:
        return config_class(**{name: value for name, value in values.items() if name in names})
    except (VjepaError, TypeError) as error:
        raise BundleError(f"{bundle.path}: {error}") from error


def _read_tensors(weights: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of the file `weights`. Names and shapes must equal those of `expected`, and types float32."""
    if not weights.is_file():
        raise BundleError(f"{weights} is missing; get the whole bundle again")
    try:
        with safe_open(str(weights), framework="pt", device="cpu") as file:
            found = set(file.keys())
            if found != expected.keys():
                raise BundleError(
                    f"{weights} lacks tensors {sorted(expected.keys() - found)} and has unknown tensors "
                    f"{sorted(found - expected.keys())}"
                )
            for name, tensor in expected.items():
                header = file.get_slice(name)
                if header.get_shape() != list(tensor.shape) or header.get_dtype() != "F32":
                    raise BundleError(
                        f"{weights}: tensor '{name}' is {header.get_dtype()} of shape {header.get_shape()}; "
                        f"expected F32 of shape {list(tensor.shape)}, as in the configuration"
                    )
            # The file is mapped into memory and may be written again while the planner drives, hence the copies.
            tensors = {name: file.get_tensor(name).clone() for name in expected}
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{weights} is not a readable safetensors file: {error}") from error
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise BundleError(f"{weights}: tensor '{name}' has values that are not finite")
    return tensors
