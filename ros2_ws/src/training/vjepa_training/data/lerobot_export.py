"""Write a dataset in LeRobot's format v3.0: Parquet files under `data/` and their description under `meta/`.

Format: https://huggingface.co/docs/lerobot/lerobot-dataset-v3. Where that page is silent, the files follow lerobot
0.4.4. Three things differ from the stack's datasets. A LeRobot frame has an action, so rows without a next row are left
out. If such a row is in the middle of an episode, the episode is cut there, so a LeRobot episode has no gap. All floats
are float32, latents too. A frame's timestamp is its number divided by the frame rate, as LeRobot records.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypedDict

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from vjepa_interfaces.json_text import write_json
from vjepa_training.data.dataset import IMAGE, LATENT, Column, Dataset, DatasetError
from vjepa_training.data.lerobot_stats import Stats
from vjepa_training.data.new_folder import new_folder

CODEBASE_VERSION = "v3.0"
CHUNK_FILES = 1000
"""Number of files of a folder `chunk-000`."""
FILE_BYTES = 100 * 2**20
"""Size in megabytes from which the next episode begins another file; `data_files_size_in_mb` states it."""
GROUP_ROWS, GROUP_BYTES = 4096, 2**26
"""Frames and bytes from which a Parquet row group is full."""
GROUP_EPISODES = 100
"""Number of episodes from which their row group is full; a waiting episode takes about 100 kB."""
BLOCK_ROWS, BLOCK_BYTES = 1024, 2**25
"""Largest part of an episode in memory at once, bytes; GROUP_BYTES more wait to be written."""

PATH = "chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
STATE, ACTION, REWARD, DONE = "observation.state", "action", "next.reward", "next.done"
POSITION, VELOCITY = "observation.joint_position", "observation.joint_velocity"
INDEX_FEATURES = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
WITHOUT_EPISODE_STATS = (LATENT,)
"""These have statistics of the dataset only: statistics of each episode would be as large as the data."""


def export_lerobot(dataset: Dataset, folder: Path | str, on_rows: Callable[[int], None] = lambda rows: None) -> Path:
    """Write `dataset` into the new folder `folder` as a LeRobot dataset, and return the folder.

    The function writes beside `folder` and renames at the end, so an interruption leaves nothing there. Memory does not
    grow with the dataset.

    Args:
        dataset: the dataset to export.
        folder: the new folder, which must not exist.
        on_rows: called with the number of the dataset's rows processed since the last call.

    Raises:
        DatasetError: `folder` exists or cannot be written, no row has a next one, or a value that LeRobot needs is NaN.
    """
    with new_folder(folder) as making:
        _Export(dataset, making).run(on_rows)
    return Path(folder).expanduser()


class Feature(TypedDict):
    """A feature of a LeRobot dataset: its type, the shape of a row, and the names of the values."""

    dtype: str
    shape: list[int]
    names: list[str] | None


def lerobot_features(dataset: Dataset) -> dict[str, Feature]:
    """Return the features of the LeRobot dataset in the form of its `info.json`.

    Joint velocities and rewards are included if the dataset has any.
    """
    info, joints = dataset.info, list(dataset.info.joint_names)
    state = [f"{joint}.pos" for joint in joints]
    if _is_known(dataset[VELOCITY]):
        state += [f"{joint}.vel" for joint in joints]
    features = {STATE: _feature("float32", (len(state),), state)}
    if info.latent_shape is not None:
        features[LATENT] = _feature("float32", (int(np.prod(info.latent_shape)),))
    if info.image_shape is not None:
        features[IMAGE] = _feature("image", info.image_shape, ["height", "width", "channels"])
    features[ACTION] = _feature("float32", (len(joints),), joints)
    if _is_known(dataset[REWARD]):
        features[REWARD] = _feature("float32")
    features[DONE] = _feature("bool")
    return features | {name: _feature(kind) for name, kind in INDEX_FEATURES.items()}


def frames_per_second(control_period_ns: int) -> int | float:
    """Return the frame rate: a whole number, as in LeRobot, if one is at most 0.2 % away."""
    rate = 1e9 / control_period_ns
    return round(rate) if round(rate) and abs(rate - round(rate)) <= 2e-3 * rate else rate


def lerobot_episodes(dataset: Dataset) -> Iterator[tuple[int, int]]:
    """Yield first row and the row behind the last of every run of rows that have a next one."""
    has_next = dataset["has_next"]
    for start, stop in dataset.episodes.tolist():
        edges = np.flatnonzero(np.diff(has_next[start:stop].astype(np.int8), prepend=0, append=0))
        yield from ((start + first, start + end) for first, end in edges.reshape(-1, 2).tolist())


def _feature(dtype: str, shape: tuple[int, ...] = (1,), names: list[str] | None = None) -> Feature:
    return {"dtype": dtype, "shape": list(shape), "names": names}


def _is_known(column: Column) -> bool:
    blocks = (column[first : first + BLOCK_ROWS] for first in range(0, len(column), BLOCK_ROWS))
    return any(np.isfinite(block).any() for block in blocks)


class _Export:
    """One export: read the dataset's columns block by block, and write LeRobot's files into `folder`."""

    def __init__(self, dataset: Dataset, folder: Path):
        self._dataset, self._folder = dataset, folder
        self._features = lerobot_features(dataset)
        self._fps = frames_per_second(dataset.info.control_period_ns)
        self._columns = {name: dataset[name] for name in dataset.info.columns()}
        row_bytes = sum(8 * int(np.prod(feature["shape"])) for feature in self._features.values())
        self._block_rows = max(1, min(BLOCK_ROWS, BLOCK_BYTES // row_bytes))

    def run(self, on_rows: Callable[[int], None]) -> None:
        (self._folder / "meta").mkdir(parents=True)
        schema = _schema(self._features)
        frames = episodes = done = 0
        stats = {name: Stats() for name in self._features}
        with (
            _Files(self._folder / "data", GROUP_ROWS, schema) as data,
            _Files(self._folder / "meta" / "episodes", GROUP_EPISODES) as meta,
        ):
            for start, stop in lerobot_episodes(self._dataset):
                data_file, meta_file = data.begin(), meta.begin()
                of_episode = {name: Stats() for name in self._features}
                for first in range(start, stop, self._block_rows):
                    last = min(first + self._block_rows, stop)
                    values = self._values(first, last, first - start, episodes, frames + first - start)
                    for name, column in values.items():
                        of_episode[name].add(_sampled(column) / 255.0 if name == IMAGE else column)
                    data.write(pa.Table.from_arrays([_array(column) for column in values.values()], schema=schema))
                for name, found in of_episode.items():
                    stats[name].merge(found)
                length = stop - start
                row = self._episode_row(episodes, frames, length, data_file, meta_file, of_episode)
                meta.write(pa.Table.from_pylist([row]))
                frames, episodes = frames + length, episodes + 1
                on_rows(stop - done)
                done = stop
        if not frames:
            raise DatasetError(f"{self._dataset.folder} has no row with a next row, so there is no action to write")
        on_rows(len(self._dataset) - done)
        self._write_meta(frames, episodes, stats)

    def _values(self, first: int, last: int, frame: int, episode: int, index: int) -> dict[str, np.ndarray]:
        """Return rows `first` to `last` of every feature, (T, *shape); `frame` and `index` belong to the first row."""
        rows = slice(first, last)
        count = last - first
        frame_index = np.arange(frame, frame + count)
        found = {
            ACTION: self._columns[ACTION][rows],
            REWARD: self._columns[REWARD][rows],
            DONE: self._columns[DONE][rows],
            "timestamp": frame_index / self._fps,
            "frame_index": frame_index,
            "episode_index": np.full(count, episode),
            "index": np.arange(index, index + count),
            "task_index": np.zeros(count, np.int64),
        }
        width = self._features[STATE]["shape"][0]
        found[STATE] = np.concatenate([self._columns[POSITION][rows], self._columns[VELOCITY][rows]], axis=1)[:, :width]
        if LATENT in self._features:
            found[LATENT] = self._columns[LATENT][rows].reshape(count, -1)
        if IMAGE in self._features:
            found[IMAGE] = self._columns[IMAGE][rows]
        values = {}
        for name, feature in self._features.items():
            values[name] = found[name].astype("uint8" if feature["dtype"] == "image" else feature["dtype"], copy=False)
            unknown = np.flatnonzero(~np.isfinite(values[name].reshape(count, -1)).all(axis=1))
            if len(unknown):
                raise DatasetError(
                    f"{self._dataset.folder}: {name} of row {first + unknown[0]} is not finite, and LeRobot has no "
                    "mark for an unknown value; build the dataset from bags whose joint states contain it"
                )
        return values

    def _episode_row(
        self,
        episode: int,
        frames: int,
        length: int,
        data_file: dict[str, int],
        meta_file: dict[str, int],
        stats: dict[str, Stats],
    ) -> dict[str, Any]:
        row: dict[str, Any] = {"episode_index": episode, "tasks": [self._task], "length": length}
        row |= {f"data/{name}": value for name, value in data_file.items()}
        row |= {"dataset_from_index": frames, "dataset_to_index": frames + length}
        row |= {f"meta/episodes/{name}": value for name, value in meta_file.items()}
        for name, found in stats.items():
            if name not in WITHOUT_EPISODE_STATS:
                row |= {f"stats/{name}/{what}": value for what, value in self._stats_of(name, found).items()}
        return row

    def _stats_of(self, name: str, stats: Stats) -> dict[str, list[Any]]:
        """Return statistics in LeRobot's nesting: (channels, 1, 1) for images, (1,) for scalars, else a row's shape."""
        channels = (-1, 1, 1)
        shape = channels if name == IMAGE else tuple(self._features[name]["shape"])
        return {
            what: value.tolist() if what == "count" else value.reshape(shape).tolist()
            for what, value in stats.result().items()
        }

    @property
    def _task(self) -> str:
        return self._dataset.info.task or "unknown"

    def _write_meta(self, frames: int, episodes: int, stats: dict[str, Stats]) -> None:
        meta = self._folder / "meta"
        info = {
            "codebase_version": CODEBASE_VERSION,
            "robot_type": self._dataset.info.task.partition("-")[0] or None,
            "total_episodes": episodes,
            "total_frames": frames,
            "total_tasks": 1,
            "chunks_size": CHUNK_FILES,
            "data_files_size_in_mb": FILE_BYTES // 2**20,
            "video_files_size_in_mb": 200,
            "fps": self._fps,
            "splits": {"train": f"0:{episodes}"},
            "data_path": f"data/{PATH}",
            "video_path": None,
            "features": self._features,
        }
        _write_json(meta / "info.json", info)
        _write_json(meta / "stats.json", {name: self._stats_of(name, found) for name, found in stats.items()})
        parquet.write_table(_task_table(self._task), meta / "tasks.parquet")
        write_json(meta / "vjepa.json", self._dataset.description())


class _Files:
    """Parquet files `chunk-000/file-000.parquet` and so on in a folder; a full file is followed by a new one."""

    def __init__(self, folder: Path, group_rows: int, schema: pa.Schema | None = None):
        self._folder, self._group_rows, self._schema = folder, group_rows, schema
        self._number = 0
        self._sink: pa.OSFile | None = None
        self._writer: parquet.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []
        self._waiting_bytes = 0

    def begin(self) -> dict[str, int]:
        """Begin an episode, in a new file if the last one is full, and return `chunk_index` and `file_index`."""
        written = self._sink.tell() if self._sink else 0
        if written + self._waiting_bytes >= FILE_BYTES:
            self._close_file()
            self._number += 1
        return dict(zip(("chunk_index", "file_index"), divmod(self._number, CHUNK_FILES), strict=True))

    def write(self, table: pa.Table) -> None:
        self._waiting.append(table)
        self._waiting_bytes += table.nbytes
        if sum(map(len, self._waiting)) >= self._group_rows or self._waiting_bytes >= GROUP_BYTES:
            self._write_group()

    def _write_group(self) -> None:
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting)
        if self._writer is None:
            chunk, file = divmod(self._number, CHUNK_FILES)
            path = self._folder / PATH.format(chunk_index=chunk, file_index=file)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._sink = pa.OSFile(str(path), "wb")
            self._writer = parquet.ParquetWriter(self._sink, self._schema or table.schema, compression="zstd")
        self._writer.write_table(table, row_group_size=len(table))
        self._waiting, self._waiting_bytes = [], 0

    def _close_file(self) -> None:
        self._write_group()
        if self._writer is not None and self._sink is not None:
            self._writer.close()
            self._sink.close()
        self._writer = self._sink = None

    def __enter__(self) -> "_Files":
        return self

    def __exit__(self, *_: object) -> None:
        self._close_file()


def _sampled(frames: np.ndarray) -> np.ndarray:
    """Return every sixteenth frame: LeRobot's statistics of pixels are of a sample too."""
    return frames[::16]


def _schema(features: dict[str, Feature]) -> pa.Schema:
    """Return the Arrow schema of the frames, with the metadata that `datasets.load_dataset` needs without LeRobot."""
    fields: list[pa.Field] = []
    hub: dict[str, dict[str, Any]] = {}
    for name, feature in features.items():
        shape, dtype = feature["shape"], feature["dtype"]
        if dtype == "image":
            fields.append(pa.field(name, pa.struct({"bytes": pa.binary(), "path": pa.string()})))
            hub[name] = {"_type": "Image"}
            continue
        kind: pa.DataType = pa.bool_() if dtype == "bool" else pa.type_for_alias(dtype)
        hub[name] = {"dtype": dtype, "_type": "Value"}
        if shape != [1]:
            kind = pa.list_(kind, shape[0])
            hub[name] = {"feature": hub[name], "length": shape[0], "_type": "List"}
        fields.append(pa.field(name, kind))
    return pa.schema(fields, {"huggingface": json.dumps({"info": {"features": hub}})})


def _array(values: np.ndarray) -> pa.Array:
    """Return (T, n) values in Arrow's form: scalars, lists, or PNG files of (T, height, width, 3) frames."""
    if values.dtype == np.uint8:
        files = [{"bytes": _png(frame), "path": None} for frame in values]
        return pa.array(files, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return flat if len(flat) == len(values) else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _png(rgb: np.ndarray) -> bytes:
    _, encoded = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    return encoded.tobytes()


def _task_table(task: str) -> pa.Table:
    """Return the table of tasks in the form in which pandas, LeRobot's reader, writes a frame indexed by the task."""
    index = "__index_level_0__"
    kinds = {"task_index": ("int64", "int64"), index: ("unicode", "object")}
    columns: list[dict[str, str | None]] = [
        {
            "name": None if name == index else name,
            "field_name": name,
            "pandas_type": pandas_type,
            "numpy_type": numpy_type,
            "metadata": None,
        }
        for name, (pandas_type, numpy_type) in kinds.items()
    ]
    metadata = {"index_columns": [index], "column_indexes": [], "columns": columns}
    table = pa.table({"task_index": pa.array([0], pa.int64()), index: pa.array([task])})
    return table.replace_schema_metadata({"pandas": json.dumps(metadata)})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=4, allow_nan=False) + "\n", encoding="utf-8")
