"""What is done with finished datasets: several made one, and frames encoded anew by another encoder."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vjepa_perception.encoder import Encoder
from vjepa_training.dataset import (
    IMAGE,
    INFO_FILE,
    LATENT,
    PARTS,
    Dataset,
    DatasetError,
    EpisodeWriter,
    finish_dataset,
    write_dataset,
)
from vjepa_training.encode import encode_frames


def merge_datasets(datasets: Sequence[Dataset], folder: Path | str) -> Dataset:
    """Write the episodes of all `datasets`, in their order, into the new dataset `folder`.

    Raises:
        DatasetError: their rows differ, the message says in what; or `folder` holds a dataset already.
    """
    folder, first = Path(folder), datasets[0]
    for other in datasets[1:]:
        if differences := first.info.same_rows(other.info):
            raise DatasetError(f"{first.folder} and {other.folder} have different rows: {'; '.join(differences)}")
    if (folder / INFO_FILE).exists() or (folder / PARTS).exists():
        raise DatasetError(f"{folder} holds a dataset already; choose another folder")
    sources = tuple(source for dataset in datasets for source in dataset.info.sources)
    episodes = (batch for dataset in datasets for batch in dataset.episode_batches())
    return write_dataset(folder, replace(first.info, sources=sources), episodes)


def encode_dataset(
    dataset: Dataset,
    folder: Path | str,
    encoder: Encoder,
    source: dict[str, Any],
    keep_frames: bool = False,
    on_episode: Callable[[int], None] = lambda rows: None,
) -> Dataset:
    """Write a dataset that kept its frames anew into `folder`, with the latents of `encoder`; a kill loses one episode.

    A step that was left out when the dataset was made is not in its clips either.

    Args:
        dataset: with frames.
        folder: of the new dataset.
        encoder: whose latents it gets.
        source: what is added to `sources`: the command and the versions.
        keep_frames: whether the frames are kept once more.
        on_episode: called with the number of rows of each episode done.

    Raises:
        DatasetError: `dataset` has no frames, or `folder` holds a finished dataset or parts of another one.
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
                rows = {name: column[start:stop] for name, column in columns.items()}
                pictures: Iterable[Any] = ((stamps[i], frames[i]) for i in range(start, stop))
                writer.add(number, {**rows, LATENT: encode_frames(encoder, pictures).astype(np.float16)})
            on_episode(stop - start)
    return finish_dataset(folder, info)
