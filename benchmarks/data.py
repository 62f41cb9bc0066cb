"""Collection, datasets from bags and training, each beside its floor: rendering, encoder or network alone."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.figures import Figure, command_of, mean_with_interval, record
from benchmarks.memory import write_synthetic
from benchmarks.stack import vjepa
from sim_bridge.env import SimConfig
from vjepa_bags.bag_reader import Bag, topic_names
from vjepa_perception.clip import ClipBuffer
from vjepa_perception.encoder import Encoder, EncoderConfig, load_encoder
from vjepa_planner.models.conditioning import ConditioningConfig
from vjepa_planner.models.dynamics import Dynamics, preset
from vjepa_training.data.build import BuildConfig, build_dataset
from vjepa_training.data.collect import CollectConfig, Collector
from vjepa_training.data.dataset import Dataset, EpisodeWriter
from vjepa_training.data.transitions import Transitions, open_transitions
from vjepa_training.trainers.configs import Job
from vjepa_training.trainers.optimiser import adamw
from vjepa_training.trainers.train_dynamics import DynamicsTraining, dynamics_loss, train_dynamics
from vjepa_training.trainers.training_run import LARGEST_GRADIENT

AIM = 1.15
EPISODE_STEPS = 25
SMALL = "models/encoder-small"
TRAINED_STEPS = 400


def measure(turns: int, episodes: int, transitions: int, seed: int) -> dict[str, Any]:
    """Measure every stage on one core, `turns` times, and return the record.

    Args:
        turns: times that a stage and its floor are measured, one after the other.
        episodes: collected episodes of 25 steps in a turn, and short episodes of a bag.
        transitions: ten times the transitions of the training's dataset.
        seed: seed of the first episode.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        encoder = load_encoder(EncoderConfig(SMALL, device="cpu"))
        runs = [{"what": "collection, frames", **pair} for pair in collection(turns, episodes, seed, None)]
        runs += [{"what": "collection, latents", **pair} for pair in collection(turns, episodes, seed, encoder)]
        runs += [{"what": "dataset from a bag", **pair} for pair in from_bag(turns, episodes, seed, encoder)]
        runs += [{"what": "training dynamics", **pair} for pair in training(turns, transitions // 10, seed)]
    finally:
        torch.set_num_threads(threads)
    command = command_of("data", runs=turns, run_episodes=episodes, transitions=transitions, seed=seed)
    return record("data", figures(runs), command, [seed], runs=runs)


FLOORS = {
    "collection, frames": "physics and rendering alone",
    "collection, latents": "physics, rendering and encoder alone",
    "dataset from a bag": "the encoder alone",
    "training dynamics": "the same network on tensors in memory",
}


def figures(runs: Sequence[dict[str, Any]]) -> list[Figure]:
    """Return the ratio of each stage's time to its floor's time."""
    found = []
    for what, floor in FLOORS.items():
        ratios = [run["stage_ms"] / run["floor_ms"] for run in runs if run["what"] == what]
        mean, interval = mean_with_interval(ratios)
        found.append(
            Figure(
                f"{what}: time over that of {floor}",
                mean,
                "times",
                f"{len(ratios)} turns, one core",
                AIM,
                interval_95=interval,
                interval_of="bootstrap over turns",
            )
        )
    return found


def collection(turns: int, episodes: int, seed: int, encoder: Encoder | None) -> list[dict[str, float]]:
    """Return, for each turn, the time of a frame in a collected dataset and in its floor, ms."""
    config = CollectConfig(sim=SimConfig(seed=seed, episode_steps=EPISODE_STEPS), behaviour="random")
    config = replace(config, latents=encoder is not None, frames=encoder is None)
    collector = Collector(config, encoder)
    frames = episodes * (EPISODE_STEPS + 1)
    pairs = []
    with tempfile.TemporaryDirectory(prefix="vjepa-bench-") as folder:
        for turn in range(turns + 1):
            began = time.perf_counter()
            with EpisodeWriter(Path(folder) / str(turn), collector.info({})) as writer:
                for number in range(episodes):
                    writer.add(number, collector.episode(number))
            collected = time.perf_counter() - began
            bare = _bare_collection(collector, episodes, encoder)
            pairs.append({"stage_ms": 1e3 * collected / frames, "floor_ms": 1e3 * bare / frames})
    collector.close()
    return pairs[1:]  # The first turn warms up.


def _bare_collection(collector: Collector, episodes: int, encoder: Encoder | None) -> float:
    """Return the time of the same frames without a dataset, s."""
    env, spent = collector._stepper.env, 0.0
    rng = np.random.default_rng(0)
    for number in range(episodes):
        env.reset(number)
        clip = ClipBuffer(encoder.clip_frames) if encoder else None
        clips = []
        began = time.perf_counter()
        for step in range(EPISODE_STEPS + 1):
            frame = env.render()
            if encoder and clip:
                clips.append(clip.push(step, encoder.preprocess(frame)))
            if step < EPISODE_STEPS:
                env.step(env.limits.effort_of(rng.uniform(-1, 1, 2)))
        if encoder:
            encoder.encode(clips)
        spent += time.perf_counter() - began
    return spent


def from_bag(turns: int, episodes: int, seed: int, encoder: Encoder) -> list[dict[str, float]]:
    """Return, for each turn, the time of a frame from a bag to a dataset, and the encoder's part of it, ms."""
    pairs = []
    with tempfile.TemporaryDirectory(prefix="vjepa-bench-") as folder:
        arguments = ("--planner", "expert-p", "--episodes", str(episodes), "--seed", str(seed))
        vjepa("run", "--lockstep", "--record", f"{folder}/bags", *arguments, timeout_s=120 + 30 * episodes)
        (path,) = Path(folder, "bags").iterdir()
        names = topic_names("", None)
        for turn in range(turns):
            bag = Bag(path, names)
            began = time.perf_counter()
            out = Path(folder) / f"dataset-{turn}"
            built, _, watch = build_dataset(out, [bag], BuildConfig(names), encoder, {"bag": "a benchmark's"})
            total = time.perf_counter() - began
            assert built is not None
            count = len(built)
            pairs.append({"stage_ms": 1e3 * total / count, "floor_ms": 1e3 * watch.seconds["encoding"] / count})
    return pairs


def training(turns: int, transitions: int, seed: int) -> list[dict[str, float]]:
    """Return, for each turn, the time of a training step of `vjepa train dynamics` and of the network alone, ms."""
    pairs = []
    with tempfile.TemporaryDirectory(prefix="vjepa-bench-") as folder:
        write_synthetic(Path(folder) / "data", transitions, seed)
        dataset = Dataset(Path(folder) / "data")
        for turn in range(turns):
            said: list[tuple[int, float]] = []
            settings = DynamicsTraining(epochs=1, seed=turn, checkpoint_every=TRAINED_STEPS)

            def on_step(step: int, _: int, figures: dict[str, float], said=said) -> None:
                if "steps_per_s" in figures:
                    said.append((step, figures["steps_per_s"]))

            work = Path(folder) / f"work-{turn}"
            train_dynamics(dataset, settings, Job(Path(folder) / f"model-{turn}", work, "a benchmark", on_step))
            pairs.append({"stage_ms": 1e3 / said[-1][1], "floor_ms": 1e3 * bare_step_s(dataset, settings, work)})
    return pairs


def bare_step_s(dataset: Dataset, settings: DynamicsTraining, work: Path, steps: int = 60) -> float:
    """Return the time of a step forwards, backwards and of the optimiser, on one batch in memory, s."""
    config = preset(settings.preset)
    assert dataset.info.latent_shape is not None
    rows, dim = dataset.info.latent_shape
    conditioning = ConditioningConfig(
        latent_dim=dim, latent_rows=tuple(range(rows)), size=settings.components, joint_state=True, joints=2
    )
    model = Dynamics(config, conditioning).train()
    data = open_transitions(dataset, model.conditioning, work / "bare")
    span = settings.horizon * config.action_repeat
    held = Transitions(*(np.array(getattr(data, name)) for name in data.__dataclass_fields__))
    batch = held.rows(np.arange(len(dataset.episodes)), 1, span)[: settings.batch_size]
    batch = np.broadcast_to(batch, (config.members, len(batch)))
    optimiser = adamw(model.parameters(), settings.learning_rate, settings.weight_decay)
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    times = []
    for _ in range(steps):
        began = time.perf_counter()
        loss = dynamics_loss(model, held, batch, settings)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, LARGEST_GRADIENT)
        optimiser.step()
        times.append(time.perf_counter() - began)
    return float(np.median(times[steps // 6 :]))
