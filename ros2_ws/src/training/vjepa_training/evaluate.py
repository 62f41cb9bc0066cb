"""From the stack's parameters to an evaluation in one process, with the same settings the nodes would get."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np

from sim_bridge.env import SimConfig
from vjepa_interfaces.parameters import read_parameters
from vjepa_interfaces.statistics import Durations
from vjepa_perception.encoder import Encoder, EncoderConfig, load_encoder
from vjepa_training.rollout import RolloutConfig, rollout
from vjepa_training.score import Episode, Protocol


def evaluate(
    parameters: dict[str, dict[str, Any]],
    protocol: Protocol,
    episodes: int,
    seed: int,
    batch_size: int = 1,
    on_progress: Callable[[int, float], None] | None = None,
    on_step: Callable[[int, Any], None] | None = None,
) -> tuple[list[Episode], Encoder, Durations]:
    """Evaluate the planner that `parameters` name, on the encoder they name, and return scores, encoder and timing.

    Args:
        parameters: of every node, by node name, flat, as `vjepa_bringup.graph.merged_parameters` gives them.
        protocol: how long an episode is.
        episodes: how many; episode i uses `seed + i`.
        seed: see `episodes`.
        batch_size: episodes side by side.
        on_progress: called with the number of finished episodes and their mean return.
        on_step: called with an episode's number and each of its `SimStep`s.

    Raises:
        VjepaError: an unknown task, planner, encoder or option; the message lists the valid ones.
    """
    sim, perception, planner = (parameters[node] for node in ("sim_bridge", "vjepa_perception", "vjepa_planner"))
    encoder = load_encoder(read_parameters(EncoderConfig, _only(perception, EncoderConfig)))
    name = planner["planner"]
    config = RolloutConfig(
        planner=name,
        options={key.partition(".")[2]: value for key, value in planner.items() if key.startswith(f"{name}.")},
        sim=SimConfig(
            task=sim["task"],
            seed=seed,
            image_size=tuple(sim["image_size"]),
            episode_steps=protocol.episode_steps,
            effort_limit=sim.get("effort_limit") or None,
            randomize_camera=sim.get("randomize_camera", False),
            randomize_appearance=sim.get("randomize_appearance", False),
        ),
        episodes=episodes,
        batch_size=batch_size,
        device=planner.get("device", "cpu"),
    )
    returns: list[float] = []

    def finished(number: int, episode: Episode) -> None:
        returns.append(episode.episode_return)
        if on_progress:
            on_progress(len(returns), float(np.mean(returns)))

    scores, durations = rollout(config, encoder, on_step, finished)
    return scores, encoder, durations


def _only(values: dict[str, Any], config_class: type) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in {field.name for field in fields(config_class)}}
