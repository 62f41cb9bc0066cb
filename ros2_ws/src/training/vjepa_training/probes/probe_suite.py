"""Run all probes of one encoder: frames of new episodes, latents, baselines, and a result with every figure.

Baselines are the same encoder untrained (same configuration, weights drawn from a seed) and the raw pixels of the
clip's first and last frame. Rows are every third frame whose clip has no repeated frame. Training, validation and test
share no episode.
"""

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from sim_bridge.env import SimConfig
from sim_bridge.tasks import is_about_reaching
from vjepa_interfaces.bundle import write_bundle
from vjepa_interfaces.encoder_info import EncoderInfo
from vjepa_perception.checkpoint import ARCHITECTURE, find_checkpoint
from vjepa_perception.encoder import Encoder, EncoderConfig, load_encoder
from vjepa_perception.model_config import ModelConfig
from vjepa_training.data.collect import CollectConfig, collect
from vjepa_training.data.dataset import IMAGE, LATENT, Dataset
from vjepa_training.data.encode import encoded_batches, episode_clips
from vjepa_training.data.split import split_episodes
from vjepa_training.probes.attentive_probe import AttentiveTarget, attentive_probe
from vjepa_training.probes.configs import ProbeConfig
from vjepa_training.probes.probe import HELD_SHARE, ProbeError, fit_classes, fit_ridge
from vjepa_training.probes.probe_result import ProbeResult, ProbeScores
from vjepa_training.probes.probe_targets import (
    CLASSES,
    MOVING_M_S,
    ProbeTarget,
    probe_targets,
    target_hues,
    target_scores,
)
from vjepa_training.progress import Progress

STRIDE = 3
"""Of the frames with a full clip, every third is probed: neighbours have nearly the same content."""

TEST_SHARE = 0.2
"""Share of the episodes that test the probes."""

SPLIT_SEED, PROBE_SEED, UNTRAINED_SEED = 0, 0, 1_000
"""Seeds of the split into training, validation and test, of attentive probes, and of the untrained encoder."""

POLICY, EPSILON, HOLD = "mix", 0.3, 8
PIXELS = 24
"""Side in pixels of the averaged frames of the pixel baseline."""

ENCODE_BATCH = 64

ENCODER, UNTRAINED, RAW_PIXELS = "encoder", "untrained", "pixels"
MEAN, GRID, FRAMES = "mean", "grid", "two frames"
LINEAR, ATTENTIVE = "linear", "attentive"


@dataclass(frozen=True)
class ProbeReport:
    """The result of the probes.

    Attributes:
        result: every figure.
        predictions: by name of a quantity, (M, k) truth and the linear probe's prediction from the encoder's grid.
    """

    result: ProbeResult
    predictions: dict[str, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class _FeatureSet:
    """Features of all probed rows: their source, the rows of the latent, and (N, ...) values."""

    source: str
    rows: str
    values: np.ndarray


@dataclass(frozen=True)
class _Split:
    """Row numbers of the probed rows to train on, to choose with and to test on, and the episode of every row."""

    fit: np.ndarray
    held: np.ndarray
    test: np.ndarray
    episodes: np.ndarray


def run_probes(config: ProbeConfig, report: Callable[[str], None] = lambda text: None) -> ProbeReport:
    """Collect or open the data, encode it, and probe every target on every source of features.

    Args:
        config: settings of the probes.
        report: called with a line on the next stage.

    Raises:
        ProbeError: no encoder and no latents, an encoder and no frames, too few episodes, or no known values in them.
        VjepaError: an encoder or a dataset that cannot be loaded.
    """
    if not config.encoder and config.data is None:
        raise ProbeError("there is neither an encoder nor a dataset; name one of them")
    trained = load_encoder(_encoder_config(config)) if config.encoder else None
    with _data(config, trained, report) as dataset:
        info = _described(dataset, trained)
        rows, episodes = probed_rows(dataset, info["clip_frames"])
        fit, held, test = _split_rows(episodes)
        split = _Split(fit, held, test, episodes)
        hues = _hues(config, episodes)
        targets, left_out = probe_targets(dataset, rows, (fit, held, test), hues)
        if not targets:
            reasons = "; ".join(f"{what}: {why}" for what, why in left_out.items())
            raise ProbeError(f"{dataset.folder} has no known values to probe: {reasons}")
        sets, missing, device = _feature_sets(config, dataset, rows, info, trained, report)
    report(f"probing {len(targets)} targets on {len(rows)} frames of {len(dataset.episodes)} episodes")
    scores, predictions = _probed(config, sets, targets, split, device)
    result: ProbeResult = {
        "encoder": info["model"],
        "encoder_fingerprint": info["fingerprint"],
        "encoder_untrained": bool(info.get("untrained", False)),
        "clip_frames": info["clip_frames"],
        "latent_shape": list(info["shape"]),
        "data": _provenance(config, dataset),
        "frames": {
            "stride": STRIDE,
            **_sizes(split),
            "moving_above_m_s": MOVING_M_S,
        },
        "seeds": {"split": SPLIT_SEED, "attentive": PROBE_SEED, "untrained": UNTRAINED_SEED},
        "left_out": left_out | missing,
        "scores": scores,
    }
    return ProbeReport(result, predictions)


def probed_rows(dataset: Dataset, clip_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Return row and episode numbers, (N,) each, of every `STRIDE`th frame whose clip has no repeated frame.

    Raises:
        ProbeError: there is no such frame.
    """
    first = max(clip_frames - 1, 1)  # Motion is measured from the row before.
    rows = [np.arange(start + first, stop, STRIDE) for start, stop in dataset.episodes]
    if not sum(map(len, rows)):
        raise ProbeError(f"{dataset.folder} has no frame with a full clip of {clip_frames}; its episodes are too short")
    return np.concatenate(rows), np.repeat(np.arange(len(rows)), [len(part) for part in rows])


def _split_rows(episodes: np.ndarray) -> list[np.ndarray]:
    """Return the rows for fitting, for choosing penalties and for testing; no episode is in two of them.

    Args:
        episodes: (N,) the episode of each row.

    Raises:
        ProbeError: there are fewer than three episodes.
    """
    if (count := len(np.unique(episodes))) < 3:
        raise ProbeError(f"{count} episodes cannot be split into training, validation and test; probe more episodes")
    rest, test = split_episodes(episodes, TEST_SHARE, SPLIT_SEED)
    fit, held = split_episodes(rest, HELD_SHARE, SPLIT_SEED)
    return [np.flatnonzero(np.isin(episodes, part)) for part in (fit, held, test)]


def untrained_twin(config: EncoderConfig) -> Encoder:
    """Return an encoder with the configuration and preprocessing of `config`, and weights drawn from a seed."""
    checkpoint = find_checkpoint(config.encoder)
    fields = {field.name for field in dataclasses.fields(ModelConfig)}
    with tempfile.TemporaryDirectory() as folder:
        bundle = {
            "kind": "encoder",
            "architecture": ARCHITECTURE,
            "init_seed": UNTRAINED_SEED,
            "clip_frames": config.clip_frames,
            "model": {name: value for name, value in checkpoint.model.items() if name in fields},
            "preprocessing": dataclasses.asdict(checkpoint.preprocessing),
        }
        return load_encoder(dataclasses.replace(config, encoder=str(write_bundle(folder, bundle, "").path)))


def encoded_rows(encoder: Encoder, dataset: Dataset, rows: np.ndarray, label: str) -> np.ndarray:
    """Return the latents of the frames `rows`, (N, rows, dimension) float16 as datasets store them."""
    images, stamps = dataset[IMAGE], dataset["stamp_ns"]
    wanted = np.isin(np.arange(len(dataset)), rows)

    def clips() -> Iterator[tuple[Any, ...]]:
        for start, stop in dataset.episodes:
            frames = ((int(stamps[row]), images[row]) for row in range(start, stop))
            yield from compress(episode_clips(encoder, frames), wanted[start:stop])

    latents, done = np.empty((len(rows), *encoder.shape), np.float16), 0
    with Progress(f"encoding, {label}", "clips", len(rows)) as bar:
        for batch in encoded_batches(encoder, clips(), ENCODE_BATCH):
            latents[done : done + len(batch)] = batch
            done += len(batch)
            bar.advance(len(batch))
    return latents


def pixel_rows(dataset: Dataset, rows: np.ndarray, clip_frames: int) -> np.ndarray:
    """Return first and last frame of each row's clip, averaged: (N, 2, 3, side, side) float16 from 0 to 1."""
    height, width = dataset.info.image_shape[:2] if dataset.info.image_shape else (0, 0)
    size = (min(height, PIXELS), min(width, PIXELS))
    images = dataset[IMAGE]
    found = np.empty((len(rows), 2, 3, *size), np.float16)
    for start in range(0, len(rows), ENCODE_BATCH):
        block = rows[start : start + ENCODE_BATCH]
        frames = torch.from_numpy(images[np.stack([block - clip_frames + 1, block], axis=1)])
        colours = frames.flatten(0, 1).permute(0, 3, 1, 2).float() / 255
        small = functional.adaptive_avg_pool2d(colours, size)
        found[start : start + len(block)] = small.unflatten(0, (-1, 2)).numpy()
    return found


def _encoder_config(config: ProbeConfig) -> EncoderConfig:
    clip_frames = find_checkpoint(config.encoder).clip_frames or EncoderConfig.clip_frames
    return EncoderConfig(config.encoder, device=config.device, clip_frames=clip_frames, grid=config.grid)


@contextlib.contextmanager
def _data(config: ProbeConfig, encoder: Encoder | None, report: Callable[[str], None]) -> Iterator[Dataset]:
    """Yield the named dataset, or a new one of simulated episodes that is deleted with this context."""
    if config.data is not None or encoder is None:
        yield Dataset(config.data or "")
        return
    report(f"simulating {config.episodes} episodes, seeds {config.seed} to {config.seed + config.episodes - 1}")
    side = encoder.info()["image_size"]
    sim = SimConfig(
        task=config.task,
        seed=config.seed,
        image_size=(side, side),
        episode_steps=config.episode_steps,
        render=config.render,
        look=config.look,
        randomize_camera=config.randomize,
        randomize_appearance=config.randomize,
        randomize_target_size=config.randomize and is_about_reaching(config.task),
    )
    what = CollectConfig(sim=sim, behaviour=POLICY, epsilon=EPSILON, hold=HOLD, latents=False, frames=True)
    with tempfile.TemporaryDirectory(prefix="vjepa-probe-") as folder:
        workers = min(config.workers, config.episodes)
        with Progress("simulating", "episodes", config.episodes) as bar:
            dataset = collect(folder, what, None, config.episodes, workers, {}, bar.move_to)
        yield dataset


def _described(dataset: Dataset, encoder: Encoder | None) -> EncoderInfo:
    """Return `Encoder.info` of the probed encoder."""
    if encoder is not None:
        if dataset.info.image_shape is None:
            raise ProbeError(
                f"{dataset.folder} has no frames for {encoder.name} to encode; leave the encoder out to probe its "
                "latents, or build it with frames"
            )
        return encoder.info()
    if dataset.info.encoder is None:
        raise ProbeError(f"{dataset.folder} contains frames and no latents; name the encoder to probe")
    return dataset.info.encoder


def _hues(config: ProbeConfig, episodes: np.ndarray) -> np.ndarray | None:
    """Return the target's hue in each row's episode, or None if the episodes' seeds do not determine it."""
    if config.data is not None or not (config.randomize and is_about_reaching(config.task)):
        return None
    return target_hues(config.task, [config.seed + i for i in range(config.episodes)])[episodes]


def _feature_sets(
    config: ProbeConfig,
    dataset: Dataset,
    rows: np.ndarray,
    info: EncoderInfo,
    trained: Encoder | None,
    report: Callable[[str], None],
) -> tuple[list[_FeatureSet], dict[str, str], torch.device | str]:
    """Return the features, the missing baselines with the reasons, and the device of the computation."""
    latents: dict[str, np.ndarray] = {}
    missing: dict[str, str] = {}
    if trained is None:
        latents[ENCODER] = dataset[LATENT][rows]
        missing[UNTRAINED] = "needs the encoder's configuration, by its name, and frames"
    else:
        for source, encoder in ((ENCODER, trained), (UNTRAINED, untrained_twin(_encoder_config(config)))):
            report(f"encoding {len(rows)} clips: {source}")
            latents[source] = encoded_rows(encoder, dataset, rows, source)
            encoder.close()
    sets = [_FeatureSet(source, GRID, values) for source, values in latents.items() if values.shape[1] > 1]
    sets += [_FeatureSet(source, MEAN, values[:, :1]) for source, values in latents.items()]
    if dataset.info.image_shape is None:
        missing[RAW_PIXELS] = "the dataset keeps no frames"
    else:
        sets.append(_FeatureSet(RAW_PIXELS, FRAMES, pixel_rows(dataset, rows, info["clip_frames"])))
    return sets, missing, trained.device if trained else "cpu"


def _probed(
    config: ProbeConfig, sets: list[_FeatureSet], targets: list[ProbeTarget], split: _Split, device: torch.device | str
) -> tuple[list[ProbeScores], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Return the scores of every probe, and the linear probe's predictions from all of the encoder's rows."""
    probes = [(LINEAR, features) for features in sets]
    if config.attentive:
        probes += [(ATTENTIVE, features) for features in sets if features.rows == GRID]
    scores: list[ProbeScores] = []
    predictions: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    with Progress("probing", "probes", len(probes)) as bar:
        for kind, features in probes:
            probe = _linear if kind == LINEAR else _attentive
            for target, (rows, predicted, ridges) in zip(targets, probe(features, targets, split, device), strict=True):
                known = split.fit[target.known[split.fit]]
                scores.append(
                    {
                        "target": target.name,
                        "source": features.source,
                        "rows": features.rows,
                        "probe": kind,
                        **target_scores(target, rows, predicted, split.episodes[rows]),
                        "fit_rows": len(known),
                        "fit_episodes": len(np.unique(split.episodes[known])),
                        "ridges": ridges,
                    }
                )
                if (kind, features.source) == (LINEAR, ENCODER) and features is sets[0]:
                    predictions[target.name] = target.values[rows], predicted
            bar.advance(1, f"{kind}, {features.source} {features.rows}")
    return scores, predictions


_Read = tuple[np.ndarray, np.ndarray, list[float]]
"""Test rows with a known target, their predictions, and the chosen penalties."""


def _linear(features: _FeatureSet, targets: list[ProbeTarget], split: _Split, device: Any) -> list[_Read]:
    """Fit all quantities by one regression, and each classification by its own classifier."""
    quantities = [target for target in targets if target.kind != CLASSES]
    found: dict[str, _Read] = {}
    if quantities:
        known = np.logical_and.reduce([target.known for target in quantities])
        values = np.concatenate([target.values for target in quantities], axis=1)
        train, held, test = _known(split, known)
        probe = fit_ridge(_Subset(features.values, train), values[train], held, device)
        predicted = np.split(probe(features.values, test), np.cumsum([t.values.shape[1] for t in quantities])[:-1], 1)
        ridges = iter(probe.ridges)
        for target, part in zip(quantities, predicted, strict=True):
            found[target.name] = test, part, [next(ridges) for _ in target.components]
    for target in targets:
        if target.kind == CLASSES:
            train, held, test = _known(split, target.known)
            probe = fit_classes(_Subset(features.values, train), target.values[train], held, device)
            found[target.name] = test, probe(features.values, test).argmax(axis=1), [probe.ridges[0]]
    return [found[target.name] for target in targets]


def _attentive(features: _FeatureSet, targets: list[ProbeTarget], split: _Split, device: Any) -> list[_Read]:
    """Train one attentive probe with a query for each target."""
    wanted = [
        AttentiveTarget(target.values, len(target.components) if target.kind == CLASSES else 0) for target in targets
    ]
    found = attentive_probe(features.values, wanted, split.fit, split.held, split.test, PROBE_SEED, device)
    reads: list[_Read] = []
    for target, predicted in zip(targets, found, strict=True):
        known = target.known[split.test]
        reads.append((split.test[known], predicted[known], []))
    return reads


def _known(split: _Split, known: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the known rows to train on, the mask of the held-out ones among them, and the known rows to test on."""
    train = np.concatenate([split.fit, split.held])
    held = np.arange(len(train)) >= len(split.fit)
    return train[known[train]], held[known[train]], split.test[known[split.test]]


class _Subset:
    """Some rows of features, read on access."""

    def __init__(self, features: np.ndarray, rows: np.ndarray):
        self._features, self._rows = features, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self._features[self._rows[rows]]


def _sizes(split: _Split) -> dict[str, dict[str, int]]:
    parts = {"train": split.fit, "validation": split.held, "test": split.test}
    return {name: {"rows": len(rows), "episodes": len(np.unique(split.episodes[rows]))} for name, rows in parts.items()}


def _provenance(config: ProbeConfig, dataset: Dataset) -> dict[str, Any]:
    if config.data is not None:
        return {"dataset": str(dataset.folder), "task": dataset.info.task, "sources": list(dataset.info.sources)}
    return {
        "task": config.task,
        "episodes": config.episodes,
        "seed": config.seed,
        "episode_steps": config.episode_steps,
        "policy": POLICY,
        "epsilon": EPSILON,
        "hold": HOLD,
        "randomized": config.randomize,
        "render": config.render,
        "look": config.look,
    }
