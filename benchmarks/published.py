"""A published planner in our world: the MPPI of `pytorch_mppi`.

`./vjepa --with mppi --setup-only` installs it beside the environment.
"""

from collections.abc import Callable
from importlib import metadata
from types import ModuleType

import torch
from torch import Tensor

from benchmarks.apart import imported
from vjepa_planner.contract import Observation
from vjepa_planner.planners.mppi import MppiConfig
from vjepa_planner.planners.world import World

GROUP = "mppi"
DISTRIBUTION = "pytorch_mppi"


def pytorch_mppi() -> ModuleType | None:
    """Return the package from the environment or from the folder of `GROUP`; None if it is not installed."""
    return imported(GROUP, DISTRIBUTION)


def version() -> str:
    """Return the version of the installed package."""
    return metadata.version(DISTRIBUTION)


def search(package: ModuleType, world: World, config: MppiConfig) -> Callable[[Observation], Tensor]:
    """Return a function that plans an action (n,) by the published MPPI, with the sizes of `config`.

    The sizes are samples, horizon and iterations. The function calls the modules of the training, one step of all
    samples at a time, as the package's own examples do.

    Args:
        package: `pytorch_mppi`.
        world: with a single network as its dynamics.
        config: config of this project's `mppi`.
    """
    assert world.heads is not None
    heads, repeat = world.heads, world.dynamics.config.action_repeat
    joints = world.dynamics.conditioning.config.joints
    before = torch.empty(0)

    def dynamics(state: Tensor, action: Tensor) -> Tensor:
        nonlocal before
        before = state
        held = action[:, None].expand(-1, repeat, -1)
        return world.dynamics(state[None, :, None], held[None])[0]

    def cost(state: Tensor, action: Tensor) -> Tensor:
        reward = heads.reward(before, action[:, None].expand(-1, repeat, -1))
        return (config.distance_weight * heads.distance(state) - reward) / config.horizon

    mppi = package.MPPI(
        dynamics,
        cost,
        world.dynamics.conditioning.config.state_size,
        config.initial_std**2 * torch.eye(joints),
        num_samples=config.samples,
        horizon=config.horizon,
        lambda_=config.temperature,
        u_min=-torch.ones(joints),
        u_max=torch.ones(joints),
        U_init=torch.zeros(config.horizon, joints),
    )

    @torch.inference_mode()
    def plan(observation: Observation) -> Tensor:
        state = world.state(world.tensors(observation))
        for iteration in range(config.iterations):
            action = mppi.command(state, shift_nominal_trajectory=iteration == 0)
        return action.clamp(-1, 1)

    return plan
