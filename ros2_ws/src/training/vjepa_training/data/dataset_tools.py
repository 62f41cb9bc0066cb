"""Process finished datasets: merge them, encode their frames again, and compute a reward from a goal picture."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vjepa_perception.encoder import Encoder
from vjepa_training.data.dataset import (
    IMAGE,
    INFO_FILE,
    LATENT,
    PARTS,
    Column,
    Dataset,
    DatasetError,
    EpisodeWriter,
    Source,
    finish_dataset,
    write_pieces,
)
from vjepa_training.data.encode import encoded_batches, episode_clips


def merge_datasets(datasets: Sequence[Dataset], folder: Path | str) -> Dataset:
    """Write the episodes of all `datasets`, in their order, into the new dataset `folder`.

    Raises:
        DatasetError: their rows differ, and the message states how; or `folder` contains a dataset already.
    """
    folder, first = Path(folder), datasets[0]
    for other in datasets[1:]:
        if differences := first.info.differences(other.info):
            raise DatasetError(f"{first.folder} and {other.folder} have different rows: {'; '.join(differences)}")
    _refuse_dataset_in(folder)
    sources = tuple(source for dataset in datasets for source in dataset.info.sources)
    firsts = np.cumsum([0, *(len(dataset.episodes) for dataset in datasets)]).tolist()
    pieces = (
        (first_number + number, batch)
        for first_number, dataset in zip(firsts, datasets, strict=False)
        for number, batch in dataset.pieces()
    )
    return write_pieces(folder, replace(first.info, sources=sources), pieces)


def encode_dataset(
    dataset: Dataset,
    folder: Path | str,
    encoder: Encoder,
    source: Source,
    keep_frames: bool = False,
    on_episode: Callable[[int], None] = lambda rows: None,
) -> Dataset:
    """Write a dataset with frames again into `folder`, with the latents of `encoder`; a kill loses one episode.

    A step that was left out when the dataset was made is missing in its clips too.

    Args:
        dataset: a dataset with frames.
        folder: folder of the new dataset.
        encoder: encoder of the new latents.
        source: added to `sources`: the command and the versions.
        keep_frames: whether the new dataset keeps the frames too.
        on_episode: called with the number of rows of each finished episode.

    Raises:
        DatasetError: `dataset` has no frames, or `folder` contains a finished dataset or parts of another one.
    """
    frames, stamps = dataset[IMAGE], dataset["stamp_ns"]
    info = replace(
        dataset.info,
        latent_shape=tuple(encoder.shape),
        encoder=encoder.info(),
        image_shape=dataset.info.image_shape if keep_frames else None,
        sources=(*dataset.info.sources, source),
    )
    columns = {name: dataset[name] for name in info.columns() if name not in (LATENT, "episode_index")}
    with EpisodeWriter(folder, info) as writer:
        for number, (start, stop) in enumerate(dataset.episodes.tolist()):
            if number not in writer.episodes:
                writer.add_pieces(number, _encoded_pieces(columns, frames, stamps, range(start, stop), encoder))
            on_episode(stop - start)
    return finish_dataset(folder, info)


def reward_by_goal(dataset: Dataset, folder: Path | str, goal: np.ndarray, source: Source) -> Dataset:
    """Write a dataset again into `folder`, with a reward for the nearness of each next row's latent to a goal's.

    The reward falls with the distance of the latents, the root mean square over their values. It is 1 at the goal, and
    0 at the median distance of the episodes' first rows. It is not the task's own reward: a latent is also near if only
    the picture is alike.

    Args:
        dataset: a dataset with latents.
        folder: folder of the new dataset.
        goal: latent of the dataset's encoder, (rows, dimension).
        source: added to `sources`: the command and the versions.

    Raises:
        DatasetError: the dataset has no latents, the goal has another shape, `folder` contains a dataset already, or
            the episodes begin at the goal.
    """
    folder, latents = Path(folder), dataset[LATENT]
    if goal.shape != latents.shape[1:]:
        raise DatasetError(
            f"the goal latent has shape {goal.shape}; expected {latents.shape[1:]}: use the encoder of the dataset"
        )
    _refuse_dataset_in(folder)
    wanted = goal.astype(np.float32)

    def distance(rows: np.ndarray) -> np.ndarray:
        return np.sqrt(np.mean((rows.astype(np.float32) - wanted) ** 2, axis=(1, 2)))

    away = float(np.median(distance(latents[dataset.episodes[:, 0]])))
    if not away > 0:
        raise DatasetError("the episodes begin at the goal, so nothing is nearer to it; choose another picture")
    info = replace(dataset.info, sources=(*dataset.info.sources, source))
    has_next = dataset["has_next"]
    columns = {name: dataset[name] for name in info.columns() if name != "episode_index"}
    with EpisodeWriter(folder, info) as writer:
        for number, (start, stop) in enumerate(dataset.episodes.tolist()):
            rows = {name: column[start:stop] for name, column in columns.items()}
            reward = np.append(np.maximum(0.0, 1.0 - distance(rows[LATENT])[1:] / away), np.nan)
            rows["next.reward"] = np.where(has_next[start:stop], reward, np.nan)
            writer.add(number, rows)
    return finish_dataset(folder, info)


def _refuse_dataset_in(folder: Path) -> None:
    if (folder / INFO_FILE).exists() or (folder / PARTS).exists():
        raise DatasetError(f"{folder} contains a dataset already; choose another folder")


def _encoded_pieces(
    columns: dict[str, Column], frames: Column, stamps: Column, rows: range, encoder: Encoder
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the rows of one episode with the latents of `encoder`, a batch of clips at a time."""
    begin = rows.start
    clips = episode_clips(encoder, ((stamps[i], frames[i]) for i in rows))
    for latents in encoded_batches(encoder, clips):
        end = begin + len(latents)
        piece = {name: column[begin:end] for name, column in columns.items()}
        yield {**piece, LATENT: latents.astype(np.float16)}
        begin = end
