"""A plan of the default searches beside the same searches by plain modules, and beside a published search."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import published
from benchmarks.figures import Figure, command_of, record
from benchmarks.timing import in_turns, product_rate, ratio
from vjepa_bringup.graph import default_parameters
from vjepa_interfaces.bundle import find_bundle
from vjepa_planner.contract import Observation, PlannerContext
from vjepa_planner.models.dynamics import Dynamics
from vjepa_planner.planners.cem import CemPlanner
from vjepa_planner.planners.world import World
from vjepa_planner.registry import load_planner, options_of

LATENT_SHAPE = (17, 128)
PERIOD_S = 0.02
OBSERVATIONS = 32
SPEED_UP_AIM = 3.0
PLAN_AIM_MS = 6.0
OWN, PLAIN = "cem", "the same, by its modules"
MPPI, SINGLE = "mppi", "mppi, one network of its ensemble"
PUBLISHED = f"MPPI of {published.DISTRIBUTION}, the same network"


class PlainWorld(World):
    """The world by its plain modules, which compute for each sample even the parts that all samples share."""

    def imagine(self, history: Tensor, actions: Tensor) -> Tensor:
        """Do the same as `World.imagine`."""
        members, batch = self.dynamics.config.members, actions.shape[1]
        held = actions[:, :, :, None].expand(-1, -1, -1, self.dynamics.config.action_repeat, -1)
        following = self.dynamics.unroll(history.expand(1, batch, -1, -1), held)
        return torch.cat([history[-1].expand(1, members, batch, -1), following.movedim(2, 0)])

    def costs(self, states: Tensor, actions: Tensor, distance_weight: float) -> Tensor:
        """Do the same as `World.costs`."""
        assert self.heads is not None
        costs = []
        for step in range(actions.shape[2]):
            held = actions[:, :, step, None].expand(states.shape[1], -1, self.dynamics.config.action_repeat, -1)
            reward = self.heads.reward(states[step], held)
            costs.append(distance_weight * self.heads.distance(states[step + 1]) - reward)
        return torch.stack(costs).mean(0)

    def prior_actions(self, history: Tensor, tensors: list[Tensor], horizon: int) -> Tensor:
        """Do the same as `World.prior_actions`."""
        assert self.policy is not None
        actions = [self.policy(self.policy.inputs(*tensors))]
        while len(actions) < horizon:
            state = self.imagine(history, actions[-1][None, None, None])[1].mean(0)
            history = torch.cat([history[1:], state])
            actions.append(self.policy(self.policy.inputs(*self.dynamics.conditioning.invert(state[0]))))
        return torch.stack(actions)


def measure(rounds: int, seed: int) -> dict[str, Any]:
    """Measure the plans of all searches on one core and return the record."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # As in the planner's node.
    try:
        planners = {OWN: planner(), PLAIN: planner(plain=True)}
        planners |= {MPPI: planner(MPPI), SINGLE: single(planner(MPPI))}
        for one in planners.values():
            one.reset(seed)
        plans: dict[str, Callable[[Observation], object]] = {
            name: (lambda observation, one=one: one.plan(observation, None)) for name, one in planners.items()
        }
        package = published.pytorch_mppi()
        if package is not None:
            torch.manual_seed(seed)
            plans[PUBLISHED] = published.search(package, planners[SINGLE]._world, planners[SINGLE].config)
        seen = observations(LATENT_SHAPE, seed)
        turn = dict.fromkeys(plans, 0)

        def plan(name: str) -> None:
            plans[name](seen[turn[name] % OBSERVATIONS])
            turn[name] += 1

        timed = in_turns({name: (lambda name=name: plan(name)) for name in plans}, rounds)
        rate = product_rate(torch.float32) / 1e9
    finally:
        torch.set_num_threads(threads)
    runs: list[dict[str, Any]] = [
        {"what": name, "median_ms": 1e3 * float(np.median(times)), "rounds_ms": times} for name, times in timed.items()
    ]
    if package is None:
        runs.append({"what": PUBLISHED, "median_ms": None, "rounds_ms": []})
    command = command_of("planning", turns=rounds, seed=seed)
    rates = {"float32": rate}
    content = record("planning", figures(timed), command, [seed], runs=runs, product_gflops=rates)
    if package is not None:
        content["versions"] |= {published.DISTRIBUTION: published.version()}
    return content


def figures(timed: dict[str, list[float]]) -> list[Figure]:
    """Return the time of a plan, and the ratios of the plain and the published search's times to it."""
    sample = f"{len(timed[OWN])} rounds in turns, one core, no deadline"
    found = [Figure("a plan of `cem`", 1e3 * float(np.median(timed[OWN])), "ms", sample, PLAN_AIM_MS)]
    for what, slow, own, aim in (
        ("a plan of the same search by its modules, over one of `cem`", PLAIN, OWN, SPEED_UP_AIM),
        (f"a plan by the MPPI of {published.DISTRIBUTION}, over one of `mppi`, one network", PUBLISHED, SINGLE, 1.0),
    ):
        if slow in timed:
            value, interval = ratio(timed[slow], timed[own])
            over = "bootstrap over rounds"
            found.append(Figure(what, value, "times", sample, aim, True, interval_95=interval, interval_of=over))
    return found


def planner(name: str = OWN, plain: bool = False) -> CemPlanner:
    """Return the stack's default planner `name`, `cem` or a subclass of it, on one core.

    Args:
        name: name of the planner.
        plain: whether it imagines by the plain modules of the training.
    """
    options = options_of(name, default_parameters()["vjepa_planner"])
    bundles = {option: find_bundle(value) for option, value in options.items() if isinstance(value, str)}
    made = load_planner(name, {**options, **bundles}, PlannerContext(action_size=2, control_period_s=PERIOD_S))
    assert isinstance(made, CemPlanner)
    if plain:
        world = made._world
        made._world = PlainWorld(world.bundle, world.dynamics, world.heads, world.policy, world.device)
    return made


def single(made: CemPlanner) -> CemPlanner:
    """Return the planner `made` with only the first network of its ensemble, which leaves nothing to judge."""
    world = made._world
    model = Dynamics(replace(world.dynamics.config, members=1), world.dynamics.conditioning.config)
    wanted = model.state_dict()
    weights = {
        name: value if value.shape == wanted[name].shape else value[:1]
        for name, value in world.dynamics.state_dict().items()
    }
    model.load_state_dict(weights)
    made._world = replace(world, dynamics=model.eval().requires_grad_(False))
    return made


def observations(latent_shape: tuple[int, int], seed: int) -> list[Observation]:
    """Return observations of noise for planning in turn."""
    rng = np.random.default_rng(seed)
    return [
        Observation(
            stamp_ns=i,
            latent=rng.standard_normal(latent_shape).astype(np.float32),
            joint_position=rng.uniform(-1, 1, 2),
            joint_velocity=rng.uniform(-1, 1, 2),
        )
        for i in range(OBSERVATIONS)
    ]
