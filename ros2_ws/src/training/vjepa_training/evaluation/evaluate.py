"""Evaluate the planner of the stack's parameters without ROS, with the same settings that the nodes would get."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from sim_bridge.score import Episode
from sim_bridge.sim_parameters import sim_config
from sim_bridge.tasks import task_named
from vjepa_interfaces.bundle import read_bundle
from vjepa_interfaces.encoder_info import EncoderInfo
from vjepa_interfaces.parameters import read_node_parameters
from vjepa_interfaces.statistics import Durations
from vjepa_perception.encoder import identify_encoder, load_encoder
from vjepa_perception.perception_parameters import encoder_config
from vjepa_planner.planner_parameters import PlannerParameters
from vjepa_planner.registry import available, options_of, refuse_unknown_planners
from vjepa_training.evaluation.rollout import OnStep, RolloutConfig, rollout, rollout_in_workers
from vjepa_training.evaluation.score import Protocol


def evaluate(
    parameters: dict[str, dict[str, Any]],
    protocol: Protocol,
    episodes: int,
    seed: int,
    batch_size: int = 1,
    on_progress: Callable[[int, float], None] | None = None,
    on_step: OnStep | None = None,
    goal: str | None = None,
    workers: int = 1,
    ray_address: str | None = None,
) -> tuple[list[Episode], EncoderInfo, Durations]:
    """Evaluate the planner and the encoder that `parameters` name, and return scores, `Encoder.info` and timing.

    An interruption after the end of the first episode returns the scores so far, fewer than `episodes`.

    Args:
        parameters: parameters of every node, by node name, flat, as `vjepa_bringup.graph.merged_parameters` returns
            them.
        protocol: length of an episode.
        episodes: number of episodes; episode i uses `seed + i`.
        seed: see `episodes`.
        batch_size: number of episodes that run at the same time.
        on_progress: called with the number of finished episodes and their mean return.
        on_step: called with an episode's number and each of its `SimStep`s; all episodes then run in this process.
        goal: `same` or `other`: the goal latent of planners that seek one, see `goals.goal_latent`; None for none.
        workers: largest number of processes, which share the batches; the scores do not depend on it.
        ray_address: run the batches on the Ray cluster at this address instead, see `run_on_ray`.

    Raises:
        VjepaError: an unknown task, planner, encoder or option; the message lists the valid ones. Or a process failed
            or died too often.
        KeyboardInterrupt: an interruption before the first episode has ended.
    """
    task_named(parameters["sim_bridge"]["task"])
    refuse_unknown_planners(parameters["vjepa_planner"])
    perception = encoder_config(parameters["vjepa_perception"])
    planner = read_node_parameters(PlannerParameters, parameters["vjepa_planner"], "vjepa_planner", available())
    config = RolloutConfig(
        planner=planner.planner,
        options=options_of(planner.planner, parameters["vjepa_planner"]),
        sim=sim_config(parameters["sim_bridge"], seed=seed, episode_steps=protocol.episode_steps),
        episodes=episodes,
        batch_size=batch_size,
        device=planner.device,
        goal=goal,
    )
    returns: list[float] = []

    def finished(number: int, episode: Episode) -> None:
        returns.append(episode.episode_return)
        if on_progress:
            on_progress(len(returns), float(np.mean(returns)))

    if on_step is None and (ray_address is not None or min(workers, len(config.batches)) > 1):
        return rollout_in_workers(config, perception, workers, finished, ray_address)
    encoder = load_encoder(perception)
    scores, durations = rollout(config, encoder, on_step, finished, partial=True)
    return scores, encoder.info(), durations


def refuse_misfits(parameters: Mapping[str, Mapping[str, Any]], bundles: Iterable[str]) -> None:
    """Refuse an impossible simulation or encoder, and bundles that were trained on another encoder.

    Args:
        parameters: parameters of every node, by node name, flat.
        bundles: bundles that the planner reads.

    Raises:
        VjepaError: as `sim_config`, `identify_encoder` and `Bundle.check_encoder`.
    """
    sim_config(parameters["sim_bridge"])
    name, fingerprint = identify_encoder(encoder_config(parameters["vjepa_perception"]))
    for bundle in map(read_bundle, bundles):
        if "encoder_fingerprint" in bundle.config:
            bundle.check_encoder(fingerprint, name)
