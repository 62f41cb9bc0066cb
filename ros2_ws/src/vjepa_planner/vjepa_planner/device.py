"""The device that planners compute on, and observations on it."""

import torch
from torch import Tensor

from vjepa_interfaces.errors import VjepaError
from vjepa_planner.contract import Observation


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


def tensors_of(observation: Observation, device: torch.device) -> list[Tensor]:
    """Return latent and, if present, joint position and velocity as float32 tensors on `device`."""
    arrays = (observation.latent, observation.joint_position, observation.joint_velocity)
    # torch.tensor copies. torch.from_numpy would warn of an observation's read-only arrays.
    return [torch.tensor(array, dtype=torch.float32, device=device) for array in arrays if array is not None]
