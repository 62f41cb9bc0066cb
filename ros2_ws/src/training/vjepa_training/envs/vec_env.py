"""Environments side by side, for Stable-Baselines3: the clips of all of them pass the encoder at once."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from vjepa_training.envs.gym_env import ConditionedStates, ReacherLatents


class SideBySide(DummyVecEnv):
    """K environments of one encoder, each of which begins a new episode where one ends.

    An action is held for some control steps, whose rewards are added up; only then the clip is encoded.

    Episodes take seeds in the order they begin, whichever environment they run in: no two are alike. Observations are
    states (K, S); that of an episode's end is `terminal_observation` in its environment's info, as in the base class.

    Attributes:
        next_seed: of the episode that begins next.
    """

    def __init__(self, environments: Sequence[ConditionedStates], seed: int, action_repeat: int = 1):
        """Take the environments.

        Args:
            environments: of one encoder and one conditioning.
            seed: of the first episode; what the base class' `seed` is given does not matter.
            action_repeat: control steps that an action is held, less where an episode ends meanwhile.
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
