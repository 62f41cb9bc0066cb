"""An export is a LeRobot dataset v3.0 that holds what ours does.

The tests by LeRobot's own reader need lerobot, which `make test` installs apart; tests/test_lerobot.py runs them then.
"""

import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch

from vjepa_training.data import lerobot_export as module
from vjepa_training.data.dataset import IMAGE, LATENT, Dataset, DatasetError, DatasetInfo, EpisodeWriter, finish_dataset
from vjepa_training.data.lerobot_export import export_lerobot, frames_per_second, lerobot_episodes

INFO = DatasetInfo(
    joint_names=("shoulder", "wrist"),
    effort_limit=(0.05, 0.05),
    control_period_ns=20_000_000,
    latent_shape=(3, 4),
    image_shape=(8, 6, 3),
    encoder={"fingerprint": "abc", "model": "tiny"},
    task="reacher-easy",
    sources=({"command": "test"},),
)
GAP = 3
"""Row of the longest episode behind which the next control step is missing."""
TORCHVISION_OPERATORS = torch.library.Library("torchvision", "FRAGMENT")


def write(folder: Path, lengths=(5, 1, 8), info: DatasetInfo = INFO, **changes) -> Dataset:
    """Write episodes of random values; the longest lacks a step behind row GAP. `changes` replace whole columns."""
    with EpisodeWriter(folder, info) as writer:
        for number, length in enumerate(lengths):
            rng = np.random.default_rng(number)
            rows = {}
            for name, (kind, shape) in info.columns().items():
                values = (
                    rng.integers(0, 256, (length, *shape)) if kind == np.uint8 else rng.normal(size=(length, *shape))
                )
                rows[name] = values.astype(kind)
                if name in changes:
                    rows[name][:] = changes[name]
            rows["stamp_ns"] = np.arange(length) * info.control_period_ns
            rows["has_next"] = (np.arange(length) < length - 1) & ((np.arange(length) != GAP) | (length < 6))
            for name in ("action", "effort", "command", "next.reward", "next.discount"):
                rows[name][~rows["has_next"]] = np.nan
            rows["next.done"] = np.arange(length) == length - 2
            del rows["episode_index"]
            writer.add(number, rows)
    return finish_dataset(folder, info)


def frames_of(folder: Path) -> dict[str, list]:
    """Every column of the frames, in the order of the files."""
    tables = [parquet.read_table(path) for path in sorted((folder / "data").rglob("*.parquet"))]
    return {name: [value for table in tables for value in table[name].to_pylist()] for name in tables[0].column_names}


def episodes_of(folder: Path) -> list[dict]:
    files = sorted((folder / "meta/episodes").rglob("*.parquet"))
    return [row for path in files for row in parquet.read_table(path).to_pylist()]


def meta(folder: Path, name: str) -> dict:
    return json.loads((folder / "meta" / name).read_text())


def kept_rows(dataset: Dataset) -> np.ndarray:
    return np.concatenate([np.arange(*episode) for episode in lerobot_episodes(dataset)])


@pytest.fixture
def exported(tmp_path) -> tuple[Dataset, Path]:
    dataset = write(tmp_path / "ds")
    return dataset, export_lerobot(dataset, tmp_path / "out")


# ------------------------------------------------------------------------------------------------------- what it holds


def test_a_frame_is_a_row_with_an_action_and_a_gap_cuts_an_episode(exported):
    dataset, folder = exported
    assert list(lerobot_episodes(dataset)) == [(0, 4), (6, 9), (10, 13)]
    frames = frames_of(folder)
    assert frames["episode_index"] == [0] * 4 + [1] * 3 + [2] * 3
    assert frames["frame_index"] == [0, 1, 2, 3, 0, 1, 2, 0, 1, 2]
    assert frames["index"] == list(range(10))
    assert frames["task_index"] == [0] * 10
    np.testing.assert_array_equal(frames["timestamp"], np.float32(np.array(frames["frame_index"]) / 50))
    assert np.flatnonzero(frames["next.done"]).tolist() == [3, 9]


def test_every_value_is_ours_as_float32(exported):
    dataset, folder = exported
    frames, rows = frames_of(folder), kept_rows(dataset)
    state = np.concatenate(
        [dataset["observation.joint_position"][rows], dataset["observation.joint_velocity"][rows]], 1
    )
    expected = {
        "observation.state": state,
        LATENT: dataset[LATENT][rows].reshape(len(rows), -1),
        "action": dataset["action"][rows],
        "next.reward": dataset["next.reward"][rows],
    }
    for name, values in expected.items():
        np.testing.assert_array_equal(np.array(frames[name], np.float32), values.astype(np.float32), name)
    for file, rgb in zip(frames[IMAGE], dataset[IMAGE][rows], strict=True):
        decoded = cv2.imdecode(np.frombuffer(file["bytes"], np.uint8), cv2.IMREAD_COLOR)
        np.testing.assert_array_equal(decoded[..., ::-1], rgb)


def test_its_description_is_that_of_the_format(exported):
    dataset, folder = exported
    info = meta(folder, "info.json")
    features = info.pop("features")
    assert info == {
        "codebase_version": "v3.0",
        "robot_type": "reacher",
        "total_episodes": 3,
        "total_frames": 10,
        "total_tasks": 1,
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": 50,
        "splits": {"train": "0:3"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": None,
    }
    assert {name: (feature["dtype"], feature["shape"]) for name, feature in features.items()} == {
        "observation.state": ("float32", [4]),
        LATENT: ("float32", [12]),
        IMAGE: ("image", [8, 6, 3]),
        "action": ("float32", [2]),
        "next.reward": ("float32", [1]),
        "next.done": ("bool", [1]),
        "timestamp": ("float32", [1]),
        "frame_index": ("int64", [1]),
        "episode_index": ("int64", [1]),
        "index": ("int64", [1]),
        "task_index": ("int64", [1]),
    }
    assert features["observation.state"]["names"] == ["shoulder.pos", "wrist.pos", "shoulder.vel", "wrist.vel"]
    assert features["action"]["names"] == ["shoulder", "wrist"]
    schema = parquet.read_schema(folder / "data/chunk-000/file-000.parquet")
    assert schema.names == list(features)
    kinds = {"float32": "float", "int64": "int64", "bool": "bool"}
    for name, feature in features.items():
        if feature["dtype"] != "image":
            kind, shape = kinds[feature["dtype"]], feature["shape"]
            expected = kind if shape == [1] else f"fixed_size_list<element: {kind}>[{shape[0]}]"
            assert str(schema.field(name).type).replace("item", "element") == expected, name
    tasks = parquet.read_table(folder / "meta/tasks.parquet")
    assert tasks.to_pydict() == {"task_index": [0], "__index_level_0__": ["reacher-easy"]}
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["__index_level_0__"]
    assert meta(folder, "vjepa.json") == json.loads((dataset.folder / "info.json").read_text())


def test_an_episode_says_where_its_frames_lie_and_what_their_statistics_are(exported):
    dataset, folder = exported
    episodes = episodes_of(folder)
    where = [(e["episode_index"], e["dataset_from_index"], e["dataset_to_index"], e["length"]) for e in episodes]
    assert where == [(0, 0, 4, 4), (1, 4, 7, 3), (2, 7, 10, 3)]
    for episode in episodes:
        assert episode["tasks"] == ["reacher-easy"]
        for kind in ("data", "meta/episodes"):
            assert (episode[f"{kind}/chunk_index"], episode[f"{kind}/file_index"]) == (0, 0)
    actions = dataset["action"][6:9].astype(np.float32)
    np.testing.assert_allclose(episodes[1]["stats/action/mean"], actions.mean(0), rtol=1e-5)
    np.testing.assert_allclose(episodes[1]["stats/action/q90"], np.quantile(actions, 0.9, axis=0), rtol=1e-5)
    assert episodes[1]["stats/action/count"] == [3]
    assert np.shape(episodes[1][f"stats/{IMAGE}/mean"]) == (3, 1, 1)
    assert not [name for name in episodes[1] if name.startswith(f"stats/{LATENT}")]


@pytest.mark.parametrize("block_rows", [1, 2, 1024])
def test_statistics_are_those_of_all_rows_however_they_were_read(tmp_path, monkeypatch, block_rows):
    monkeypatch.setattr(module, "BLOCK_ROWS", block_rows)
    dataset = write(tmp_path / "ds")
    stats = meta(export_lerobot(dataset, tmp_path / "out"), "stats.json")
    assert list(stats) == list(meta(tmp_path / "out", "info.json")["features"])
    rows = kept_rows(dataset)
    latents = dataset[LATENT][rows].reshape(len(rows), -1).astype(np.float64)
    for what, expected in {
        "min": latents.min(0),
        "max": latents.max(0),
        "mean": latents.mean(0),
        "std": latents.std(0),
    }.items():
        np.testing.assert_allclose(stats[LATENT][what], expected, rtol=1e-9, atol=1e-12, err_msg=what)
    assert stats[LATENT]["count"] == [10]
    assert stats["next.done"]["mean"] == pytest.approx([0.2])
    assert stats["next.reward"].keys() == {"min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"}
    assert 0.0 <= np.min(stats[IMAGE]["min"]) <= np.max(stats[IMAGE]["max"]) <= 1.0
    assert np.shape(stats[IMAGE]["std"]) == (3, 1, 1)


def test_a_large_dataset_is_many_files_with_whole_episodes(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FILE_BYTES", 3000)
    monkeypatch.setattr(module, "CHUNK_FILES", 2)
    monkeypatch.setattr(module, "GROUP_ROWS", 2)
    dataset = write(tmp_path / "ds", [5] * 6)
    folder = export_lerobot(dataset, tmp_path / "out")
    names = sorted(str(path.relative_to(folder / "data")) for path in (folder / "data").rglob("*.parquet"))
    assert names[:3] == ["chunk-000/file-000.parquet", "chunk-000/file-001.parquet", "chunk-001/file-000.parquet"]
    for episode in episodes_of(folder):
        path = f"data/chunk-{episode['data/chunk_index']:03d}/file-{episode['data/file_index']:03d}.parquet"
        index = np.array(parquet.read_table(folder / path)["index"])
        assert set(range(episode["dataset_from_index"], episode["dataset_to_index"])) <= set(index.tolist())
    assert frames_of(folder)["index"] == list(range(24))
    sizes = meta(folder, "info.json")
    assert (sizes["total_frames"], sizes["total_episodes"]) == (24, 6)


def test_what_a_dataset_does_not_know_is_not_in_the_export(tmp_path):
    info = replace(INFO, latent_shape=None, encoder=None, image_shape=None, task="")
    dataset = write(tmp_path / "ds", info=info, **{"next.reward": np.nan, "observation.joint_velocity": np.nan})
    features = meta(export_lerobot(dataset, tmp_path / "out"), "info.json")["features"]
    assert features.keys() & {LATENT, IMAGE, "next.reward"} == set()
    assert features["observation.state"]["names"] == ["shoulder.pos", "wrist.pos"]
    assert parquet.read_table(tmp_path / "out/meta/tasks.parquet")["__index_level_0__"].to_pylist() == ["unknown"]


@pytest.mark.parametrize(
    ("period_ns", "fps"), [(20_000_000, 50), (33_366_667, 30), (33_333_333, 30), (30_000_000, 1e9 / 3e7)]
)
def test_the_frame_rate_is_a_whole_number_where_one_is_near(period_ns, fps):
    assert frames_per_second(period_ns) == fps
    assert isinstance(frames_per_second(period_ns), type(fps))


def test_load_dataset_reads_it_without_lerobot(exported, tmp_path):
    datasets = pytest.importorskip("datasets")
    theirs = datasets.load_dataset(str(exported[1] / "data"), split="train", cache_dir=str(tmp_path / "cache"))
    assert theirs.features["observation.latent"].length == 12
    assert np.asarray(theirs[0][IMAGE]).shape == (8, 6, 3)


# -------------------------------------------------------------------------------------------------------- what is wrong


def test_nothing_is_written_over(tmp_path):
    dataset = write(tmp_path / "ds")
    (tmp_path / "out").mkdir()
    with pytest.raises(DatasetError, match="out exists already; choose another folder"):
        export_lerobot(dataset, tmp_path / "out")


def test_an_action_that_is_not_known_is_refused_and_leaves_nothing(tmp_path):
    dataset = write(tmp_path / "ds", action=np.nan)
    with pytest.raises(DatasetError, match="action of row 0 is not finite"):
        export_lerobot(dataset, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["ds"]


def test_a_dataset_without_a_transition_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="no row with a next row"):
        export_lerobot(write(tmp_path / "ds", [1, 1]), tmp_path / "out")


def test_an_interrupted_export_leaves_nothing(tmp_path):
    dataset = write(tmp_path / "ds")

    def interrupt(rows):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_lerobot(dataset, tmp_path / "out", interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["ds"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    dataset = write(tmp_path / "ds")
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match=re.escape(f"{tmp_path / 'file' / 'out'} cannot be written")):
        export_lerobot(dataset, tmp_path / "file" / "out")


# ---------------------------------------------------------------------------------------------- by LeRobot's own reader


@pytest.fixture(scope="module")
def reader():
    """LeRobotDataset; a torchvision that was built for another torch is helped over the operators it misses.

    See the tests of preprocessing for why. Nothing that is used here needs these operators.
    """
    if importlib.util.find_spec("lerobot") is None:
        pytest.skip("lerobot is not there; run `make test`")
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in ("nms", "qnms"):
            TORCHVISION_OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset


@pytest.mark.parametrize("file_bytes", [3000, 2**20])
def test_lerobots_reader_gives_every_row_as_ours_has_it(reader, tmp_path, monkeypatch, file_bytes):
    monkeypatch.setattr(module, "FILE_BYTES", file_bytes)
    dataset = write(tmp_path / "ds")
    theirs = reader("me/arm", root=export_lerobot(dataset, tmp_path / "out"))
    rows = kept_rows(dataset)
    assert (len(theirs), theirs.num_episodes, theirs.fps) == (len(rows), 3, 50)
    for item, row in zip((theirs[i] for i in range(len(theirs))), rows, strict=True):
        state = [*dataset["observation.joint_position"][row], *dataset["observation.joint_velocity"][row]]
        expected = {
            "observation.state": np.float32(state),
            LATENT: dataset[LATENT][row].reshape(-1).astype(np.float32),
            IMAGE: np.float32(dataset[IMAGE][row].transpose(2, 0, 1)) / np.float32(255),
            "action": dataset["action"][row].astype(np.float32),
            "next.reward": np.float32(dataset["next.reward"][row]),
            "next.done": dataset["next.done"][row],
            "timestamp": np.float32(item["frame_index"] / 50),
        }
        for name, value in expected.items():
            np.testing.assert_array_equal(item[name].numpy(), value, name)
        assert item["task"] == "reacher-easy"


def test_lerobots_reader_gives_windows_of_frames_and_single_episodes(reader, tmp_path):
    dataset = write(tmp_path / "ds")
    folder = export_lerobot(dataset, tmp_path / "out")
    theirs = reader("me/arm", root=folder, episodes=[2], delta_timestamps={"action": [0.0, 0.02, 0.04]})
    assert len(theirs) == 3
    np.testing.assert_array_equal(theirs[0]["action"].numpy(), dataset["action"][10:13].astype(np.float32))
    assert theirs[1]["action_is_pad"].tolist() == [False, False, True]
    for name, feature in theirs.features.items():
        shape = (3, 1, 1) if name == IMAGE else feature["shape"]
        assert theirs.meta.stats[name]["mean"].shape == shape


def test_lerobots_reader_takes_a_frame_rate_that_is_no_whole_number(reader, tmp_path):
    dataset = write(tmp_path / "ds", info=replace(INFO, control_period_ns=30_000_000))
    folder = export_lerobot(dataset, tmp_path / "out")
    theirs = reader("me/arm", root=folder, delta_timestamps={"action": [0.0, 0.03]})
    np.testing.assert_array_equal(theirs[0]["action"].numpy(), dataset["action"][:2].astype(np.float32))


def test_lerobots_tools_take_an_episode_out_as_its_reader_shows(reader, tmp_path):
    from lerobot.datasets.dataset_tools import delete_episodes

    dataset = write(tmp_path / "ds")
    theirs = reader("me/arm", root=export_lerobot(dataset, tmp_path / "out"))
    less = delete_episodes(theirs, [0], output_dir=tmp_path / "less", repo_id="me/less")
    assert (len(less), less.num_episodes) == (6, 2)
    np.testing.assert_array_equal(less[0]["action"].numpy(), dataset["action"][6].astype(np.float32))
