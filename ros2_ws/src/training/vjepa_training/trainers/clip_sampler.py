"""Draw batches of clips from datasets with frames, for the training of an encoder."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vjepa_interfaces.errors import VjepaError
from vjepa_perception.checkpoint import Checkpoint
from vjepa_training.data.dataset import IMAGE, PLAIN_IMAGE, Dataset
from vjepa_training.data.usable_columns import ACTION, VELOCITY, known_rows, require_columns
from vjepa_training.trainers.augment import augmented
from vjepa_training.trainers.encoder_objectives import FUTURE_STEPS, Clips


class ClipSampler:
    """Draw batches of clips from the frames of datasets, in place on disk; rows are numbered through all datasets."""

    def __init__(self, datasets: Sequence[Dataset], checkpoint: Checkpoint, clip_frames: int, device: str):
        """Open the frames of `datasets`, which must have the encoder's image size.

        Raises:
            VjepaError: the frames have another size, or a needed column is missing.
        """
        self._sources = [_Source(dataset, checkpoint, clip_frames) for dataset in datasets]
        self._starts = np.cumsum([0, *(len(dataset) for dataset in datasets)])
        self.joints = [len(dataset.info.joint_names) for dataset in datasets]
        self._clip_frames, self._device = clip_frames, device
        preprocessing = checkpoint.preprocessing
        self._mean = (torch.tensor(preprocessing.mean) / preprocessing.rescale_factor).view(3, 1, 1).to(device)
        self._std = (torch.tensor(preprocessing.std) / preprocessing.rescale_factor).view(3, 1, 1).to(device)

    def split_rows(self, held_out: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows from which a clip may be drawn: for training, and for validation.

        Args:
            held_out: numbers of the validation episodes in each dataset.

        Raises:
            VjepaError: a dataset has too few rows.
        """
        parts = [source.split_rows(episodes) for source, episodes in zip(self._sources, held_out, strict=True)]
        train, validation = (
            np.concatenate([start + rows for start, rows in zip(self._starts, of, strict=False)])
            for of in zip(*parts, strict=True)
        )
        return train, validation

    def clips(self, rows: np.ndarray, augment: tuple[int, ...] | None = None) -> Clips:
        """Return the clips that end at the sorted `rows`; `augment` is the seed of changes to the visible frames."""
        number = np.searchsorted(self._starts, rows, side="right") - 1
        most = max(self.joints)
        seen: list[np.ndarray] = []
        shown: list[np.ndarray] = []
        actions, position, velocity = [], [], []
        for source, start, of in zip(self._sources, self._starts, range(len(self._sources)), strict=False):
            local = rows[number == of] - start
            for parts, frames in zip((seen, shown), source.frames(local), strict=True):
                parts.append(frames)
            wide = ((0, 0), (0, most - self.joints[of]))
            actions.append(np.pad(source.actions[local[:, None] + np.arange(FUTURE_STEPS)], ((0, 0), *wide)))
            position.append(np.pad(source.position[local], wide))
            velocity.append(np.pad(source.velocity[local], wide))
        visible = np.concatenate(seen)
        if augment is not None:
            visible = augmented(visible, augment)
        plain = self._video(np.concatenate(shown))
        return Clips(
            video=self._video(visible),
            present=plain[:, :FUTURE_STEPS],
            future=plain[:, FUTURE_STEPS:],
            source=self._tensor(number),
            actions=self._tensor(np.concatenate(actions)),
            joint_position=self._tensor(np.concatenate(position)),
            joint_velocity=self._tensor(np.concatenate(velocity)),
        )

    def _video(self, frames: np.ndarray) -> Tensor:
        images = torch.from_numpy(frames).to(self._device).permute(0, 1, 4, 2, 3)
        return images.float().sub_(self._mean).div_(self._std)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self._device)


class _Source:
    """The frames, actions and joint readings of one dataset."""

    def __init__(self, dataset: Dataset, checkpoint: Checkpoint, clip_frames: int):
        self._dataset, self._images = dataset, dataset[IMAGE]
        self._plain = dataset[PLAIN_IMAGE] if dataset.info.plain_images else self._images
        side = checkpoint.preprocessing.crop
        if self._images.shape[1:] != (side, side, 3) or checkpoint.preprocessing.resize != side:
            raise VjepaError(
                f"{dataset.folder} has frames of {self._images.shape[1:3]} pixels and {checkpoint.name} takes "
                f"{side} x {side}, resized from {checkpoint.preprocessing.resize}; collect frames of that size"
            )
        require_columns(dataset, (ACTION, VELOCITY), "train encoder")
        self.position = np.asarray(dataset["observation.joint_position"], np.float32)
        self.velocity = np.asarray(dataset["observation.joint_velocity"], np.float32)
        self.actions = np.asarray(dataset[ACTION], np.float32)
        self._back = np.arange(1 - clip_frames, 1)
        self._starts = np.zeros(len(dataset), np.int64)
        for start, stop in dataset.episodes:
            self._starts[start:stop] = start

    def split_rows(self, held_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return rows as `ClipSampler.split_rows` does."""
        # A row is drawn if the rows behind it that the objective needs are steps of one episode without a gap.
        dataset = self._dataset
        whole = np.asarray(dataset["has_next"]) & known_rows(dataset, ACTION)
        usable = whole & known_rows(dataset, VELOCITY)
        for ahead in range(1, FUTURE_STEPS):
            usable[:-ahead] &= whole[ahead:]
            usable[-ahead:] = False
        is_held_out = np.isin(np.asarray(dataset["episode_index"]), held_out)
        train, validation = np.flatnonzero(usable & ~is_held_out), np.flatnonzero(usable & is_held_out)
        if not len(train) or not len(validation):
            raise VjepaError(f"{dataset.folder} has too few episodes of more than {FUTURE_STEPS} steps to train on")
        return train, validation

    def frames(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the clips that end at `rows`, and the plain frames at and behind the end of each."""
        clips = np.maximum(rows[:, None] + self._back, self._starts[rows][:, None])
        shown = np.maximum(rows[:, None] + np.arange(1 - FUTURE_STEPS, 1 + FUTURE_STEPS), self._starts[rows][:, None])
        return self._images[clips], self._plain[shown]
