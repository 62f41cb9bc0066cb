"""Step episodes of the simulation for an encoder: an environment, and the clip of its frames.

Evaluation, collection, goal latents and the Gymnasium environment all step their episodes here, so a policy receives
the same numbers in each of them.
"""

from typing import Any

import numpy as np

from sim_bridge.env import SimEnv, SimStep
from vjepa_interfaces.messages import LAST
from vjepa_perception.clip import ClipBuffer
from vjepa_perception.encoder import Encoder
from vjepa_planner.contract import TARGET, Observation, Planner

NO_LATENT = np.zeros((1, 1), np.float32)
"""The latent in observations for planners that read no latent."""


class EpisodeStepper:
    """Step an environment, render each step and keep the clip that ends with it.

    The caller encodes the clips, so it can encode the clips of several steppers with one encoder at once.

    Attributes:
        env: the environment, which the caller closes.
        step: the present step.
        frame: the camera's view of it, (height, width, 3) uint8 RGB.
        clip: its frames to encode, oldest first, as `Encoder.preprocess` returns them; empty without an encoder.
    """

    step: SimStep
    frame: np.ndarray
    clip: tuple[Any, ...] = ()

    def __init__(self, env: SimEnv, encoder: Encoder | None):
        self.env = env
        self._preprocess = encoder.preprocess if encoder else None
        self._frames = ClipBuffer(encoder.clip_frames if encoder else 1)

    @property
    def is_over(self) -> bool:
        """Return whether the present step is the last one of its episode."""
        return self.step.step_type == LAST

    def begin(self, episode: int) -> None:
        """Begin the episode of the number `episode`, whether or not the last one is over."""
        self._arrive(self.env.reset(episode))

    def act(self, action: np.ndarray) -> np.ndarray:
        """Apply an action, (n,) in [-1, 1], for one control period and return the commanded efforts, (n,) N·m.

        Raises:
            VjepaError: the action is not finite or not of shape (n,), or no episode runs.
        """
        effort = self.env.limits.effort_of(action)
        self._arrive(self.env.step(effort))
        return effort

    def observation(
        self, planner: Planner, latent: np.ndarray = NO_LATENT, goal: np.ndarray | None = None
    ) -> Observation:
        """Return the observation of the present step for `planner`, with the target only if the planner needs it.

        Args:
            planner: the planner that receives the observation.
            latent: latent of `clip`, (rows, dimension) float32.
            goal: a latent to reach, of the same shape.
        """
        step = self.step
        return Observation(
            stamp_ns=step.stamp_ns,
            latent=latent,
            joint_position=step.joint_position,
            joint_velocity=step.joint_velocity,
            target=step.target if TARGET in planner.needs else None,
            goal=goal,
        )

    def _arrive(self, step: SimStep) -> None:
        self.step = step
        self.frame = self.env.render()
        if self._preprocess:
            self.clip = self._frames.push(step.stamp_ns, self._preprocess(self.frame))
