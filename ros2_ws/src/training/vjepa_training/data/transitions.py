"""Read a dataset's rows for a world model: states on disk, actions in [-1, 1], and runs of rows in an episode."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from sim_bridge.tasks import plane_of
from vjepa_interfaces.bundle import Bundle
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.files import atomic_file
from vjepa_planner.models.conditioning import Conditioning
from vjepa_planner.models.dynamics import Dynamics, load_dynamics
from vjepa_training.data.dataset import LATENT, Dataset
from vjepa_training.data.usable_columns import ACTION, OF_THE_STEP, VELOCITY, known_rows

BLOCK_ROWS = 4096


@dataclass(frozen=True)
class Transitions:
    """The rows of a dataset, N of them, for world models.

    Attributes:
        states: (N, S) float32, or float16 if the latent is used unchanged; mapped into memory from a file.
        actions: (N, n) float32 in [-1, 1], from each row to the next; 0 without a next row.
        rewards: (N,) float32, of the step from each row to the next; 0 without a next row.
        offsets: (N, 2) float32, from fingertip to target in the plane of the task, m; NaN if unknown.
        left: (N,) steps that follow each row in its episode without a gap; -1 if its own state is unknown.
        episode: (N,) number of the episode.
    """

    states: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    offsets: np.ndarray
    left: np.ndarray
    episode: np.ndarray

    def rows(self, episodes: np.ndarray, history: int, steps: int) -> np.ndarray:
        """Return the rows of `episodes` that have `history` - 1 rows before them and `steps` steps after them."""
        before = np.zeros(len(self.left), int)
        for back in range(1, history):
            joined = np.zeros(len(self.left), bool)
            joined[back:] = (self.left[:-back] >= back) & (self.episode[back:] == self.episode[:-back])
            before += joined
        return np.flatnonzero(np.isin(self.episode, episodes) & (self.left >= steps) & (before == history - 1))


def open_transitions(
    dataset: Dataset, conditioning: Conditioning, work: Path | str, needed: Sequence[str] = (ACTION,)
) -> Transitions:
    """Return the rows of `dataset` as states of the state projection, kept in the folder `work` for later calls.

    A step with an unknown value in a `needed` column is a gap, and so is a state with unknown joint velocities. States
    are written and read block by block, so memory does not grow with the dataset.

    Raises:
        VjepaError: the dataset has no latents, or their shape is not that of the state projection.
    """
    work = Path(work)
    work.mkdir(parents=True, exist_ok=True)
    has_next = np.asarray(dataset["has_next"])
    is_state = known_rows(dataset, VELOCITY) if conditioning.config.joint_state else np.ones(len(dataset), bool)
    is_step = has_next.copy()
    for name in needed:
        assert name in OF_THE_STEP
        is_step &= known_rows(dataset, name)
    left = np.where(is_state, 0, -1)
    for start, stop in dataset.episodes:
        for row in range(stop - 2, start - 1, -1):
            if is_state[row] and is_state[row + 1] and is_step[row]:
                left[row] = left[row + 1] + 1
    offsets = (np.asarray(dataset["target"]) - np.asarray(dataset["fingertip"]))[:, plane_of(dataset.info.task)]
    return Transitions(
        states=_states(dataset, conditioning, work),
        actions=np.where(has_next[:, None], np.asarray(dataset[ACTION]), 0).astype(np.float32),
        rewards=np.where(has_next, np.asarray(dataset["next.reward"]), 0).astype(np.float32),
        offsets=offsets.astype(np.float32),
        left=left,
        episode=np.repeat(np.arange(len(dataset.episodes)), np.diff(dataset.episodes, axis=1)[:, 0]),
    )


def load_dynamics_for(dataset: Dataset, dynamics: Path | str) -> tuple[Dynamics, Bundle]:
    """Return a dynamics model that reads the latents of `dataset`, and its bundle.

    Raises:
        VjepaError: the dataset has no latents, or the model is for another encoder or arm.
    """
    if dataset.info.latent_shape is None:
        raise VjepaError(f"{dataset.folder} has no latents; encode it first: vjepa dataset encode")
    model, bundle = load_dynamics(dynamics)
    bundle.check_encoder(dataset.info.encoder_fingerprint, dataset.info.encoder_name)
    bundle.check_arm(dataset.info.arm)
    return model, bundle


def observed_blocks(dataset: Dataset) -> Iterator[tuple[slice, list[torch.Tensor]]]:
    """Yield thousands of rows of `dataset` at a time: their slice, and latents, joint positions and velocities."""
    columns = [dataset[LATENT], dataset["observation.joint_position"], dataset["observation.joint_velocity"]]
    for start in range(0, len(dataset), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        yield block, [torch.from_numpy(column[block].astype(np.float32)) for column in columns]


def _states(dataset: Dataset, conditioning: Conditioning, work: Path) -> np.ndarray:
    digest = hashlib.sha256(repr((asdict(conditioning.config), dataset.info.sources)).encode())
    for tensor in conditioning.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    path = work / f"states-{digest.hexdigest()[:16]}.npy"
    if path.exists():
        return np.load(path, mmap_mode="r")
    kind = np.float32 if conditioning.config.size else np.float16
    shape = (len(dataset), conditioning.config.state_size)
    with atomic_file(path) as temporary:
        states = np.lib.format.open_memmap(temporary, mode="w+", dtype=kind, shape=shape)
        for block, arrays in observed_blocks(dataset):
            with torch.inference_mode():
                states[block] = conditioning(*arrays).numpy()
        states.flush()
    return np.load(path, mmap_mode="r")
