"""Fit the state projection of latents: to their largest variance, or to the places of arm and target.

Principal components keep the largest variance, and need hundreds of directions to contain the target's place. A
projection that is trained with a small network behind it, which predicts arm and target, needs a few dozen.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from sim_bridge.tasks import plane_of
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.files import write_atomically
from vjepa_planner.models.conditioning import Conditioning, ConditioningConfig
from vjepa_training.data.dataset import LATENT, Dataset
from vjepa_training.trainers.moments import BLOCK_ROWS, in_blocks, means_and_covariance
from vjepa_training.trainers.optimiser import adamw, set_cosine_rate

METHODS = ("probe", "pca")
FITTED_ROWS = 50_000
"""Largest number of rows for statistics and principal components."""

PROBE_EPOCHS, PROBE_BATCH, PROBE_HIDDEN = 10, 512, 256
PROBE_NOISE = 0.1
"""Standard deviation of noise on the normalised latent, against memorising targets."""

METRE_UNIT = 0.1
"""Metres of one unit of a predicted place."""


def fit_conditioning(
    dataset: Dataset, config: ConditioningConfig, method: str, episodes: np.ndarray, seed: int, work: Path | str
) -> Conditioning:
    """Return a state projection whose states are centred, uncorrelated and of variance 1 over the latent's part.

    Args:
        dataset: a dataset with latents.
        config: sizes and parts of a state; with `size` 0 only the scale of velocities is fitted.
        method: `pca`: the first principal components (Hotelling 1933); `probe`: a linear layer, trained with a small
            network behind it. The network predicts joint angles and velocities and, if the dataset knows them,
            fingertip, target and the way between them.
        episodes: numbers of the episodes to fit to.
        seed: seed of the rows drawn from them, and of the network.
        work: folder in which the result is kept for later calls.

    Raises:
        VjepaError: the method is unknown.
    """
    if method not in METHODS:
        raise VjepaError(f"state_projection is '{method}'; expected {' or '.join(METHODS)}")
    model = Conditioning(config).eval().requires_grad_(False)
    facts = (asdict(config), method, seed, episodes.tolist(), dataset.info.sources)
    path = Path(work) / f"conditioning-{hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}.safetensors"
    if path.exists():
        model.load_state_dict(load_file(path))
        return model
    rows = np.concatenate([np.arange(*dataset.episodes[episode]) for episode in episodes])
    chosen = np.sort(np.random.default_rng((seed, 8)).permutation(rows)[:FITTED_ROWS])
    if config.joint_state:
        velocity = dataset["observation.joint_velocity"][chosen]
        velocity = velocity[np.isfinite(velocity).all(axis=1)]
        if not len(velocity):
            raise VjepaError(f"{dataset.folder} has no known joint velocity in the episodes for training; collect more")
        model.velocity_scale.copy_(torch.from_numpy(velocity.std(0)).clamp(min=1e-3))
    if config.size:
        read = _reader(dataset, config)
        sample = read(chosen[: BLOCK_ROWS * 4])
        layer = _probe_layer(dataset, read, rows, sample, config, seed) if method == "probe" else None
        _whiten(model, read, chosen, sample.mean(0), layer)
    write_atomically(path, save(model.state_dict()))
    return model


Read = Callable[[np.ndarray], Tensor]


def _reader(dataset: Dataset, config: ConditioningConfig) -> Read:
    """Return a function from rows to their latents as vectors, (B, latent_size) float32."""
    column, read = dataset[LATENT], list(config.latent_rows)
    return lambda rows: torch.from_numpy(column[rows][:, read].astype(np.float32)).flatten(1)


def _whiten(model: Conditioning, read: Read, rows: np.ndarray, origin: Tensor, layer: Tensor | None) -> None:
    """Set projection, mean and inverse from the principal components of the latent, or of `layer`'s outputs."""
    size = model.config.size

    def blocks() -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the inputs of the projection, and the latents, both about `origin`."""
        for part in in_blocks(rows):
            centred = (read(part) - origin).double()
            yield centred if layer is None else centred @ layer.double(), centred

    _, mean, covariance = means_and_covariance(blocks())
    variances, directions = torch.linalg.eigh(covariance if layer is None else covariance @ layer.double())
    largest = variances.argsort(descending=True)[:size]
    rotation = directions[:, largest] / variances[largest].clamp(min=1e-12).sqrt()
    model.mean.copy_(mean + origin)
    model.project.copy_(rotation if layer is None else layer.double() @ rotation)
    model.unproject.copy_(rotation.T @ covariance)  # Least squares.


def _probe_layer(
    dataset: Dataset, read: Read, rows: np.ndarray, sample: Tensor, config: ConditioningConfig, seed: int
) -> Tensor:
    """Return a linear layer (latent_size, size) whose outputs suffice to predict arm and target."""
    labels = _labels(dataset)
    mean, std = sample.mean(0), sample.std(0).clamp(min=1e-3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = nn.Linear(config.latent_size, config.size)
        network = nn.Sequential(
            layer,
            nn.Linear(config.size, PROBE_HIDDEN),
            nn.LayerNorm(PROBE_HIDDEN),
            nn.ReLU(),
            nn.Linear(PROBE_HIDDEN, PROBE_HIDDEN),
            nn.ReLU(),
            nn.Linear(PROBE_HIDDEN, labels.shape[1]),
        )
        optimiser = adamw(network.parameters(), 1e-3, 1e-2)
        steps = PROBE_EPOCHS * math.ceil(len(rows) / PROBE_BATCH)
        for step in range(steps):
            set_cosine_rate(optimiser, 1e-3, step, steps)
            drawn = np.sort(np.random.default_rng((seed, 10, step)).choice(rows, PROBE_BATCH))
            wanted = torch.from_numpy(labels[drawn])
            latents = (read(drawn) - mean) / std
            found = network(latents + PROBE_NOISE * torch.randn_like(latents))
            known = torch.isfinite(wanted)
            loss = (found - wanted.nan_to_num()).square()[known].mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
    return (layer.weight.detach() / std).T


def _labels(dataset: Dataset) -> np.ndarray:
    """Return the labels of each row, (N, 2 n + n + 6), about 1 in size; NaN if unknown."""
    columns: Mapping[str, np.ndarray] = {
        name: np.asarray(dataset[name])
        for name in ("observation.joint_position", "observation.joint_velocity", "target", "fingertip")
    }
    position, velocity = columns["observation.joint_position"], columns["observation.joint_velocity"]
    plane = plane_of(dataset.info.task)
    target, fingertip = (columns[name][:, plane] / METRE_UNIT for name in ("target", "fingertip"))
    known = velocity[np.isfinite(velocity).all(axis=1)]
    scale = np.maximum(known.std(0), 1e-3) if len(known) else 1.0
    joints = [np.sin(position), np.cos(position), velocity / scale]
    return np.concatenate([*joints, target, fingertip, target - fingertip], axis=1).astype(np.float32)
