"""`random`: uniform actions, the lower bound of every comparison."""

import numpy as np

from vjepa_planner.contract import Observation, Plan, Planner


class RandomPlanner(Planner):
    """Draws every action uniformly from [-1, 1]^n with a generator that `reset` seeds. It reads no inputs."""

    _generator: np.random.Generator

    def _begin(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)

    def _act(self, observation: Observation, deadline_s: float | None) -> Plan:
        return Plan(self._generator.uniform(-1.0, 1.0, self.context.action_size))
