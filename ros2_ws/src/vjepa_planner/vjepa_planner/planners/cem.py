"""`cem`: model-predictive control by the cross-entropy method, in the states of a learned dynamics model.

The search draws, imagines and ranks sequences of actions, and the best make the next distribution (Rubinstein 1999).
Chua et al. 2018 used it in learned models, Assran et al. 2025 in latents of V-JEPA 2. One member of the ensemble
imagines each sample; all members judge the best of the last round, with a cost of disagreement. A cloned policy may add
trajectories (Hansen et al., TD-MPC, 2022). At its deadline the planner returns the best so far.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.parameters import Range
from vjepa_planner.contract import (
    GOAL,
    JOINT_STATE,
    Imagined,
    Observation,
    Plan,
    Planner,
    PlannerContext,
    require_in_range,
)
from vjepa_planner.models.novelty import load_novelty
from vjepa_planner.planners.world import load_world

OBJECTIVES = ("reward", "goal")
MOST = 1_000_000
Count = Annotated[int, Range(low=1, high=MOST)]
Spread = Annotated[float, Range(low=0.0, high=10.0)]


@dataclass(frozen=True)
class CemConfig:
    """Options of `cem`.

    Attributes:
        dynamics: bundle of the dynamics model; required.
        reward: bundle of the reward and distance heads; required for the objective `reward`.
        policy: bundle of a policy for policy-prior trajectories; empty for none.
        objective: `reward` for reward and distance, averaged over the horizon. `goal` for the distance of the last
            state to the goal latent's, without heads and policy.
        horizon: predictions ahead, each of the dynamics model's `action_repeat` control steps.
        samples: sequences drawn in each iteration.
        elites: number of best sequences, which make the next distribution.
        iterations: rounds of drawing and ranking.
        prior_samples: policy-prior trajectories in each iteration, in place of as many samples.
        prior_std: standard deviation around the policy's actions.
        initial_std: standard deviation of the first distribution, around the last plan.
        min_std: smallest standard deviation.
        distance_weight: cost of a metre between fingertip and target; a step's reward costs -1.
        disagreement_weight: cost of the ensemble's standard deviation, in the model's units of change.
        imagine: whether each plan contains the expected distances from fingertip to target. It needs the objective
            `reward` and a distance head, and takes `horizon` more predictions.
    """

    dynamics: str = ""
    reward: str = ""
    policy: str = ""
    objective: str = "reward"
    horizon: Count = 5
    samples: Count = 50
    elites: Count = 5
    iterations: Count = 2
    prior_samples: Annotated[int, Range(low=0, high=MOST)] = 15
    prior_std: Spread = 0.2
    initial_std: Spread = 0.5
    min_std: Spread = 0.05
    distance_weight: Annotated[float, Range()] = 5.0
    disagreement_weight: Annotated[float, Range()] = 0.1
    imagine: bool = False

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            VjepaError: the objective is unknown, or elites or policy-prior trajectories are too many for the samples.
        """
        if self.objective not in OBJECTIVES:
            raise VjepaError(f"objective is '{self.objective}'; expected {' or '.join(OBJECTIVES)}")
        require_in_range("a search", {"elites": self.elites}, 1, self.samples)
        require_in_range("a search", {"prior_samples": self.prior_samples}, 0, self.samples - 1)


class CemPlanner(Planner):
    """Searches by the cross-entropy method. Subclasses override `_draw` or `_weights`."""

    Config = CemConfig

    def __init__(self, config: CemConfig, context: PlannerContext):
        super().__init__(config, context)
        name = type(self).__name__
        # Heads and policy know the target alone, and a goal may be anywhere.
        heads, policy = (config.reward, config.policy) if config.objective == "reward" else ("", "")
        self._world = load_world(config.dynamics, heads, policy, context, name)
        if config.objective == "reward" and self._world.heads is None:
            raise VjepaError(f"{name} maximises reward, but has no reward head; set its option 'reward' to a bundle")
        if config.imagine and (self._world.heads is None or not self._world.heads.config.distance):
            raise VjepaError(
                f"{name}: imagine is true, but there is no distance head; expected the objective 'reward' and a bundle "
                "'reward' with a distance head, or imagine false"
            )
        self.encoder_fingerprint = self._world.bundle.require("encoder_fingerprint", str)
        self.trained_periods_s = self._world.bundle.control_periods_s
        read = self._world.dynamics.conditioning.config
        self.novelty = load_novelty(self._world.bundle, read.latent_rows, read.latent_dim)
        needs = {JOINT_STATE} if self._world.needs_joint_state else set()
        self.needs = frozenset(needs | ({GOAL} if config.objective == "goal" else set()))
        self._generator = torch.Generator(self._world.device)
        self._warm_up()

    def _begin(self, seed: int) -> None:
        self._generator.manual_seed(seed)
        self._mean = torch.zeros(self.config.horizon, self.context.action_size, device=self._world.device)
        self._history: Tensor | None = None

    @torch.inference_mode()
    def _act(self, observation: Observation, deadline_s: float | None) -> Plan:
        """Search for the best sequence of actions, and return its first action.

        Shapes: H is the horizon, n the joints, B the samples, E the elites, S the size of a state.
        """
        started_s = time.monotonic()
        config, world = self.config, self._world
        tensors = world.tensors(observation)
        history = self._remembered(world.state(tensors))  # (history, S)
        goal = None if config.objective == "reward" else self._goal(observation)  # (latent's part of S,)
        prior = self._prior(history, tensors)  # (H, n)

        mean, std = self._mean, torch.full_like(self._mean, config.initial_std)  # (H, n)
        iterations = 0
        for _ in self._rounds(started_s, deadline_s):
            iterations += 1
            actions = self._draw(mean, std, prior)  # (B, H, n)
            cost = self._costs(history, actions, goal)  # (B,)
            elite = cost.topk(config.elites, largest=False).indices  # (E,)
            weights = self._weights(cost[elite])  # (E,)
            mean = _weighted_sum(weights, actions[elite])
            std = _weighted_sum(weights, (actions[elite] - mean).square()).sqrt().clamp(min=config.min_std)

        disagreement = None
        if world.dynamics.config.members > 1:  # One member has imagined each of the best, so all judge them.
            best = cost.topk(min(2 * config.elites, config.samples), largest=False).indices  # (2 E,)
            actions = actions[best]  # (2 E, H, n)
            cost, spread = self._judged(history, actions, goal)  # (2 E,)
            elite = cost.topk(config.elites, largest=False).indices  # (E,)
            weights = self._weights(cost[elite])  # (E,)
            mean = _weighted_sum(weights, actions[elite])
            disagreement = float(spread[elite].mean())

        self._history = history
        share = 1 / world.dynamics.config.action_repeat  # Until the next frame, this share of the first action passes.
        self._mean = mean + share * (torch.cat([mean[1:], mean[-1:]]) - mean)
        return Plan(
            action=mean[0].clamp(-1, 1).cpu().numpy().astype(np.float64),
            cost=float(weights @ cost[elite]),
            iterations=iterations,
            disagreement=disagreement,
            imagined=self._expected(history, mean) if config.imagine else None,
        )

    def _rounds(self, started_s: float, deadline_s: float | None) -> Iterator[None]:
        """Yield for each round of the search: for the first one, and for others while there is time.

        Args:
            started_s: steady time of the beginning of planning, seconds.
            deadline_s: seconds that planning may take, or None for no deadline.
        """
        slowest_s = 0.0
        for _ in range(self.config.iterations):
            began_s = time.monotonic()
            yield
            ended_s = time.monotonic()
            slowest_s = max(slowest_s, ended_s - began_s)
            # The judging that follows takes about as long as a round.
            if deadline_s is not None and ended_s - started_s + 2 * slowest_s > deadline_s:
                return

    def _draw(self, mean: Tensor, std: Tensor, prior: Tensor | None) -> Tensor:
        """Return sequences (samples, horizon, n): `mean`, samples around it, and policy-prior trajectories."""
        config = self.config
        around = 0 if prior is None else config.prior_samples
        noise = torch.randn(config.samples, *mean.shape, generator=self._generator, device=mean.device)
        noise[0] = 0
        drawn = mean + std * noise
        if prior is not None and around:
            noise[-1] = 0
            drawn[-around:] = prior + config.prior_std * noise[-around:]
        return drawn.clamp(-1, 1)

    def _weights(self, cost: Tensor) -> Tensor:
        """Return the weights (elites,) of the elites in the next distribution; their sum is 1."""
        return torch.full_like(cost, 1 / len(cost))

    def _costs(self, history: Tensor, actions: Tensor, goal: Tensor | None) -> Tensor:
        """Return the costs (B,) of sequences (B, horizon, n). One member of the ensemble in turn imagines each."""
        members = self._world.dynamics.config.members
        missing = -len(actions) % members
        dealt = torch.cat([actions, actions[:missing]]).unflatten(0, (-1, members)).transpose(0, 1)
        costs, _ = self._imagined(history, dealt, goal)
        return costs.transpose(0, 1).flatten()[: len(actions)]

    def _judged(self, history: Tensor, actions: Tensor, goal: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return costs (B,), disagreement included, and disagreements (B,). All members imagine each sequence."""
        costs, states = self._imagined(history, actions[None], goal)
        spread = self._world.dynamics.spread(states[1:].transpose(0, 1)).mean(dim=0)
        return costs.mean(0) + self.config.disagreement_weight * spread, spread

    def _imagined(self, history: Tensor, actions: Tensor, goal: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return costs (members, B) and `World.imagine`'s states of actions (members or 1, B, horizon, n)."""
        states = self._world.imagine(history, actions)
        if goal is not None:
            return torch.linalg.vector_norm(states[-1, ..., : len(goal)] - goal, dim=-1), states
        return self._world.costs(states, actions, self.config.distance_weight), states

    def _expected(self, history: Tensor, mean: Tensor) -> Imagined:
        """Return the distances that the members expect on average for the sequence `mean` (horizon, n)."""
        heads = self._world.heads
        assert heads is not None
        distance = heads.distance(self._world.imagine(history, mean[None, None])[:, :, 0]).mean(1)
        return Imagined(distance.cpu().numpy().astype(np.float64), self._world.dynamics.config.action_repeat)

    def _prior(self, history: Tensor, tensors: list[Tensor]) -> Tensor | None:
        if self._world.policy is None or not self.config.prior_samples:
            return None
        return self._world.prior_actions(history, tensors, self.config.horizon)

    def _remembered(self, state: Tensor) -> Tensor:
        """Return the states (history, S) that a prediction starts from. An episode's first state fills the history."""
        if self._history is None:
            return state.expand(self._world.dynamics.config.history, -1)
        return torch.cat([self._history[1:], state[None]])

    def _goal(self, observation: Observation) -> Tensor:
        """Return the goal latent's part of a state, (latent_part,). A goal has no joint positions."""
        assert observation.goal is not None
        goal = torch.tensor(observation.goal, dtype=torch.float32, device=self._world.device)
        return self._world.dynamics.conditioning.of_latent(goal)

    def _warm_up(self) -> None:
        config = self._world.dynamics.conditioning.config
        joints = np.zeros(self.context.action_size)
        latent = np.zeros((max(config.latent_rows) + 1, config.latent_dim), np.float32)
        self._begin(0)
        for _ in range(2):
            self._act(Observation(0, latent, joints, joints, goal=latent), 0.0)


def _weighted_sum(weights: Tensor, sequences: Tensor) -> Tensor:
    """Return the sum (H, n) of `sequences` (E, H, n) times their `weights` (E,)."""
    return (weights[:, None, None] * sequences).sum(0)
