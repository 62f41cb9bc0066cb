"""From the stack's parameters to an evaluation in one process, with the same settings the nodes would get."""

from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any

import numpy as np

from sim_bridge.env import SimConfig
from sim_bridge.score import Episode
from sim_bridge.tasks import task_named
from vjepa_interfaces.errors import unknown_name
from vjepa_interfaces.parameters import read_parameters
from vjepa_interfaces.statistics import Durations
from vjepa_perception.encoder import Encoder, EncoderConfig, load_encoder
from vjepa_planner.registry import available, options_of, refuse_unknown_planners
from vjepa_training.evaluation.rollout import RolloutConfig, rollout
from vjepa_training.evaluation.score import Protocol

NODES_OWN = {
    "sim_bridge": {
        "episodes",
        "lockstep",
        "lockstep_retry_s",
        "playback_speed",
        "command_input",
        "command_timeout_s",
        "publish_clock",
    },
    "vjepa_perception": {"input_transport"},
    "vjepa_planner": {
        "planners",
        "planner",
        "fallbacks",
        "fallback_steps",
        "disagreement_limit",
        "novelty_limit",
        "seed",
        "lockstep",
        "joint_names",
        "effort_limit",
        "control_period_s",
        "derive_velocity",
        "latent_timeout_s",
        "joint_state_max_age_s",
        "device",
        "threads",
    },
}
"""Parameters of the nodes that are no field of what they wrap: known, and mostly without meaning in one process."""


def evaluate(
    parameters: dict[str, dict[str, Any]],
    protocol: Protocol,
    episodes: int,
    seed: int,
    batch_size: int = 1,
    on_progress: Callable[[int, float], None] | None = None,
    on_step: Callable[[int, Any], None] | None = None,
    goal: str | None = None,
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
        goal: `same` or `other`: the goal latent of planners that seek one, see `goals.goal_latent`; None for none.

    An interruption after the first episode has ended returns the scores that there are, fewer than `episodes`.

    Raises:
        VjepaError: an unknown task, planner, encoder or option; the message lists the valid ones.
        KeyboardInterrupt: before the first episode has ended.
    """
    task_named(parameters["sim_bridge"]["task"])
    refuse_unknown_planners(parameters["vjepa_planner"])
    sim, perception = (
        _wrapped(parameters, "sim_bridge", SimConfig),
        _wrapped(parameters, "vjepa_perception", EncoderConfig),
    )
    planner = parameters["vjepa_planner"]
    _refuse_unknown_parameters("vjepa_planner", planner, set(), available())
    name = planner["planner"]
    sim |= {"seed": seed, "episode_steps": protocol.episode_steps, "effort_limit": sim.get("effort_limit") or None}
    config = RolloutConfig(
        planner=name,
        options=options_of(name, planner),
        sim=read_parameters(SimConfig, sim, of="sim_bridge"),
        episodes=episodes,
        batch_size=batch_size,
        device=planner.get("device", "cpu"),
        goal=goal,
    )
    encoder = load_encoder(read_parameters(EncoderConfig, perception, of="vjepa_perception"))
    returns: list[float] = []

    def finished(number: int, episode: Episode) -> None:
        returns.append(episode.episode_return)
        if on_progress:
            on_progress(len(returns), float(np.mean(returns)))

    scores, durations = rollout(config, encoder, on_step, finished, partial=True)
    return scores, encoder, durations


def _wrapped(parameters: dict[str, dict[str, Any]], node: str, config_class: type) -> dict[str, Any]:
    """Return those parameters of a node that configure what it wraps, whose configuration is a `config_class`."""
    names = {field.name for field in fields(config_class)}
    _refuse_unknown_parameters(node, parameters[node], names, ())
    return {name: value for name, value in parameters[node].items() if name in names}


def _refuse_unknown_parameters(node: str, values: dict[str, Any], wrapped: set[str], plugins: Iterable[str]) -> None:
    """Refuse what the node itself would refuse; `plugins` are the names `NAME` that have parameters `NAME.OPTION`."""
    valid = wrapped | NODES_OWN[node] | {"use_sim_time"}
    for name in values:
        if name not in valid and name.split(".")[0] not in plugins:
            raise unknown_name(f"parameter of {node}:", name, valid)
