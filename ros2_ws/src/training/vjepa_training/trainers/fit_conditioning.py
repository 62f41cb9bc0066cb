"""Fitting the conditioning of latents: by what varies most in them, or by what can be read off them.

Principal components keep what varies most, and need hundreds of directions before the target's place is among them; a
projection learned together with a small network that reads off it where arm and target are needs a few dozen.
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
"""Rows that statistics and principal components are fitted to, at most."""

PROBE_EPOCHS, PROBE_BATCH, PROBE_HIDDEN = 10, 512, 256
PROBE_NOISE = 0.1
"""Standard deviation of noise on the normalised latent, against learning targets by heart."""

METRE_UNIT = 0.1
"""Metres of one unit of a place that is read off."""


def fit_conditioning(
    dataset: Dataset, config: ConditioningConfig, method: str, episodes: np.ndarray, seed: int, work: Path | str
) -> Conditioning:
    """Return a conditioning whose states are centred and have variance 1 and no correlation over the latent's part.

    Args:
        dataset: with latents.
        config: what a state is to be; of `size` 0 nothing is fitted but the scale of velocities.
        method: `pca`: the first principal components (Hotelling 1933); `probe`: a linear layer trained with a small
            network behind it that reads off joint angles and velocities and, where the dataset knows them, fingertip,
            target and the way between them.
        episodes: numbers of the episodes to fit to.
        seed: of the rows drawn from them, and of the network.
        work: folder in which a fitted conditioning is kept for the next time.

    Raises:
        VjepaError: an unknown method.
    """
    if method not in METHODS:
        raise VjepaError(f"conditioning is '{method}'; expected {' or '.join(METHODS)}")
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
            raise VjepaError(f"{dataset.folder} knows no joint velocity in the episodes to fit to; collect more")
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
    """Set projection, mean and way back: of the principal components of the latent, or of `layer`'s outputs."""
    size = model.config.size

    def blocks() -> Iterator[tuple[Tensor, Tensor]]:
        """Yield what the projection is made of, and the latents, both about `origin`."""
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
    """Return a linear layer (latent_size, size) through which arm and target can be read off."""
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
    """Return what is to be read off each row, (N, 2 n + n + 6), about 1 in size; NaN where it is not known."""
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
