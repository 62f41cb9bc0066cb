"""Evaluation in one process: the very environment, encoder and planner code that the nodes wrap, without ROS.

At batch size one it gives the joint positions that the graph gives in lockstep, step by step; larger batches encode
the frames of many episodes at once, for large evaluations.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import numpy as np

from sim_bridge.env import SimConfig, SimEnv, SimStep
from sim_bridge.score import Episode, ScoreKeeper
from vjepa_interfaces.errors import VjepaError, unknown_name
from vjepa_interfaces.messages import LAST
from vjepa_interfaces.statistics import Durations
from vjepa_perception.clip import ClipBuffer
from vjepa_perception.encoder import Encoder
from vjepa_planner.contract import GOAL, Observation, Planner, PlannerContext
from vjepa_planner.registry import load_planner
from vjepa_training.evaluation.goals import GOALS, goal_latent


@dataclass(frozen=True)
class RolloutConfig:
    """What to roll out.

    Attributes:
        planner: name of the planner.
        options: its options.
        sim: the simulation; episode i uses `sim.seed + i` for environment and planner.
        episodes: how many.
        batch_size: episodes that run side by side.
        device: where the planner's networks run.
        goal: what a planner that seeks a goal latent is given, `same` or `other`, see `goal_latent`; None for none.
    """

    planner: str
    sim: SimConfig
    options: dict[str, Any] = field(default_factory=dict)
    episodes: int = 20
    batch_size: int = 1
    device: str = "cpu"
    goal: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be run, with a VjepaError."""
        for name in ("episodes", "batch_size"):
            if getattr(self, name) < 1:
                raise VjepaError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.goal not in (None, *GOALS):
            raise unknown_name("goal", self.goal, GOALS)


class Lane:
    """One episode at a time: an environment, a clip and a planner."""

    def __init__(self, config: RolloutConfig, encoder: Encoder):
        self._config = config
        self._encoder = encoder
        self.env = SimEnv(config.sim)
        context = PlannerContext.of(self.env.limits, self.env.control_period_s, config.device)
        self.planner: Planner = load_planner(config.planner, config.options, context)
        if self.planner.encoder_fingerprint is not None:
            self.planner.check_encoder(encoder.fingerprint, encoder.name)
        if GOAL in self.planner.needs and config.goal is None:
            raise VjepaError(
                f"planner '{config.planner}' seeks a goal latent, and none is given; add --goal same or --goal other "
                f"to vjepa eval --through process, or give the planner another objective"
            )
        self.step: SimStep
        self.goal: np.ndarray | None = None

    def begin(self, episode: int) -> None:
        """Begin the episode of this number with a fresh clip and the planner reset to its seed."""
        self.clip = ClipBuffer(self._encoder.clip_frames)
        self.score = ScoreKeeper(self._config.sim.task, effort_limit=self.env.limits.limit)
        self.planner.reset(self._config.sim.seed + episode)
        if self._config.goal is not None:
            self.goal = goal_latent(self._config.sim, self._encoder, episode, self._config.goal)
        self._arrive(self.env.reset(episode))

    def act(self, latent: np.ndarray) -> float:
        """Plan from the latent (rows, dimension) of the present frame and step; return the seconds planned."""
        self._measure(latent)
        step = self.step
        observation = Observation(
            stamp_ns=step.stamp_ns,
            latent=latent,
            joint_position=step.joint_position,
            joint_velocity=step.joint_velocity,
            target=step.target if "target" in self.planner.needs else None,
            goal=self.goal,
        )
        started = time.monotonic()
        plan = self.planner.plan(observation, None)
        planned_s = time.monotonic() - started
        effort, _ = self.env.limits.checked(None, self.env.limits.to_effort(plan.action))
        self.score.episodes[-1].imagined.append(plan.imagined)
        self.score.episodes[-1].novelty.append(plan.novelty)
        self._arrive(self.env.step(effort))
        if self.goal is not None and self.step.step_type == LAST:
            self._measure(self._encoder.encode([self.frames])[0])
        return planned_s

    def _measure(self, latent: np.ndarray) -> None:
        """Keep the distance of the present frame's latent to the goal latent: Euclidean, of their mean rows."""
        if self.goal is not None:
            self.score.episodes[-1].goal_distances.append(float(np.linalg.norm(latent[0] - self.goal[0])))

    def _arrive(self, step: SimStep) -> None:
        self.step = step
        self.frames = self.clip.push(step.stamp_ns, self._encoder.preprocess(self.env.render()))
        self.score.apply(step.stamp_ns, step.joint_effort)
        self.score.add(step.stamp_ns, step.reward, step.step_type, step.target, step.fingertip)
        self.score.episodes[-1].distances.append(self.score.distance_m)


def rollout(
    config: RolloutConfig,
    encoder: Encoder,
    on_step: Callable[[int, SimStep], None] | None = None,
    on_episode: Callable[[int, Episode], None] | None = None,
    on_latent: Callable[[int, SimStep, np.ndarray], None] | None = None,
    partial: bool = False,
) -> tuple[list[Episode], Durations]:
    """Run the episodes and return their scores in order, and how long encoding and planning took a step.

    Args:
        config: what to roll out.
        encoder: the encoder whose latents the planner gets; every frame passes it, whether the planner reads it or not.
        on_step: called with the episode's number and each of its steps, the FIRST included.
        on_episode: called with the number and the score of each episode that ended.
        on_latent: called with the episode's number, each step that is planned from and its latent, (rows, dimension).
        partial: whether an interruption gives the episodes that have ended, up to the first that has not.

    Raises:
        VjepaError: an unknown task or planner, options it refuses, or a bundle made for another encoder.
    """
    lanes = [Lane(config, encoder) for _ in range(min(config.batch_size, config.episodes))]
    scores: dict[int, Episode] = {}
    durations = Durations()
    running: dict[int, Lane] = {}
    waiting = list(range(config.episodes))
    idle = list(lanes)
    try:
        while running or waiting:
            while idle and waiting:
                episode, lane = waiting.pop(0), idle.pop()
                lane.begin(episode)
                running[episode] = lane
                if on_step:
                    on_step(episode, lane.step)
            started = time.monotonic()
            latents = encoder.encode([lane.frames for lane in running.values()])
            encoded_s = time.monotonic() - started
            for (episode, lane), latent in zip(list(running.items()), latents, strict=True):
                if on_latent:
                    on_latent(episode, lane.step, latent)
                durations.add(encoded_s + lane.act(latent))
                if on_step:
                    on_step(episode, lane.step)
                if lane.step.step_type == LAST:
                    scores[episode] = lane.score.finished[0]
                    if on_episode:
                        on_episode(episode, scores[episode])
                    idle.append(running.pop(episode))
    except KeyboardInterrupt:
        if not partial or 0 not in scores:
            raise
    finally:
        for lane in lanes:
            lane.env.close()
    return [scores[episode] for episode in takewhile(scores.__contains__, range(config.episodes))], durations
