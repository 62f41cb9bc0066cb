"""Read and write datasets: one row for each frame, in the Arrow files of Hugging Face `datasets`, memory-mapped.

A dataset is a folder that `datasets.load_from_disk` opens: Arrow stream files, `dataset_info.json` and `state.json`.
Beside them, `info.json` contains the origin of the data, the shape of a latent, and the sha256 of each file. The format
on disk is Arrow and not Parquet, because Arrow stores a row of fixed-size lists uncompressed. So numpy reads any row in
place, even if the file is larger than memory.

While a dataset is being made, its episodes lie in `parts/`, and each is flushed to the operating system at its end. A
killed process loses only its open episode. An episode is one record batch or, if it came in pieces, several batches
between two batches without rows. So no episode must fit into memory as a whole. `finish_dataset` merges the parts.
"""

import dataclasses
import fcntl
import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
import pyarrow as pa

from vjepa_interfaces.bundle import encoder_label, file_sha256
from vjepa_interfaces.effort import EffortLimits
from vjepa_interfaces.encoder_info import EncoderInfo
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.files import atomic_file
from vjepa_interfaces.json_text import read_json, write_json
from vjepa_training.data.arrow_stream import FoldedError, check_unfolded
from vjepa_training.data.usable_columns import unknown_rows

INFO_FILE, PARTS, MAKING_FILE = "info.json", "parts", "making.json"
FORMAT_VERSION = 2
"""Version 1, which is still read, has no `effort`, and its `action` is in N·m."""
ROWS_A_FILE, BYTES_A_FILE = 16_384, 2**27
"""Rows and bytes from which an Arrow file, which is one record batch, is full."""

OF_ACTIONS = ("joint_names", "effort_limit", "latent_shape", "task")
"""Fields of `DatasetInfo` that are equal in all datasets of a policy."""
OF_MERGED = (*OF_ACTIONS, "control_period_ns", "image_shape", "plain_images")
"""Fields that are equal in datasets that are merged."""

LATENT, IMAGE = "observation.latent", "observation.image"
PLAIN_IMAGE = "observation.plain_image"


class DatasetError(VjepaError):
    """A dataset that cannot be read or written as requested; the message names the file and the expectation."""


class Source(TypedDict, total=False):
    """The origin of a part of a dataset, with the settings of its command in further fields.

    Attributes:
        command: name of the command.
        versions: versions of the packages that the rows depend on.
        episodes: number of episodes that were simulated, or begun in the bag.
        seed: seed of the first simulated episode.
        policy: planner, or mixture of planners, of simulated episodes.
        look: look of simulated episodes.
        render: rendering of simulated episodes.
        image_size: width and height of simulated frames.
        kept: number of the bag's episodes in the dataset.
        faults: numbers of the bag's faults, by their description.
        notes: numbers of remarks on the bag that are no faults, likewise.
        recorded_with: information from the bag's recorder.
    """

    command: str
    versions: dict[str, str]
    episodes: int
    seed: int
    policy: str
    look: str
    render: str
    image_size: tuple[int, int]
    kept: int
    faults: dict[str, int]
    notes: dict[str, int]
    recorded_with: dict[str, Any]


@dataclass(frozen=True)
class DatasetInfo:
    """The description of a dataset's rows.

    Attributes:
        joint_names: joints of the arm, in the order of all joint columns, n of them.
        effort_limit: torque of an action of 1 of each joint, N·m.
        control_period_ns: one control step, nanoseconds.
        latent_shape: rows and dimension of a latent; None if latents are not kept.
        image_shape: height, width and 3 of a frame; None if frames are not kept.
        encoder: `Encoder.info` of the encoder of the latents; None without latents.
        task: dm_control task; empty if unknown.
        sources: origin of each part.
        plain_images: whether beside each frame there is the frame of the same state without look and shadows.
    """

    joint_names: tuple[str, ...]
    effort_limit: tuple[float, ...]
    control_period_ns: int
    latent_shape: tuple[int, int] | None = None
    image_shape: tuple[int, int, int] | None = None
    encoder: EncoderInfo | None = None
    task: str = ""
    sources: tuple[Source, ...] = ()
    plain_images: bool = False

    @property
    def arm(self) -> EffortLimits:
        """Return the arm: its joints, and the torque of an action of 1 of each."""
        return EffortLimits(self.joint_names, self.effort_limit)

    @property
    def control_period_s(self) -> float:
        """Return the duration of one control step, seconds."""
        return self.control_period_ns * 1e-9

    @property
    def encoder_fingerprint(self) -> str:
        """Return the fingerprint of the encoder of the latents; empty without latents."""
        return self.encoder["fingerprint"] if self.encoder else ""

    @property
    def encoder_name(self) -> str:
        """Return the name of the encoder of the latents; empty without latents or without a name."""
        return str(self.encoder.get("model", "")) if self.encoder else ""

    def columns(self) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
        """Return type and shape, without the row, of every column by name.

        `effort` is the torque applied from this frame to the next, `command` the commanded torque, both N·m. `action`
        is the effort as a share of each joint's limit, in [-1, 1].
        `next.reward`, `next.discount` and `next.done` are of the transition to the next row. If there is no next row
        (`has_next` is false), they are NaN and false.
        """
        n = len(self.joint_names)
        columns: dict[str, tuple[Any, tuple[int, ...]]] = {
            "episode_index": (np.int64, ()),
            "frame_index": (np.int64, ()),
            "stamp_ns": (np.int64, ()),
            "observation.joint_position": (np.float64, (n,)),
            "observation.joint_velocity": (np.float64, (n,)),
            "target": (np.float64, (3,)),
            "fingertip": (np.float64, (3,)),
            "target_size": (np.float64, ()),
            "action": (np.float64, (n,)),
            "effort": (np.float64, (n,)),
            "command": (np.float64, (n,)),
            "next.reward": (np.float64, ()),
            "next.discount": (np.float64, ()),
            "next.done": (np.bool_, ()),
            "has_next": (np.bool_, ()),
        }
        if self.latent_shape is not None:
            columns[LATENT] = (np.float16, self.latent_shape)
        if self.image_shape is not None:
            columns[IMAGE] = (np.uint8, self.image_shape)
            if self.plain_images:
                columns[PLAIN_IMAGE] = (np.uint8, self.image_shape)
        return {name: (np.dtype(kind), shape) for name, (kind, shape) in columns.items()}

    def differences(self, other: "DatasetInfo", names: Sequence[str] = OF_MERGED) -> list[str]:
        """Return the differences of the fields `names` and of the encoder from `other`, one phrase each; else empty."""
        found = [(name, getattr(self, name), getattr(other, name)) for name in names]
        found.append(("encoder fingerprint", self.encoder_fingerprint, other.encoder_fingerprint))
        return [f"{name} {mine} and {theirs}" for name, mine, theirs in found if mine != theirs]


def claim_parts(folder: Path | str, making: Mapping[str, Any]) -> None:
    """Write the inputs of the unfinished dataset `folder` into it, or refuse to continue a dataset of other inputs.

    Raises:
        DatasetError: the folder contains a finished dataset, or parts of a dataset with other inputs than `making`.
    """
    note = _open_parts(Path(folder)) / MAKING_FILE
    making = json.loads(json.dumps(making))
    if not note.exists():
        write_json(note, making)
        return
    before = read_json(note, DatasetError, f"delete {folder} and begin anew")
    if differences := [name for name in {*before, *making} if before.get(name) != making.get(name)]:
        raise DatasetError(
            f"{folder} is an unfinished dataset made with other settings ({', '.join(sorted(differences))}); give the "
            "same ones to continue, or choose another folder"
        )


def _open_parts(folder: Path) -> Path:
    if (folder / INFO_FILE).exists():
        raise DatasetError(f"{folder} is a finished dataset; choose another folder, or merge into a new one")
    try:
        if not (folder / PARTS).exists() and folder.exists() and any(folder.iterdir()):
            raise DatasetError(f"'{folder}' contains files that are no dataset; choose a new folder")
        (folder / PARTS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(f"folder '{folder}' cannot be made: {error.strerror}; choose another") from error
    return folder / PARTS


class EpisodeWriter:
    """Write episodes into one part of an unfinished dataset; one process writes one part.

    A writer that is opened again after a kill continues behind the last whole episode of its part.
    """

    def __init__(self, folder: Path | str, info: DatasetInfo, part: str = "0"):
        """Open the part `part` of the dataset in `folder`.

        Raises:
            DatasetError: the folder contains a finished dataset or other rows, or another process writes the part.
        """
        self.folder, self.info = Path(folder), info
        parts = _open_parts(self.folder)
        self._columns = info.columns()
        self._schema = arrow_schema(info)
        self._marker = pa.RecordBatch.from_pylist([], schema=self._schema)
        path = parts / f"{part}.arrow"
        self._file = open(path, "ab")  # noqa: SIM115 (closed by close)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise DatasetError(f"another process is writing {path}; wait until it has ended") from None
        self.episodes, whole = set[int](), 0
        for episode in _whole_episodes(path, self._schema):
            self.episodes.add(episode.number)
            whole = episode.end
        self._file.truncate(whole)
        self._file.seek(whole)
        if whole == 0:
            self._file.write(self._schema.serialize())
        self._flush()

    def add(self, episode_index: int, rows: Mapping[str, np.ndarray]) -> None:
        """Write one episode and flush it to the operating system.

        Args:
            episode_index: its number; episodes of a finished dataset are in this order.
            rows: every other column of `DatasetInfo.columns`, (T, *shape) each.

        Raises:
            DatasetError: a column is missing, unknown or of another shape, or the episode was written already.
        """
        if not self.add_pieces(episode_index, [rows]):
            raise DatasetError(f"episode {episode_index} has no rows; leave it out")

    def add_pieces(self, episode_index: int, pieces: Iterable[Mapping[str, np.ndarray]]) -> int:
        """Write one episode of any length from consecutive pieces of its rows, and return its number of rows.

        Two pieces are in memory at a time. An episode without rows is left out, and so is one whose pieces raise.

        Args:
            episode_index: as for `add`.
            pieces: each has the form of the rows in `add`.

        Raises:
            DatasetError: as for `add`, except for an episode without rows.
        """
        if episode_index in self.episodes:
            raise DatasetError(f"episode {episode_index} was written to {self.folder} already")
        begin = self._file.tell()
        waiting, length, several = None, 0, False
        try:
            for rows in pieces:
                batch = self._batch_of(episode_index, rows)
                if not batch.num_rows:
                    continue
                length += batch.num_rows
                if waiting is not None:
                    if not several:
                        self._write(self._marker)
                        several = True
                    self._write(waiting)
                waiting = batch
            if waiting is not None:
                self._write(waiting)
                if several:
                    self._write(self._marker)
                self._flush()
                self.episodes.add(episode_index)
        except BaseException:
            self._file.flush()
            self._file.truncate(begin)
            self._file.seek(begin)
            raise
        return length

    def _batch_of(self, episode_index: int, rows: Mapping[str, np.ndarray]) -> pa.RecordBatch:
        if rows.keys() | {"episode_index"} != self._columns.keys():
            raise DatasetError(f"columns {sorted(rows)} do not match {sorted(self._columns)} but for episode_index")
        rows = {**rows, "episode_index": np.full(len(rows["stamp_ns"]), episode_index)}
        return _batch(rows, self._columns, self._schema)

    def _write(self, batch: pa.RecordBatch) -> None:
        self._file.write(batch.serialize())

    def close(self) -> None:
        """Close the part; `finish_dataset` merges it with the others."""
        self._file.close()

    def _flush(self) -> None:
        self._file.flush()

    def __enter__(self) -> "EpisodeWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def discarded_if_empty(folder: Path | str, info: DatasetInfo) -> Iterator[None]:
    """Remove the rest of a new dataset in `folder` that has no whole episode, however the block ends."""
    folder = Path(folder)
    existed, begun = folder.exists(), (folder / PARTS).exists()
    try:
        yield
    finally:
        if not begun and (folder / PARTS).is_dir() and not whole_episodes(folder, info):
            shutil.rmtree(folder / PARTS)
            if not existed:
                with suppress(OSError):  # Another process may have put something there.
                    folder.rmdir()


def whole_episodes(folder: Path | str, info: DatasetInfo) -> set[int]:
    """Return the numbers of the whole episodes of an unfinished dataset in `folder`."""
    schema = arrow_schema(info)
    parts = (Path(folder) / PARTS).glob("*.arrow")
    return {episode.number for path in parts for episode in _whole_episodes(path, schema)}


def finish_dataset(folder: Path | str, info: DatasetInfo) -> "Dataset":
    """Merge the parts in `folder` into a dataset, with episodes numbered from 0 in their order, and return it.

    After a kill, call it again: nothing is lost.

    Raises:
        DatasetError: there are no whole episodes.
    """
    folder = Path(folder)
    parts = sorted((folder / PARTS).glob("*.arrow"))
    schema = arrow_schema(info)
    found = {episode.number: episode for path in parts for episode in _whole_episodes(path, schema)}
    if not found:
        raise DatasetError(f"{folder} has no whole episode, so there is no dataset to finish")
    episodes = (found[number].batches(schema) for number in sorted(found))
    dataset = write_pieces(folder, info, ((i, batch) for i, batches in enumerate(episodes) for batch in batches))
    shutil.rmtree(folder / PARTS)
    return dataset


def write_pieces(folder: Path | str, info: DatasetInfo, pieces: Iterable[tuple[int, pa.RecordBatch]]) -> "Dataset":
    """Write consecutive `pieces` of episodes, each with its episode's number, into the new dataset `folder`.

    Memory holds the pieces of one file (`ROWS_A_FILE` rows or `BYTES_A_FILE` bytes) and the last piece.

    Raises:
        DatasetError: there are no pieces.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    schema = arrow_schema(info)
    files: list[str] = []
    waiting: list[pa.RecordBatch] = []
    rows = waiting_rows = waiting_bytes = 0

    def write_file() -> None:
        table = pa.Table.from_batches(waiting, schema).combine_chunks()
        name = f"data-{len(files):05d}.arrow"
        with atomic_file(folder / name) as temporary, pa.ipc.new_stream(str(temporary), schema) as stream:
            stream.write_table(table)
        files.append(name)
        waiting.clear()

    index = schema.get_field_index("episode_index")
    for number, batch in pieces:
        waiting.append(batch.set_column(index, schema.field(index), pa.array(np.full(batch.num_rows, number))))
        rows += batch.num_rows
        waiting_rows += batch.num_rows
        waiting_bytes += waiting[-1].nbytes
        if waiting_rows >= ROWS_A_FILE or waiting_bytes >= BYTES_A_FILE:
            write_file()
            waiting_rows = waiting_bytes = 0
    if waiting:
        write_file()
    if not files:
        raise DatasetError(f"{folder}: no episodes, so there is no dataset to write")
    write_json(folder / "dataset_info.json", {"features": hub_features(info)})
    write_json(folder / "state.json", _state(files))
    hashes = {name: file_sha256(folder / name) for name in files}
    about = {"format_version": FORMAT_VERSION, "rows": rows, "files": files, "sha256": hashes}
    write_json(folder / INFO_FILE, about | dataclasses.asdict(info))  # Written last: a folder with this file is whole.
    dataset = Dataset(folder)
    write_json(folder / INFO_FILE, dataset.description())
    return dataset


class Column(Sequence[Any]):
    """One column over all files of a dataset, in place on disk: `column[i]`, `column[a:b]`, `column[indices]`."""

    def __init__(self, arrays: list[np.ndarray]):
        self._arrays = arrays
        self._starts = np.cumsum([0, *(len(array) for array in arrays)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the number of rows, and the shape of a row."""
        return (len(self), *self._arrays[0].shape[1:])

    def __getitem__(self, index: Any) -> Any:
        """Return a view of one row for an integer, or a copy of the rows of a slice or of an array of row numbers."""
        if isinstance(index, int | np.integer):
            number = range(len(self))[index]
            file = int(np.searchsorted(self._starts, number, side="right")) - 1
            return self._arrays[file][number - self._starts[file]]
        if isinstance(index, slice):
            index = np.arange(*index.indices(len(self)))
        index = np.asarray(index)
        flat = index.ravel() if index.size else np.empty(0, int)
        if flat.size and not -len(self) <= flat.min() <= flat.max() < len(self):
            raise IndexError(f"row numbers {flat.min()} to {flat.max()}; this column has {len(self)} rows")
        flat = np.where(flat < 0, flat + len(self), flat)
        found = np.empty((len(flat), *self._arrays[0].shape[1:]), self._arrays[0].dtype)
        files = np.searchsorted(self._starts, flat, side="right") - 1
        for file in np.unique(files):
            mask = files == file
            found[mask] = self._arrays[file][flat[mask] - self._starts[file]]
        return found.reshape(*index.shape, *found.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return the whole column as an array: of one file in place, of several files as a copy."""
        array = self._arrays[0] if len(self._arrays) == 1 else np.concatenate(self._arrays)
        return np.asarray(array, dtype=dtype)


class Dataset:
    """A finished dataset, opened through a memory map. One of format version 1 has the columns of the present version.

    Attributes:
        folder: its folder.
        info: description of its rows.
        episodes: (E, 2) int64, first row and the row behind the last of each episode.
    """

    def __init__(self, folder: Path | str):
        """Open the dataset in `folder`, without reading a row; of format version 1, the efforts are read.

        Raises:
            DatasetError: there is none, it is not whole, or its files differ from `info.json`.
        """
        self.folder = Path(folder).expanduser()
        file = self.folder / INFO_FILE
        if not file.is_file():
            unfinished = (self.folder / PARTS).is_dir()
            raise DatasetError(
                f"{self.folder} is an unfinished dataset; run its command again to continue"
                if unfinished
                else f"no dataset at '{self.folder}': expected a folder with {INFO_FILE}"
            )
        description = read_json(file, DatasetError)
        try:
            version = description.pop("format_version")
            self._files = [str(name) for name in description.pop("files")]
            self._sha256 = {str(name): digest for name, digest in dict(description.pop("sha256", {})).items()}
            rows = int(description.pop("rows"))
            description.pop("unknown_rows", None)  # For other readers; here `usable_columns` counts.
            self.info = _info_of(description)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, VjepaError) as error:
            raise DatasetError(f"{file} does not describe a dataset: {type(error).__name__} {error}") from error
        if version not in (1, FORMAT_VERSION):
            raise DatasetError(f"{file} has format_version {version}; this release reads 1 and {FORMAT_VERSION}")
        schema = arrow_schema(self.info)
        if version == 1:
            schema = schema.remove(schema.get_field_index("effort"))
        self._batches = [batch for name in self._files for batch in _open_batches(self._path(name), schema)]
        if version == 1:
            self._batches = [_with_action(batch, self.info) for batch in self._batches]
        found = len(self)
        if not found:
            raise DatasetError(f"{self.folder} has no rows; make it anew")
        if found != rows:
            raise DatasetError(f"{self.folder} has {found} rows in its files; {INFO_FILE} states {rows}")
        index = np.asarray(self["episode_index"])
        starts = np.flatnonzero(np.diff(index, prepend=index[0] - 1))
        self.episodes = np.stack([starts, np.append(starts[1:], len(index))], axis=1)

    def description(self) -> dict[str, Any]:
        """Return the content of `info.json` for these rows in the present format version."""
        about = {"format_version": FORMAT_VERSION, "rows": len(self), "files": self._files, "sha256": self._sha256}
        return about | dataclasses.asdict(self.info) | {"unknown_rows": unknown_rows(self)}

    def __len__(self) -> int:
        return sum(batch.num_rows for batch in self._batches)

    def __getitem__(self, name: str) -> Column:
        """Return the column `name`.

        Raises:
            DatasetError: there is no such column.
        """
        columns = self.info.columns()
        if name not in columns:
            hint = "; build it with frames kept" if name == IMAGE else "; encode it first" if name == LATENT else ""
            raise DatasetError(f"{self.folder} has no column '{name}'{hint}; it has {', '.join(columns)}")
        kind, shape = columns[name]
        return Column([_numpy(batch.column(name), kind, shape) for batch in self._batches])

    def check_encoder(self, name: str, fingerprint: str) -> None:
        """Refuse an encoder other than the encoder of the latents.

        Raises:
            DatasetError: `fingerprint`, of the encoder `name`, differs.
        """
        made = self.info.encoder_fingerprint
        if fingerprint != made:
            raise DatasetError(
                f"{self.folder} has latents of encoder {encoder_label(self.info.encoder_name, made)}, but this is "
                f"{encoder_label(name, fingerprint)}; name the encoder that the dataset was made with"
            )

    def pieces(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield the episodes in place for `write_pieces`: number and rows, once for each file of the episode."""
        offset, batches = 0, iter(self._batches)
        batch = next(batches)
        for number, (start, stop) in enumerate(self.episodes.tolist()):
            while start < stop:
                while start >= offset + batch.num_rows:
                    offset += batch.num_rows
                    batch = next(batches)
                end = min(stop, offset + batch.num_rows)
                yield number, batch.slice(start - offset, end - start)
                start = end

    def verify(self) -> None:
        """Read every file and compare its hash with the hash from the time when the dataset was made.

        Raises:
            DatasetError: a file is damaged or was replaced, so that its hash differs; or it has no hash.
        """
        for name in self._files:
            if name not in self._sha256:
                raise DatasetError(
                    f"{self.folder / INFO_FILE} has no sha256 of {name}; merge the dataset into a new one"
                )
            if (found := file_sha256(self._path(name))) != self._sha256[name]:
                raise DatasetError(
                    f"{self._path(name)} has sha256 {found}; {INFO_FILE} states {self._sha256[name]}: the file was "
                    "damaged or exchanged, get it again or make the dataset anew"
                )

    def _path(self, name: str) -> Path:
        if Path(name).name != name:
            raise DatasetError(f"{self.folder / INFO_FILE} names the file '{name}'; expected one in the same folder")
        return self.folder / name


def arrow_schema(info: DatasetInfo) -> pa.Schema:
    """Return the Arrow schema of the rows that `info` describes: scalars, and flat fixed-size lists for arrays."""
    fields = []
    for name, (kind, shape) in info.columns().items():
        value = pa.from_numpy_dtype(kind)
        fields.append(pa.field(name, pa.list_(value, int(np.prod(shape))) if shape else value))
    return pa.schema(fields)


def _batch(rows: Mapping[str, np.ndarray], columns: Mapping[str, Any], schema: pa.Schema) -> pa.RecordBatch:
    length = len(rows["stamp_ns"])
    arrays = []
    for name, (kind, shape) in columns.items():
        values = np.ascontiguousarray(rows[name], kind)
        if values.shape != (length, *shape):
            raise DatasetError(f"column '{name}' has shape {values.shape}; expected {(length, *shape)}")
        flat = pa.array(values.reshape(-1))
        arrays.append(pa.FixedSizeListArray.from_arrays(flat, int(np.prod(shape))) if shape else flat)
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


class _PartEpisode(NamedTuple):
    """A whole episode of a part: its number, the places of its record batches in the file `path`, and its end."""

    number: int
    path: Path
    places: list[int]
    end: int

    def batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Yield the record batches by reading them: pages of a mapped file would stay in memory."""
        with pa.OSFile(str(self.path)) as file:
            for place in self.places:
                file.seek(place)
                yield pa.ipc.read_record_batch(pa.ipc.read_message(file), schema)


def _whole_episodes(path: Path, schema: pa.Schema) -> Iterator[_PartEpisode]:
    """Yield each whole episode of a part, however the file ends."""
    number, places, several, place = 0, list[int](), False, schema.serialize().size
    for batch, end in _whole_batches(path, schema):
        if batch.num_rows:
            number = batch.column("episode_index")[0].as_py()
            places.append(place)
        else:
            several = not several
        if not several and places:
            yield _PartEpisode(number, path, places, end)
            places = []
        place = end


def _whole_batches(path: Path, schema: pa.Schema) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Yield each whole record batch of a part, mapped into memory, and its end offset, however the file ends."""
    _refuse_folded(path)
    try:
        source = pa.memory_map(str(path))
        with pa.ipc.open_stream(source) as stream:
            if not stream.schema.equals(schema):
                raise DatasetError(
                    f"{path} contains rows of another dataset: {stream.schema.names}; choose another folder"
                )
            while True:
                yield stream.read_next_batch(), source.tell()
    except (StopIteration, pa.ArrowInvalid, OSError):
        return


def _open_batches(path: Path, schema: pa.Schema) -> list[pa.RecordBatch]:
    """Return the record batches of a finished dataset's Arrow stream file, mapped into memory."""
    batches = []
    _refuse_folded(path)
    try:
        with pa.ipc.open_stream(pa.memory_map(str(path))) as stream:
            if not stream.schema.equals(schema):
                raise DatasetError(f"{path} has columns {stream.schema}; {INFO_FILE} describes {schema}")
            while True:
                batches.append(stream.read_next_batch())
                batches[-1].validate()  # Checks sizes alone: wrong ones would lead reads beyond the file.
    except StopIteration:
        return batches
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} is not a readable Arrow stream: {error}") from error


def _with_action(batch: pa.RecordBatch, info: DatasetInfo) -> pa.RecordBatch:
    """Return a record batch of format version 1, whose `action` is the effort, in the present format version."""
    n, schema = len(info.joint_names), arrow_schema(info)
    effort = batch.column("action")
    actions = info.arm.to_action(_numpy(effort, np.dtype(np.float64), (n,)))
    columns = {name: batch.column(name) for name in batch.schema.names}
    columns |= {"action": pa.FixedSizeListArray.from_arrays(pa.array(actions.reshape(-1)), n), "effort": effort}
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def _refuse_folded(path: Path) -> None:
    try:
        check_unfolded(path)
    except FoldedError as error:
        raise DatasetError(f"{path} is not a file of this project's: {error}") from error


def _numpy(array: pa.Array, kind: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Return an Arrow array without nulls as numpy, in place (booleans, which Arrow packs, are copied)."""
    flat = array.flatten() if shape else array
    if array.null_count or flat.null_count:
        raise DatasetError("a column has nulls; expected NaN for values that are not known")
    try:
        return flat.to_numpy(zero_copy_only=kind != np.bool_).reshape(len(array), *shape)
    except (pa.ArrowException, ValueError) as error:
        raise DatasetError(f"a column is damaged: {error}; make the dataset anew") from error


def hub_features(info: DatasetInfo) -> dict[str, Any]:
    """Return the columns as `datasets` describes them in `dataset_info.json`."""
    features = {}
    for name, (kind, shape) in info.columns().items():
        value = {"dtype": "bool" if kind == np.bool_ else kind.name, "_type": "Value"}
        features[name] = {"feature": value, "length": int(np.prod(shape)), "_type": "List"} if shape else value
    return features


def _state(files: list[str]) -> dict[str, Any]:
    return {
        "_data_files": [{"filename": name} for name in files],
        "_fingerprint": "0" * 16,
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }


def _is_shape(value: Any, dimensions: int) -> bool:
    return value is None or (
        isinstance(value, list)
        and len(value) == dimensions
        and all(type(size) is int and size > 0 for size in value)
        and math.prod(value) < 2**31
    )


def _is_list_of(value: Any, kind: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, kind) for entry in value)


_VALID: dict[str, Callable[[Any], bool]] = {
    "joint_names": lambda value: _is_list_of(value, str) and len(value) > 0,
    "effort_limit": lambda value: isinstance(value, int | float) or _is_list_of(value, int | float),
    "control_period_ns": lambda value: type(value) is int and value > 0,
    "latent_shape": lambda value: _is_shape(value, 2),
    "image_shape": lambda value: _is_shape(value, 3),
    "plain_images": lambda value: isinstance(value, bool),
    "encoder": lambda value: value is None or (isinstance(value, dict) and isinstance(value.get("fingerprint"), str)),
    "task": lambda value: isinstance(value, str),
    "sources": lambda value: _is_list_of(value, dict),
}


def _info_of(description: dict[str, Any]) -> DatasetInfo:
    if unknown := description.keys() - _VALID.keys():
        raise KeyError(f"unknown entries {sorted(unknown)}")
    for name, value in description.items():
        if not _VALID[name](value):
            raise ValueError(f"{name} is {value!r:.100}")
    values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in description.items()}
    limits = EffortLimits.of(values["joint_names"], values["effort_limit"]).limits  # One number was for every joint.
    return DatasetInfo(**values | {"effort_limit": limits})
