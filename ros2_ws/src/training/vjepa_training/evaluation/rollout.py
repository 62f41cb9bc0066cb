"""Evaluate with the environment, encoder and planner code of the nodes, without ROS, in one process or several.

At batch size one, the joint positions equal those of the graph in lockstep, step by step. Larger batches encode the
frames of many episodes at once, for large evaluations.

An encoder's latents may differ in their last bits with the size of its batch. So the division into batches is fixed.
Batch b of size K has the episodes b K to (b + 1) K - 1. No other episode joins it when one of them ends. Processes take
whole batches, so scores do not depend on the number of processes.
"""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import numpy as np

from sim_bridge.env import SimConfig, SimEnv, SimStep
from sim_bridge.score import Episode, ScoreKeeper
from vjepa_interfaces.encoder_info import EncoderInfo
from vjepa_interfaces.errors import VjepaError, unknown_name
from vjepa_interfaces.statistics import Durations
from vjepa_perception.encoder import Encoder, EncoderConfig, load_encoder
from vjepa_planner.contract import GOAL, Planner, PlannerContext
from vjepa_planner.registry import load_planner
from vjepa_training.envs.episode_stepper import EpisodeStepper
from vjepa_training.evaluation.goals import GOALS, goal_latent
from vjepa_training.ray_workers import run_on_ray
from vjepa_training.workers import Send, run_workers

OnStep = Callable[[int, SimStep], None]
OnEpisode = Callable[[int, Episode], None]
OnLatent = Callable[[int, SimStep, np.ndarray], None]
_BatchResult = tuple[dict[int, Episode], list[float], EncoderInfo]


@dataclass(frozen=True)
class RolloutConfig:
    """Settings of a rollout.

    Attributes:
        planner: name of the planner.
        options: its options.
        sim: the simulation; episode i uses `sim.seed + i` for environment and planner.
        episodes: number of episodes.
        batch_size: number of episodes that run at the same time.
        device: device of the planner's networks.
        goal: goal latent of a planner that seeks one, `same` or `other`, see `goal_latent`; None for none.
    """

    planner: str
    sim: SimConfig
    options: dict[str, Any] = field(default_factory=dict)
    episodes: int = 20
    batch_size: int = 1
    device: str = "cpu"
    goal: str | None = None

    def __post_init__(self) -> None:
        """Refuse impossible settings with a VjepaError."""
        for name in ("episodes", "batch_size"):
            if getattr(self, name) < 1:
                raise VjepaError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.goal not in (None, *GOALS):
            raise unknown_name("goal", self.goal, GOALS)

    @property
    def batches(self) -> list[range]:
        """The numbers of the episodes of each batch."""
        numbers = range(self.episodes)
        return [numbers[first : first + self.batch_size] for first in numbers[:: self.batch_size]]


class _Driver:
    """A planner that drives one environment, episode after episode, and the score of the present episode."""

    def __init__(self, config: RolloutConfig, encoder: Encoder):
        self._config = config
        self._encoder = encoder
        env = SimEnv(config.sim)
        self.stepper = EpisodeStepper(env, encoder)
        context = PlannerContext.of(env.limits, env.control_period_s, config.device)
        self._planner: Planner = load_planner(config.planner, config.options, context)
        if self._planner.encoder_fingerprint is not None:
            self._planner.check_encoder(encoder.fingerprint, encoder.name)
        if GOAL in self._planner.needs and config.goal is None:
            raise VjepaError(
                f"planner '{config.planner}' seeks a goal latent, and none is given; add --goal same or --goal other "
                f"to vjepa eval --through process, or give the planner another objective"
            )
        self._goal: np.ndarray | None = None
        self._scores = ScoreKeeper(config.sim.task, env.limits)

    @property
    def score(self) -> Episode:
        """Return the score of the episode so far."""
        return self._scores.episode

    def begin(self, episode: int) -> None:
        """Begin the episode of this number, and reset the planner to its seed."""
        self._planner.reset(self._config.sim.seed + episode)
        if self._config.goal is not None:
            self._goal = goal_latent(self._config.sim, self._encoder, episode, self._config.goal)
        self.stepper.begin(episode)
        self._add_step()

    def act(self, latent: np.ndarray) -> float:
        """Plan from the latent (rows, dimension) of the present step and act; return the seconds that planning took."""
        self._measure(latent)
        observation = self.stepper.observation(self._planner, latent, self._goal)
        started = time.monotonic()
        plan = self._planner.plan(observation, None)
        planned_s = time.monotonic() - started
        self.score.imagined.append(plan.imagined)
        self.score.novelty.append(plan.novelty)
        self.stepper.act(plan.action)
        self._add_step()
        if self._goal is not None and self.stepper.is_over:
            self._measure(self._encoder.encode([self.stepper.clip])[0])
        return planned_s

    def _measure(self, latent: np.ndarray) -> None:
        """Keep the distance of the present step's latent to the goal latent: Euclidean, of their mean rows."""
        if self._goal is not None:
            self.score.goal_distances.append(float(np.linalg.norm(latent[0] - self._goal[0])))

    def _add_step(self) -> None:
        self._scores.add(self.stepper.step)
        self.score.distances.append(self._scores.distance_m)


class _Batches:
    """Batches of episodes, each run by the same environments and planners.

    Attributes:
        scores: scores of the ended episodes, by number.
        seconds: durations of encoding and planning, of each step.
    """

    def __init__(
        self,
        config: RolloutConfig,
        encoder: Encoder,
        on_step: OnStep | None = None,
        on_episode: OnEpisode | None = None,
        on_latent: OnLatent | None = None,
    ):
        self._encoder = encoder
        self._drivers = [_Driver(config, encoder) for _ in range(min(config.batch_size, config.episodes))]
        self._on_step, self._on_episode, self._on_latent = on_step, on_episode, on_latent
        self.scores: dict[int, Episode] = {}
        self.seconds: list[float] = []

    def run(self, episodes: Sequence[int]) -> None:
        """Run the episodes of one batch at the same time."""
        running = dict(zip(episodes, self._drivers, strict=False))
        for episode, driver in running.items():
            driver.begin(episode)
            if self._on_step:
                self._on_step(episode, driver.stepper.step)
        while running:
            started = time.monotonic()
            latents = self._encoder.encode([driver.stepper.clip for driver in running.values()])
            encoded_s = time.monotonic() - started
            for (episode, driver), latent in zip(list(running.items()), latents, strict=True):
                if self._on_latent:
                    self._on_latent(episode, driver.stepper.step, latent)
                self.seconds.append(encoded_s + driver.act(latent))
                if self._on_step:
                    self._on_step(episode, driver.stepper.step)
                if driver.stepper.is_over:
                    del running[episode]
                    self.scores[episode] = driver.score
                    if self._on_episode:
                        self._on_episode(episode, driver.score)

    def close(self) -> None:
        """Close the environments."""
        for driver in self._drivers:
            driver.stepper.env.close()


def rollout(
    config: RolloutConfig,
    encoder: Encoder,
    on_step: OnStep | None = None,
    on_episode: OnEpisode | None = None,
    on_latent: OnLatent | None = None,
    partial: bool = False,
) -> tuple[list[Episode], Durations]:
    """Run the episodes and return their scores in order, and the durations of encoding and planning in a step.

    Args:
        config: settings of the rollout.
        encoder: encoder of the planner's latents; every frame passes it, even if the planner does not read latents.
        on_step: called with the episode's number and each of its steps, the FIRST included.
        on_episode: called with the number and the score of each ended episode.
        on_latent: called with the episode's number, each step with a plan, and its latent, (rows, dimension).
        partial: whether an interruption returns the ended episodes, up to the first that has not ended.

    Raises:
        VjepaError: an unknown task or planner, options it refuses, or a bundle made for another encoder.
    """
    batches = _Batches(config, encoder, on_step, on_episode, on_latent)
    try:
        for episodes in config.batches:
            batches.run(episodes)
    except KeyboardInterrupt:
        if not partial or 0 not in batches.scores:
            raise
    finally:
        batches.close()
    return _first_ended(batches.scores), _durations(batches.seconds)


def rollout_in_workers(
    config: RolloutConfig, encoder: EncoderConfig, workers: int, on_episode: OnEpisode, ray_address: str | None = None
) -> tuple[list[Episode], EncoderInfo, Durations]:
    """Run the episodes in several processes; return the scores of `rollout`, `Encoder.info`, and the durations.

    An interruption returns the scores of the ended batches, up to the first that has not ended.

    Args:
        config: settings of the rollout.
        encoder: the encoder, which every process loads.
        workers: largest number of processes.
        on_episode: as in `rollout`, called when the batch has ended.
        ray_address: run on the CPUs of the Ray cluster at this address instead, see `run_on_ray`.

    Raises:
        VjepaError: as `rollout`, or a process failed or died too often, or as `run_on_ray`.
        KeyboardInterrupt: an interruption before the first batch has ended.
    """
    scores: dict[int, Episode] = {}
    seconds: list[float] = []
    info: EncoderInfo = {}

    def on_result(batch: int, result: _BatchResult) -> None:
        ended, durations, about = result
        info.update(about)
        seconds.extend(durations)
        scores.update(ended)
        for number, episode in ended.items():
            on_episode(number, episode)

    batches = range(len(config.batches))
    work = functools.partial(_run_batches, config, encoder)
    advice = "see whether there is enough memory, or use fewer workers"
    try:
        if ray_address is not None:
            run_on_ray(functools.partial(_BatchRunner, config, encoder), batches, ray_address, on_result)
        else:
            run_workers(work, batches, workers, on_result, advice)
    except KeyboardInterrupt:
        if 0 not in scores:
            raise
    return _first_ended(scores), info, _durations(seconds)


class _BatchRunner:
    """Runs batches by number, and returns the scores and durations of each, and `Encoder.info`."""

    def __init__(self, config: RolloutConfig, encoder: EncoderConfig):
        self._encoder = load_encoder(encoder)
        self._numbers = config.batches
        self._batches = _Batches(config, self._encoder)

    def __call__(self, number: int) -> _BatchResult:
        self._batches.scores, self._batches.seconds = {}, []
        self._batches.run(self._numbers[number])
        return self._batches.scores, self._batches.seconds, self._encoder.info()

    def close(self) -> None:
        self._batches.close()


def _run_batches(
    config: RolloutConfig, encoder: EncoderConfig, worker: int, numbers: Sequence[int], send: Send
) -> None:
    """Run some of the batches, and send the result of each."""
    runner = _BatchRunner(config, encoder)
    for number in numbers:
        send(number, runner(number))
    runner.close()


def _first_ended(scores: Mapping[int, Episode]) -> list[Episode]:
    """Return the scores by number of episode, up to the first that is missing."""
    return [scores[number] for number in takewhile(scores.__contains__, range(len(scores)))]


def _durations(seconds: Sequence[float]) -> Durations:
    durations = Durations()
    for each in seconds:
        durations.add(each)
    return durations
