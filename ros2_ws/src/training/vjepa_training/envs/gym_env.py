"""Offer the simulation as a Gymnasium environment with latents, for any reinforcement learning library.

    env = ReacherLatents(SimConfig(episode_steps=100), load_encoder(EncoderConfig("models/encoder-small")))
    observation, _ = env.reset(seed=7)
    observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())

Observations have the content and the numbers that a planner receives: never target or fingertip.
"""

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from sim_bridge.env import SimConfig, SimEnv
from sim_bridge.sim_parameters import MAX_SEED
from vjepa_interfaces.errors import VjepaError
from vjepa_perception.encoder import Encoder
from vjepa_planner.models.conditioning import Conditioning
from vjepa_training.envs.episode_stepper import EpisodeStepper

Observed = dict[str, np.ndarray]


class ReacherLatents(gymnasium.Env):
    """An arm of n joints behind a camera and a frozen encoder.

    Observations: `latent` (rows, dimension) float32; `joint_position` (n,) rad and `joint_velocity` (n,) rad/s, both
    float64. Actions: (n,) in [-1, 1], shares of the effort limit; larger values are clipped. Rewards are the task's. An
    episode is truncated after `sim.episode_steps`, and terminated when the task itself ends it. `info` is empty.

    `reset(seed=s)` begins the episode of seed s, the first episode of `vjepa eval --seed s`, and seeds `np_random` with
    s. `reset()` begins an episode with a seed drawn from `np_random`, so a seed s determines all later episodes.
    Without any seed, `np_random` takes the system's entropy, as in Gymnasium; `sim.seed` has no effect. `begin` and
    `advance` are `reset` and `step` without the encoder, for callers that encode the clips of several environments at
    once.

    A vectorised environment of several processes must start them by `spawn` or `forkserver`. After a use of torch or
    OpenGL, a fork of the process is refused, see `vjepa_interfaces.forked`.

    Attributes:
        encoder: the given encoder.
        arm: its joints, and the torque of an action of 1.
        control_period_s: seconds from one observation to the next.
    """

    action_space: spaces.Box
    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}
    render_mode = "rgb_array"

    def __init__(self, sim: SimConfig, encoder: Encoder):
        """Compile the task's model.

        Args:
            sim: the simulation; its `seed` has no effect.
            encoder: the encoder, which several environments may share.

        Raises:
            VjepaError: as `SimEnv`.
        """
        self.encoder = encoder
        env = SimEnv(replace(sim, seed=0))  # With this, an episode's number is its seed.
        self.arm = env.limits
        self.control_period_s = env.control_period_s
        self._stepper = EpisodeStepper(env, encoder)
        self.metadata = {**self.metadata, "render_fps": round(1.0 / self.control_period_s)}
        joints = (len(self.arm.joint_names),)
        self.action_space = spaces.Box(-1.0, 1.0, joints, np.float32)
        self.observation_space = spaces.Dict(
            {
                "latent": spaces.Box(-np.inf, np.inf, encoder.shape, np.float32),
                "joint_position": spaces.Box(-np.inf, np.inf, joints, np.float64),
                "joint_velocity": spaces.Box(-np.inf, np.inf, joints, np.float64),
            }
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observed, dict[str, Any]]:
        """Begin an episode and return its first observation; there are no options.

        Raises:
            VjepaError: the simulation takes no such seed.
            ForkedError: this process was forked after the encoder or the renderer had been used.
        """
        if seed is not None:
            _check_seed(seed)
        super().reset(seed=seed)
        self.begin(seed)
        return self.observed(self._encoded()), {}

    def step(self, action: np.ndarray) -> tuple[Observed, float, bool, bool, dict[str, Any]]:
        """Act for one control period; return observation, reward, terminated, truncated and an empty dictionary.

        Raises:
            VjepaError: the action is not finite or not of shape (n,), or no episode runs.
        """
        reward, terminated, truncated = self.advance(action)
        return self.observed(self._encoded()), reward, terminated, truncated, {}

    def begin(self, seed: int | None = None) -> None:
        """Begin the episode of `seed` (None: one drawn by `np_random`); the caller then encodes its first `clip`."""
        seed = int(self.np_random.integers(MAX_SEED + 1)) if seed is None else seed
        _check_seed(seed)
        self._stepper.begin(seed)

    def advance(self, action: np.ndarray) -> tuple[float, bool, bool]:
        """Act, (n,) in [-1, 1]; return reward, terminated and truncated. The caller then encodes the new `clip`."""
        self._stepper.act(action)
        step = self._stepper.step
        terminated = self._stepper.is_over and step.discount == 0
        return step.reward, terminated, self._stepper.is_over and not terminated

    @property
    def clip(self) -> tuple[Any, ...]:
        """Return the frames of the present observation, oldest first, as `Encoder.preprocess` returns them."""
        return self._stepper.clip

    def observed(self, latent: np.ndarray) -> Observed:
        """Return the observation of the present step, whose `clip` encodes to `latent` (rows, dimension)."""
        step = self._stepper.step
        return {"latent": latent, "joint_position": step.joint_position, "joint_velocity": step.joint_velocity}

    def render(self) -> np.ndarray:
        """Return the camera's view that the encoder last received: (height, width, 3) uint8 RGB."""
        return self._stepper.frame

    def close(self) -> None:
        """Close renderer and physics, but not the encoder."""
        self._stepper.env.close()

    def _encoded(self) -> np.ndarray:
        return self.encoder.encode([self.clip])[0]


def _check_seed(seed: int) -> None:
    if not 0 <= seed <= MAX_SEED:
        raise VjepaError(f"seed is {seed}; expected 0 to {MAX_SEED}")


class ConditionedStates(gymnasium.ObservationWrapper):
    """Wrap a `ReacherLatents` so that its observations are states of a world model, (S,) float32.

    A state is a frozen projection of the latent, then sine, cosine and velocity of the joints if the model reads them.
    """

    env: ReacherLatents

    def __init__(self, env: ReacherLatents, conditioning: Conditioning):
        """Wrap `env`.

        Raises:
            VjepaError: `conditioning` is for an arm of another number of joints.
        """
        super().__init__(env)
        config, joints = conditioning.config, env.action_space.shape[0]
        if config.joints != joints:
            raise VjepaError(
                f"the dynamics model is for an arm of {config.joints} joints, but this arm has {joints}; "
                "give a dynamics model of this arm"
            )
        self._conditioning = conditioning
        self.observation_space = spaces.Box(-np.inf, np.inf, (config.state_size,), np.float32)

    @torch.inference_mode()
    def observation(self, observation: Observed) -> np.ndarray:
        """Return the state of an observation.

        Raises:
            VjepaError: the latent has another dimension, or too few rows.
        """
        parts = (observation[name] for name in ("latent", "joint_position", "joint_velocity"))
        return self._conditioning(*(torch.tensor(part, dtype=torch.float32) for part in parts)).numpy()
