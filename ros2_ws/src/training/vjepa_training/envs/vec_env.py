"""Run several environments for Stable-Baselines3, and encode the clips of all of them at once."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from vjepa_training.envs.gym_env import ConditionedStates, ReacherLatents


class SideBySide(DummyVecEnv):
    """A vectorised environment of K environments with one encoder; a new episode follows each ended one.

    An action is held for several control steps, and their rewards are summed; only then is the clip encoded.

    Episodes take consecutive seeds in the order in which they begin, in whichever environment, so no two are alike.
    Observations are states (K, S). As in the base class, `terminal_observation` in the info is an episode's last state.

    Attributes:
        next_seed: seed of the next episode.
    """

    def __init__(self, environments: Sequence[ConditionedStates], seed: int, action_repeat: int = 1):
        """Keep the environments.

        Args:
            environments: environments with one encoder and one state projection.
            seed: seed of the first episode; the argument of the base class' `seed` has no effect.
            action_repeat: control steps for which an action is held, or fewer if the episode ends earlier.
        """
        waiting = iter(environments)
        super().__init__([lambda: next(waiting)] * len(environments))
        self._environments = environments
        self.next_seed = seed
        self._action_repeat = action_repeat

    def reset(self) -> np.ndarray:
        """Begin an episode in every environment and return the states, (K, S) float32."""
        return self._begun(range(self.num_envs))

    def step_wait(self) -> VecEnvStepReturn:
        """Act in every environment; return states (K, S), rewards (K,), whether an episode ended (K,), and infos."""
        outcomes = [self._held(env.env, action) for env, action in zip(self._environments, self.actions, strict=True)]
        rewards, terminated, truncated = (np.array(part) for part in zip(*outcomes, strict=True))
        states = self._states(range(self.num_envs))
        infos: list[dict[str, Any]] = [{"TimeLimit.truncated": bool(cut)} for cut in truncated]
        ended = np.flatnonzero(terminated | truncated)
        for number in ended:
            infos[number]["terminal_observation"] = states[number].copy()
        if len(ended):
            states[ended] = self._begun(ended)
        return states, rewards.astype(np.float32), terminated | truncated, infos

    def _held(self, environment: ReacherLatents, action: np.ndarray) -> tuple[float, bool, bool]:
        """Hold an action; return the sum of the rewards, and whether the episode was terminated or truncated."""
        earned = 0.0
        for _ in range(self._action_repeat):
            reward, terminated, truncated = environment.advance(action)
            earned += reward
            if terminated or truncated:
                break
        return earned, terminated, truncated

    def _begun(self, numbers: Iterable[int]) -> np.ndarray:
        """Begin an episode in the environments of these numbers and return their states."""
        for number in numbers:
            self._environments[number].env.begin(self.next_seed)
            self.next_seed += 1
        return self._states(numbers)

    def _states(self, numbers: Iterable[int]) -> np.ndarray:
        chosen = [self._environments[number] for number in numbers]
        latents = chosen[0].env.encoder.encode([environment.env.clip for environment in chosen])
        pairs = zip(chosen, latents, strict=True)
        return np.stack([environment.observation(environment.env.observed(latent)) for environment, latent in pairs])
