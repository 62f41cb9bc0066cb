"""The device that planners compute on."""

import torch

from vjepa_interfaces.errors import VjepaError


def usable_device(name: str) -> torch.device:
    """Return the torch device `name`.

    Raises:
        VjepaError: torch cannot use the device on this machine.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:
        raise VjepaError(
            f"device '{name}' cannot be used: {error}; choose 'cpu' or a device that torch finds here"
        ) from error
    return device
