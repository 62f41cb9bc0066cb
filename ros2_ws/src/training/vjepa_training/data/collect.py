"""Collect simulated episodes into a dataset without ROS, by many processes at once.

Episode i is the episode of seed S + i of the simulation, whichever process runs it and in whatever order. So a dataset
does not depend on the number of workers. With the policy `expert` and no noise its rows equal those of a bag of the
same seeds.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sim_bridge.camera_view import PLAIN
from sim_bridge.env import SimConfig, SimEnv, SimStep
from sim_bridge.looks import NOMINAL
from sim_bridge.tasks import experts_of
from vjepa_interfaces.effort import EffortLimits
from vjepa_interfaces.errors import VjepaError, unknown_name
from vjepa_interfaces.messages import LAST
from vjepa_perception.encoder import Encoder, EncoderConfig, load_encoder
from vjepa_planner.contract import Planner, PlannerContext
from vjepa_planner.registry import available, load_planner
from vjepa_training.data.configs import MIX, CollectOptions
from vjepa_training.data.dataset import (
    IMAGE,
    LATENT,
    PLAIN_IMAGE,
    Dataset,
    DatasetInfo,
    EpisodeWriter,
    Source,
    finish_dataset,
    whole_episodes,
)
from vjepa_training.data.encode import ENCODE_BATCH
from vjepa_training.envs.episode_stepper import NO_LATENT, EpisodeStepper
from vjepa_training.ray_workers import run_on_ray
from vjepa_training.workers import Send, run_workers

_NOISE_STREAM = 3


@dataclass(frozen=True, kw_only=True)
class CollectConfig(CollectOptions):
    """Settings of a collection, with its simulation.

    Attributes:
        sim: the simulation; episode i uses `sim.seed + i`.
        options: options of the planner, as `load_planner` takes them.
    """

    sim: SimConfig
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse impossible settings with a VjepaError."""
        super().__post_init__()
        if self.behaviour not in (*available(), MIX):
            raise unknown_name("behaviour", self.behaviour, (*available(), MIX))
        if self.plain_frames and not self.frames:
            raise VjepaError("plain frames need frames beside them; keep frames too")
        if self.plain_frames and self.plain_share:
            raise VjepaError("plain frames need one look for all episodes; leave plain_share out")
        if not (self.latents or self.frames):
            raise VjepaError("neither latents nor frames are kept; keep one of them or both")


class Collector:
    """Simulate episodes one by one, with an environment, the policies and, if latents are kept, an encoder."""

    def __init__(self, config: CollectConfig, encoder: Encoder | None):
        if config.latents and encoder is None:
            raise VjepaError("latents need an encoder, and there is none; name an encoder, or leave latents out")
        self.config = config
        self._encoder = encoder if config.latents else None
        share, hold = config.epsilon, config.hold
        self._begin_noise = share / (share + hold * (1 - share))  # Chance that a step without a held action begins one.
        self._stepper = EpisodeStepper(SimEnv(config.sim), self._encoder)
        nominal = replace(config.sim, look=NOMINAL, randomize_camera=False, randomize_appearance=False)
        self._twin = EpisodeStepper(SimEnv(replace(nominal, render=PLAIN)), None) if config.plain_frames else None
        nominal = replace(nominal, randomize_target_size=False)
        self._nominal = EpisodeStepper(SimEnv(nominal), self._encoder) if config.plain_share else self._stepper
        self._limits = self._stepper.env.limits
        context = PlannerContext.of(self._limits, self._stepper.env.control_period_s)
        self._names = (*experts_of(config.sim.task), "random") if config.behaviour == MIX else (config.behaviour,)
        self._policies: dict[str, Planner] = {name: load_planner(name, config.options, context) for name in self._names}
        for name, policy in self._policies.items():
            if policy.encoder_fingerprint is None:
                continue
            if self._encoder is None:
                raise VjepaError(f"policy '{name}' acts on latents, but there is no encoder; collect with latents")
            policy.check_encoder(self._encoder.fingerprint, self._encoder.name)

    def info(self, source: Source) -> DatasetInfo:
        """Return the description of the rows; `source` names the command and the versions."""
        width, height = self.config.sim.image_size
        return DatasetInfo(
            joint_names=tuple(self._limits.joint_names),
            effort_limit=self._limits.limits,
            control_period_ns=self._stepper.env.control_period_ns,
            latent_shape=self._encoder.shape if self._encoder else None,
            image_shape=(height, width, 3) if self.config.frames else None,
            plain_images=self.config.plain_frames,
            encoder=self._encoder.info() if self._encoder else None,
            task=self.config.sim.task,
            sources=(source,),
        )

    def episode(self, number: int) -> dict[str, np.ndarray]:
        """Simulate the episode `number` and return its rows for `EpisodeWriter.add`."""
        steps, commands, frames, plain = [], [], [], []
        clips: list[tuple[Any, ...]] = []
        latents: list[np.ndarray] = []
        rng = np.random.default_rng((self.config.sim.seed + number, _NOISE_STREAM))
        name = str(rng.choice(self._names)) if self.config.behaviour == MIX else self.config.behaviour
        policy = self._policies[name]
        policy.reset(self.config.sim.seed + number)
        reads_latents = policy.encoder_fingerprint is not None
        stepper = self._nominal if rng.random() < self.config.plain_share else self._stepper
        stepper.begin(number)
        if self._twin:
            self._twin.begin(number)
        held, left = np.zeros(len(self._limits.joint_names)), 0
        while True:
            steps.append(stepper.step)
            frames.append(stepper.frame)
            if self._twin:
                plain.append(self._twin.frame)
            if self._encoder:
                clips.append(stepper.clip)
                if reads_latents or stepper.is_over or len(clips) == ENCODE_BATCH:
                    latents.extend(self._encoder.encode(clips))
                    clips.clear()
            if stepper.is_over:
                break
            seen = latents[-1] if reads_latents else NO_LATENT
            action = policy.plan(stepper.observation(policy, seen)).action
            if left == 0 and rng.random() < self._begin_noise:
                held, left = rng.uniform(-1, 1, len(held)), self.config.hold
            if left:
                action, left = held, left - 1
            commands.append(stepper.act(action))
            if self._twin:
                self._twin.act(action)
        rows = transition_rows(steps, commands, self._limits)
        rows["target_size"] = np.full(len(steps), stepper.env.target_size)
        if self.config.frames:
            rows[IMAGE] = np.stack(frames)
        if self._twin:
            rows[PLAIN_IMAGE] = np.stack(plain)
        if self._encoder:
            rows[LATENT] = np.stack(latents).astype(np.float16)
        return rows

    def close(self) -> None:
        """Close the environments."""
        for stepper in (self._stepper, self._nominal, self._twin):
            if stepper is not None:
                stepper.env.close()


def transition_rows(steps: list[SimStep], commands: list[np.ndarray], limits: EffortLimits) -> dict[str, np.ndarray]:
    """Return the rows of one whole episode: T steps, and the T - 1 commands between them, (n,) N·m each."""
    last = len(steps) - 1
    nowhere = np.full(len(steps[0].joint_position), np.nan)
    effort = np.stack([*(step.joint_effort for step in steps[1:]), nowhere])
    return {
        "frame_index": np.arange(len(steps)),
        "stamp_ns": np.array([step.stamp_ns - steps[0].stamp_ns for step in steps]),
        "observation.joint_position": np.stack([step.joint_position for step in steps]),
        "observation.joint_velocity": np.stack([step.joint_velocity for step in steps]),
        "target": np.stack([step.target for step in steps]),
        "fingertip": np.stack([step.fingertip for step in steps]),
        "action": limits.to_action(effort),
        "effort": effort,
        "command": np.stack([*commands, nowhere]),
        "next.reward": np.array([*(step.reward for step in steps[1:]), np.nan]),
        "next.discount": np.array([*(step.discount for step in steps[1:]), np.nan]),
        "next.done": np.array([step.step_type == LAST for step in steps[1:]] + [False]),
        "has_next": np.arange(len(steps)) < last,
    }


def collect(
    folder: Path | str,
    config: CollectConfig,
    encoder: EncoderConfig | None,
    episodes: int,
    workers: int,
    source: Source,
    on_episodes: Callable[[int], None] | None = None,
) -> Dataset:
    """Collect episodes 0 to `episodes` - 1 into the new dataset `folder`, or continue a collection that was killed.

    If a worker dies, only its open episode is lost; a new worker simulates it again.

    Args:
        folder: folder of the dataset.
        config: settings of the collection.
        encoder: encoder of the latents, if `config.latents` is set.
        episodes: number of episodes.
        workers: number of processes.
        source: entry of the dataset's `sources`: the command and the versions.
        on_episodes: called from time to time with the number of finished episodes.

    Raises:
        DatasetError: `folder` contains a finished dataset, or parts of another one.
        VjepaError: a worker refused its work, failed or died too often.
    """
    folder = Path(folder)
    collector = _collector(config, encoder)
    info = collector.info(source)
    collector.close()
    EpisodeWriter(folder, info).close()  # Refuses the folder before any worker starts.
    done = whole_episodes(folder, info)
    todo = [number for number in range(episodes) if number not in done]

    def on_result(number: int, _: None) -> None:
        done.add(number)
        if on_episodes:
            on_episodes(len(done))

    if on_episodes:
        on_episodes(len(done))
    work = functools.partial(_write_episodes, folder, config, encoder, source)
    run_workers(work, todo, workers, on_result, f"what is whole is kept in {folder}: run the same command to go on")
    return finish_dataset(folder, info)


def _write_episodes(
    folder: Path,
    config: CollectConfig,
    encoder: EncoderConfig | None,
    source: Source,
    worker: int,
    episodes: Sequence[int],
    send: Send,
) -> None:
    """Simulate and write the episodes of one worker in order, and send the number of each."""
    collector = _collector(config, encoder)
    with EpisodeWriter(folder, collector.info(source), str(worker)) as writer:
        for number in episodes:
            if number not in writer.episodes:
                writer.add(number, collector.episode(number))
            send(number, None)
    collector.close()


def collect_on_ray(
    folder: Path | str,
    config: CollectConfig,
    encoder: EncoderConfig | None,
    episodes: int,
    address: str,
    source: Source,
    on_episodes: Callable[[int], None] = lambda count: None,
) -> Dataset:
    """Collect as `collect` does, on the Ray cluster at `address`: its CPUs simulate, this machine writes the rows.

    Raises:
        VjepaError: as `run_on_ray`; else as `collect`.
    """
    collector = _collector(config, encoder)
    info = collector.info(source)
    collector.close()
    with EpisodeWriter(folder, info) as writer:
        todo = [number for number in range(episodes) if number not in writer.episodes]
        on_episodes(len(writer.episodes))

        def on_result(number: int, rows: dict[str, np.ndarray]) -> None:
            writer.add(number, rows)
            on_episodes(len(writer.episodes))

        run_on_ray(functools.partial(_simulate, config, encoder), todo, address, on_result)
    return finish_dataset(folder, info)


def _simulate(config: CollectConfig, encoder: EncoderConfig | None) -> Callable[[int], dict[str, np.ndarray]]:
    """Return the function that simulates an episode."""
    return _collector(config, encoder).episode


def _collector(config: CollectConfig, encoder: EncoderConfig | None) -> Collector:
    return Collector(config, load_encoder(encoder) if encoder and config.latents else None)
