"""Make goal latents: from a picture, or from a frame that the expert reached in an environment of its own."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from sim_bridge.env import SimConfig, SimEnv
from sim_bridge.tasks import expert_of
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.image_codec import compressed_to_rgb
from vjepa_perception.encoder import Encoder, EncoderConfig, load_encoder
from vjepa_planner.contract import PlannerContext
from vjepa_planner.registry import load_planner
from vjepa_training.envs.episode_stepper import EpisodeStepper

SAME, OTHER = "same", "other"
GOALS = (SAME, OTHER)
OTHER_SEED = 1_000_000_000
"""Difference between the seed of another target and the episode's seed."""


def goal_latent(sim: SimConfig, encoder: Encoder, episode: int, goal: str) -> np.ndarray:
    """Return the latent, float32 of (rows, dimension), of the last frame of an episode that the expert drove.

    Args:
        sim: the simulation whose episodes shall reach the goal; the expert's episode has their length.
        encoder: encoder of the latent; every frame passes a clip as in those episodes.
        episode: number of the episode that shall reach the goal.
        goal: `same`: the expert drives the episode of that number, with the same target and start; `other`: it drives
            an episode of a distant seed.

    Raises:
        VjepaError: no scripted expert knows the task.
    """
    name = expert_of(sim.task, "there is no goal that one would reach")
    seed = sim.seed + (OTHER_SEED if goal == OTHER else 0)
    with SimEnv(replace(sim, seed=seed)) as env:
        expert = load_planner(name, {}, PlannerContext.of(env.limits, env.control_period_s))
        expert.reset(seed + episode)
        stepper = EpisodeStepper(env, encoder)
        stepper.begin(episode)
        while not stepper.is_over:
            stepper.act(expert.plan(stepper.observation(expert)).action)
        return encoder.encode([stepper.clip])[0]


def read_picture(path: Path) -> np.ndarray:
    """Return the picture in a PNG or JPEG file: uint8 of shape (height, width, 3), red first.

    Raises:
        VjepaError: there is no such file, or it is not a picture.
    """
    try:
        return compressed_to_rgb(SimpleNamespace(format="", data=path.read_bytes()))
    except OSError as error:
        raise VjepaError(f"picture {path} cannot be read: {error.strerror}; expected a PNG or JPEG file") from error
    except VjepaError as error:
        raise VjepaError(f"picture {path} cannot be read: {error}") from error


def picture_latent(picture: np.ndarray, encoder: dict[str, Any]) -> tuple[np.ndarray, str]:
    """Return the latent of a picture that stands still for a whole clip, and the fingerprint of its encoder.

    Args:
        picture: uint8 of shape (height, width, 3), red first, as the camera would show it.
        encoder: fields of `EncoderConfig`.

    Returns:
        The latent, float32 of (rows, dimension), and the fingerprint.

    Raises:
        VjepaError: there is no such encoder, or it cannot run.
    """
    loaded = load_encoder(EncoderConfig(**encoder))
    return still_latent(picture, loaded), loaded.fingerprint


def still_latent(picture: np.ndarray, encoder: Encoder) -> np.ndarray:
    """Return the latent, float32 of (rows, dimension), of a picture (height, width, 3) that stands still for a clip."""
    frame = encoder.preprocess(picture)
    return encoder.encode([[frame] * encoder.clip_frames])[0]
