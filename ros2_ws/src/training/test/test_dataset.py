"""A dataset is what was written, however it was interrupted, and the field's own tools read it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vjepa_training.data import dataset as module
from vjepa_training.data.dataset import (
    IMAGE,
    INFO_FILE,
    LATENT,
    PARTS,
    Dataset,
    DatasetError,
    DatasetInfo,
    EpisodeWriter,
    claim_parts,
    finish_dataset,
    whole_episodes,
)
from vjepa_training.data.dataset_tools import encode_dataset, merge_datasets

INFO = DatasetInfo(
    joint_names=("shoulder", "wrist"),
    effort_limit=(0.05, 0.05),
    control_period_ns=20_000_000,
    latent_shape=(3, 4),
    image_shape=(5, 6, 3),
    encoder={"fingerprint": "abc", "model": "tiny"},
    task="reacher-easy",
    sources=({"command": "test"},),
)


def rows_of(episode: int, length: int, info: DatasetInfo = INFO) -> dict[str, np.ndarray]:
    """Rows in which every value is random, NaN where there is no next one."""
    rng = np.random.default_rng(episode)
    rows = {}
    for name, (kind, shape) in info.columns().items():
        values = rng.integers(0, 200, (length, *shape)) if kind.kind in "iu" else rng.normal(size=(length, *shape))
        rows[name] = values.astype(kind)
    rows["stamp_ns"] = np.arange(length) * info.control_period_ns
    rows["next.reward"][-1:] = np.nan
    del rows["episode_index"]
    return rows


def write(folder: Path, lengths=(4, 1, 7), info: DatasetInfo = INFO, first: int = 0) -> Dataset:
    with EpisodeWriter(folder, info) as writer:
        for number, length in enumerate(lengths):
            writer.add(number, rows_of(first + number, length, info))
    return finish_dataset(folder, info)


def assert_holds(dataset: Dataset, episodes: list[dict[str, np.ndarray]]) -> None:
    assert len(dataset.episodes) == len(episodes)
    for number, ((start, stop), rows) in enumerate(zip(dataset.episodes, episodes, strict=True)):
        assert dataset["episode_index"][start:stop].tolist() == [number] * (stop - start)
        for name, values in rows.items():
            found = dataset[name][start:stop]
            assert found.dtype == values.dtype
            np.testing.assert_array_equal(found, values, name)


def assert_same_values(theirs, ours: Dataset) -> None:
    """That a `datasets.Dataset` holds what ours does, type by type and value by value."""
    assert len(theirs) == len(ours)
    table = theirs.with_format("arrow")[:]
    assert set(table.column_names) == set(ours.info.columns())
    for name, (kind, shape) in ours.info.columns().items():
        values = np.array(table[name].to_pylist(), kind).reshape(-1, *shape)
        assert (theirs.features[name].feature if shape else theirs.features[name]).dtype == kind.name
        np.testing.assert_array_equal(values, np.asarray(ours[name]), name)


# ------------------------------------------------------------------------------------------------------ reading back


@pytest.mark.parametrize("rows_a_file", [1, 5, 16_384])
def test_what_is_written_is_read_back_value_by_value(tmp_path, monkeypatch, rows_a_file):
    monkeypatch.setattr(module, "ROWS_A_FILE", rows_a_file)
    dataset = write(tmp_path / "ds")
    assert_holds(dataset, [rows_of(0, 4), rows_of(1, 1), rows_of(2, 7)])
    assert dataset.info == INFO
    assert len(dataset) == 12
    assert not (tmp_path / "ds" / PARTS).exists()


def test_a_large_row_makes_more_files_not_larger_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BYTES_A_FILE", 500)
    dataset = write(tmp_path / "ds", [4, 4, 4])
    assert len(list(dataset.folder.glob("*.arrow"))) == 3
    assert_holds(dataset, [rows_of(number, 4) for number in range(3)])


def test_rows_are_read_in_place_from_a_memory_map(tmp_path):
    dataset = write(tmp_path / "ds")
    latents = np.asarray(dataset[LATENT])
    assert latents.shape == (12, 3, 4)
    assert not latents.flags.owndata
    assert not latents.flags.writeable
    row = dataset[IMAGE][3]
    assert row.shape == (5, 6, 3)
    assert not row.flags.owndata


def test_a_column_is_indexed_as_an_array_is(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROWS_A_FILE", 4)
    column = write(tmp_path / "ds")[LATENT]
    whole = np.asarray(column)
    assert column.shape == whole.shape
    pairs = np.array([[11, 3], [-12, -1]])
    for index in (0, -1, slice(2, 9, 3), slice(None, None, -1), [5, 0, 5], pairs, pairs[:0], []):
        wanted = whole[np.asarray(index, int)] if isinstance(index, list) else whole[index]
        np.testing.assert_array_equal(column[index], wanted)
    for index in (12, -13, [0, 12]):
        with pytest.raises(IndexError):
            column[index]


def test_a_column_that_is_not_there_is_named_with_what_to_do(tmp_path):
    dataset = write(tmp_path / "ds", info=replace(INFO, image_shape=None))
    with pytest.raises(DatasetError, match=r"no column 'observation.image'; build it with frames kept"):
        dataset[IMAGE]


def test_hugging_face_datasets_opens_the_folder(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(module, "ROWS_A_FILE", 5)
    ours = write(tmp_path / "ds")
    assert_same_values(datasets.load_from_disk(str(tmp_path / "ds")), ours)


def consistent(folder: Path, first: int = 0) -> Dataset:
    """Write episodes whose actions are those of their efforts."""
    with EpisodeWriter(folder, INFO) as writer:
        for number, length in enumerate((4, 1, 7)):
            rows = rows_of(first + number, length)
            rows["effort"] = np.clip(0.05 * rows["effort"], -0.05, 0.05)
            writer.add(number, rows | {"action": INFO.arm.to_action(rows["effort"])})
    return finish_dataset(folder, INFO)


def test_a_dataset_of_format_version_1_is_read_as_one_of_version_2(tmp_path, monkeypatch, as_version_1):
    monkeypatch.setattr(module, "ROWS_A_FILE", 5)
    new = consistent(tmp_path / "new")
    old = as_version_1(new, tmp_path / "old")
    old.verify()
    assert old.info == new.info
    assert {name: old.description()[name] for name in ("format_version", "effort_limit")} == {
        "format_version": 2,
        "effort_limit": (0.05, 0.05),
    }
    for name in new.info.columns():
        np.testing.assert_array_equal(np.asarray(old[name]), np.asarray(new[name]), name)
    assert not old[LATENT][3].flags.owndata, "latents stay in the mapped file"
    merged = merge_datasets([old, new], tmp_path / "merged")
    for name in set(new.info.columns()) - {"episode_index"}:
        np.testing.assert_array_equal(np.asarray(merged[name]), np.concatenate([new[name], new[name]]), name)
    encoded = encode_dataset(old, tmp_path / "encoded", Brightness(), {})
    np.testing.assert_array_equal(np.asarray(encoded["action"]), np.asarray(new["action"]))


# ------------------------------------------------------------------------------------------------------ interruptions


def cuts(folder: Path, info: DatasetInfo) -> list[int]:
    """Every kind of place that a kill may cut a part at: its start, in its head, in and between episodes, its end."""
    part = folder / PARTS / "0.arrow"
    size = part.stat().st_size
    ends = [end for _, end in module._whole_batches(part, module.arrow_schema(info))]
    exact = {place + d for place in (0, *ends) for d in (-1, 0, 1, 4, 8) if 0 <= place + d <= size}
    return sorted({*exact, *range(0, size, max(1, size // 60))})


def test_a_killed_writer_loses_only_its_open_episode_wherever_it_was(tmp_path):
    lengths = (4, 1, 7)
    with EpisodeWriter(tmp_path / "ds", INFO) as writer:
        for number, length in enumerate(lengths):
            writer.add(number, rows_of(number, length))
    ends = [end for _, end in module._whole_batches(tmp_path / "ds" / PARTS / "0.arrow", module.arrow_schema(INFO))]
    for cut in cuts(tmp_path / "ds", INFO):
        folder = shutil.copytree(tmp_path / "ds", tmp_path / f"cut-{cut}")
        with open(folder / PARTS / "0.arrow", "r+b") as file:
            file.truncate(cut)
        whole = {number for number, end in enumerate(ends) if end <= cut}
        assert whole_episodes(folder, INFO) == whole, cut
        with EpisodeWriter(folder, INFO) as writer:
            assert writer.episodes == whole, cut
            for number in {0, 1, 2} - whole:
                writer.add(number, rows_of(number, lengths[number]))
        assert_holds(finish_dataset(folder, INFO), [rows_of(n, length) for n, length in enumerate(lengths)])
        shutil.rmtree(folder)


def pieces_of(rows: dict[str, np.ndarray], size: int) -> list[dict[str, np.ndarray]]:
    """Return the rows of an episode in pieces of `size` rows, and one of none."""
    starts = range(0, len(rows["stamp_ns"]) + 1, size)
    return [{name: values[start : start + size] for name, values in rows.items()} for start in starts]


def test_an_episode_in_pieces_is_the_same_and_a_kill_in_any_of_them_loses_it_alone(tmp_path):
    episodes = [rows_of(number, length) for number, length in enumerate((4, 6, 3))]
    with EpisodeWriter(tmp_path / "ds", INFO) as writer:
        writer.add(0, episodes[0])
        first = (tmp_path / "ds" / PARTS / "0.arrow").stat().st_size
        assert writer.add_pieces(1, pieces_of(episodes[1], 2)) == 6
        second = (tmp_path / "ds" / PARTS / "0.arrow").stat().st_size
        writer.add(2, episodes[2])
        third = (tmp_path / "ds" / PARTS / "0.arrow").stat().st_size
    for cut in cuts(tmp_path / "ds", INFO):
        folder = shutil.copytree(tmp_path / "ds", tmp_path / f"cut-{cut}")
        with open(folder / PARTS / "0.arrow", "r+b") as file:
            file.truncate(cut)
        whole = {number for number, end in enumerate((first, second, third)) if end <= cut}
        assert whole_episodes(folder, INFO) == whole, cut
        with EpisodeWriter(folder, INFO) as writer:
            for number in {0, 1, 2} - whole:
                writer.add_pieces(number, pieces_of(episodes[number], 2))
        assert_holds(finish_dataset(folder, INFO), episodes)
        shutil.rmtree(folder)


def test_an_episode_whose_pieces_end_in_an_error_is_left_out(tmp_path):
    def broken():
        yield from pieces_of(rows_of(1, 6), 2)
        raise KeyboardInterrupt

    with EpisodeWriter(tmp_path / "ds", INFO) as writer:
        writer.add(0, rows_of(0, 4))
        with pytest.raises(KeyboardInterrupt):
            writer.add_pieces(1, broken())
        with pytest.raises(DatasetError, match="do not match"):
            writer.add_pieces(2, [*pieces_of(rows_of(2, 4), 2), {"stamp_ns": np.zeros(2)}])
        assert writer.add_pieces(3, []) == 0
        writer.add(1, rows_of(1, 3))
        assert writer.episodes == {0, 1}
    assert_holds(finish_dataset(tmp_path / "ds", INFO), [rows_of(0, 4), rows_of(1, 3)])


def test_an_episode_that_spans_files_is_merged_as_any_other(tmp_path, monkeypatch):
    episodes = [rows_of(number, length) for number, length in enumerate((4, 9, 3))]
    monkeypatch.setattr(module, "ROWS_A_FILE", 5)
    with EpisodeWriter(tmp_path / "ds", INFO) as writer:
        for number, rows in enumerate(episodes):
            writer.add_pieces(number, pieces_of(rows, 3))
    dataset = finish_dataset(tmp_path / "ds", INFO)
    assert len(list(dataset.folder.glob("data-*.arrow"))) == 3
    assert_holds(dataset, episodes)
    assert_holds(merge_datasets([dataset, dataset], tmp_path / "merged"), episodes * 2)


def test_a_part_that_was_only_begun_does_not_stand_in_the_way_of_the_others(tmp_path):
    with EpisodeWriter(tmp_path / "ds", INFO, "0") as writer:
        writer.add(5, rows_of(5, 3))
        head = (tmp_path / "ds" / PARTS / "0.arrow").read_bytes()[:100]
    EpisodeWriter(tmp_path / "ds", INFO, "1").close()
    (tmp_path / "ds" / PARTS / "2.arrow").touch()
    (tmp_path / "ds" / PARTS / "3.arrow").write_bytes(head)
    assert whole_episodes(tmp_path / "ds", INFO) == {5}
    assert_holds(finish_dataset(tmp_path / "ds", INFO), [rows_of(5, 3)])


def test_episodes_of_several_parts_are_put_in_the_order_of_their_numbers(tmp_path):
    for part, numbers in (("0", [2, 7]), ("1", [0, 4])):
        with EpisodeWriter(tmp_path / "ds", INFO, part) as writer:
            for number in numbers:
                writer.add(number, rows_of(number, 2))
    assert_holds(finish_dataset(tmp_path / "ds", INFO), [rows_of(number, 2) for number in (0, 2, 4, 7)])


def test_finishing_can_be_interrupted_and_done_again(tmp_path, monkeypatch):
    with EpisodeWriter(tmp_path / "ds", INFO) as writer:
        writer.add(0, rows_of(0, 3))

    def killed(path, content):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            finish_dataset(tmp_path / "ds", INFO)
    with pytest.raises(DatasetError, match="unfinished dataset; run its command again"):
        Dataset(tmp_path / "ds")
    assert_holds(finish_dataset(tmp_path / "ds", INFO), [rows_of(0, 3)])


# ---------------------------------------------------------------------------------------------------------- refusals


def test_a_writer_refuses_what_is_not_an_episode_of_this_dataset(tmp_path):
    with EpisodeWriter(tmp_path / "ds", INFO) as writer:
        writer.add(0, rows_of(0, 3))
        with pytest.raises(DatasetError, match="episode 0 was written"):
            writer.add(0, rows_of(0, 3))
        with pytest.raises(DatasetError, match="has no rows"):
            writer.add(1, rows_of(1, 0))
        with pytest.raises(DatasetError, match="do not match"):
            writer.add(1, {"stamp_ns": np.zeros(2)})
        with pytest.raises(DatasetError, match=r"column 'action' has shape \(3, 1\); expected \(3, 2\)"):
            writer.add(1, {**rows_of(1, 3), "action": np.zeros((3, 1))})
    with pytest.raises(DatasetError, match="another dataset"):
        EpisodeWriter(tmp_path / "ds", replace(INFO, latent_shape=(2, 4)))
    finish_dataset(tmp_path / "ds", INFO)
    with pytest.raises(DatasetError, match="finished dataset"):
        EpisodeWriter(tmp_path / "ds", INFO)


def test_a_part_has_one_writer_at_a_time(tmp_path):
    with EpisodeWriter(tmp_path / "ds", INFO), pytest.raises(DatasetError, match="another process is writing"):
        EpisodeWriter(tmp_path / "ds", INFO)
    EpisodeWriter(tmp_path / "ds", INFO).close()


def test_an_episode_that_two_parts_have_is_there_once(tmp_path):
    for part in ("0", "1"):
        with EpisodeWriter(tmp_path / "ds", INFO, part) as writer:
            writer.add(3, rows_of(3, 2))
    assert_holds(finish_dataset(tmp_path / "ds", INFO), [rows_of(3, 2)])


def test_an_unfinished_dataset_is_not_gone_on_with_under_other_settings(tmp_path):
    claim_parts(tmp_path / "ds", {"seed": 1, "size": (64, 64)})
    claim_parts(tmp_path / "ds", {"seed": 1, "size": (64, 64)})
    with pytest.raises(DatasetError, match=r"made with other settings \(policy, seed\)"):
        claim_parts(tmp_path / "ds", {"seed": 2, "size": (64, 64), "policy": "mix"})
    (tmp_path / "ds" / PARTS / module.MAKING_FILE).write_text("[")
    with pytest.raises(DatasetError, match="begin anew"):
        claim_parts(tmp_path / "ds", {"seed": 1})
    write(tmp_path / "done")
    with pytest.raises(DatasetError, match="finished dataset"):
        claim_parts(tmp_path / "done", {"seed": 1})


def test_a_folder_without_a_dataset_is_named(tmp_path):
    with pytest.raises(DatasetError, match=f"no dataset at '{tmp_path}'"):
        Dataset(tmp_path)
    with pytest.raises(DatasetError, match="no whole episode"):
        finish_dataset(tmp_path / "ds", INFO)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: "[", "is not readable JSON"),
        (lambda d: "[" * 100_000, "is not readable JSON"),
        (lambda d: "[]", "is not readable JSON: it holds a list"),
        (lambda d: {**d, "format_version": 99}, "format_version 99"),
        (lambda d: {**d, "rows": 7}, "12 rows in its files; info.json states 7"),
        (lambda d: {**d, "rows": 0, "files": []}, "no rows"),
        (lambda d: {**d, "files": ["../ds/data-00000.arrow"]}, "expected one in the same folder"),
        (lambda d: {**d, "files": ["/etc/passwd"]}, "expected one in the same folder"),
        (lambda d: {**d, "files": ["missing.arrow"]}, "not a readable Arrow stream"),
        (lambda d: {**d, "files": 5}, "does not describe a dataset"),
        (lambda d: {**d, "unknown": 5}, "unknown entries"),
        (lambda d: {k: v for k, v in d.items() if k != "joint_names"}, "does not describe a dataset"),
        (lambda d: {**d, "joint_names": "shoulder"}, "joint_names"),
        (lambda d: {**d, "joint_names": [1, 2]}, "joint_names"),
        (lambda d: {**d, "effort_limit": "much"}, "effort_limit"),
        (lambda d: {**d, "effort_limit": -1.0}, "effort_limit"),
        (lambda d: {**d, "effort_limit": [0.05, -1.0]}, "effort_limit"),
        (lambda d: {**d, "effort_limit": [0.05] * 3}, "effort_limit has 3 values; expected one number, or one for"),
        (lambda d: {**d, "control_period_ns": 0}, "control_period_ns"),
        (lambda d: {**d, "latent_shape": ["x", 2]}, "latent_shape"),
        (lambda d: {**d, "latent_shape": [-1, 4]}, "latent_shape"),
        (lambda d: {**d, "latent_shape": [12]}, "latent_shape"),
        (lambda d: {**d, "latent_shape": [2**40, 2**40]}, "latent_shape"),
        (lambda d: {**d, "latent_shape": [4, 4]}, "describes"),
        (lambda d: {**d, "image_shape": {"a": 1}}, "image_shape"),
        (lambda d: {**d, "encoder": {"model": "tiny"}}, "encoder"),
        (lambda d: {**d, "encoder": "abc"}, "encoder"),
        (lambda d: {**d, "task": 5}, "task"),
        (lambda d: {**d, "sources": ["text"]}, "sources"),
    ],
)
def test_a_description_that_is_not_true_is_refused_with_its_reason(tmp_path, change, message):
    write(tmp_path / "ds")
    file = tmp_path / "ds" / INFO_FILE
    changed = change(json.loads(file.read_text()))
    file.write_text(changed if isinstance(changed, str) else json.dumps(changed))
    with pytest.raises(DatasetError, match=message):
        Dataset(tmp_path / "ds")


def test_a_changed_row_is_found_by_the_hash_of_its_file(tmp_path):
    folder = tmp_path / "ds"
    write(folder).verify()
    file = folder / "data-00000.arrow"
    content = bytearray(file.read_bytes())
    content[-40] ^= 1
    file.write_bytes(content)
    with pytest.raises(DatasetError, match=r"data-00000\.arrow has sha256 .* damaged or exchanged"):
        Dataset(folder).verify()


def test_a_dataset_from_before_there_were_hashes_opens_and_cannot_be_verified(tmp_path):
    write(tmp_path / "ds")
    file = tmp_path / "ds" / INFO_FILE
    description = json.loads(file.read_text())
    del description["sha256"]
    file.write_text(json.dumps(description))
    with pytest.raises(DatasetError, match=r"no sha256 of data-00000\.arrow"):
        Dataset(tmp_path / "ds").verify()
    merge_datasets([Dataset(tmp_path / "ds")], tmp_path / "new").verify()


def test_a_file_cut_short_is_refused(tmp_path):
    write(tmp_path / "ds")
    with open(tmp_path / "ds" / "data-00000.arrow", "r+b") as file:
        file.truncate(2000)
    with pytest.raises(DatasetError, match=r"not a readable Arrow stream|rows in its files"):
        Dataset(tmp_path / "ds")


# -------------------------------------------------------------------------------------------------- merge and encode


def test_merging_puts_episodes_behind_one_another_and_keeps_all_sources(tmp_path):
    one = write(tmp_path / "one", [4, 2])
    other = write(tmp_path / "two", [3], replace(INFO, sources=({"command": "other"},)), first=10)
    merged = merge_datasets([one, other], tmp_path / "both")
    assert_holds(merged, [rows_of(0, 4), rows_of(1, 2), rows_of(10, 3)])
    assert merged.info.sources == ({"command": "test"}, {"command": "other"})
    with pytest.raises(DatasetError, match="contains a dataset already"):
        merge_datasets([one], tmp_path / "two")


def test_datasets_of_different_rows_are_not_merged_and_the_difference_is_named(tmp_path):
    one = write(tmp_path / "one")
    for number, (change, message) in enumerate(
        [
            ({"encoder": {"fingerprint": "def"}}, "encoder fingerprint abc and def"),
            ({"joint_names": ("shoulder", "elbow")}, "joint_names"),
            ({"effort_limit": (0.05, 0.02)}, r"effort_limit \(0.05, 0.05\) and \(0.05, 0.02\)"),
            ({"control_period_ns": 10}, "control_period_ns 20000000 and 10"),
            ({"image_shape": None}, r"image_shape \(5, 6, 3\) and None"),
            ({"task": "reacher-hard"}, "task reacher-easy and reacher-hard"),
        ]
    ):
        other = write(tmp_path / f"other-{number}", info=replace(INFO, **change))
        with pytest.raises(DatasetError, match=message):
            merge_datasets([one, other], tmp_path / "both")


class Brightness:
    """An encoder for tests: each frame of the clip of four as the mean of its bytes."""

    clip_frames = 4
    shape = (1, 4)

    def info(self):
        return {"fingerprint": "brightness", "model": "brightness"}

    def preprocess(self, rgb):
        assert rgb.dtype == np.uint8
        return rgb.mean()

    def encode(self, clips):
        return np.array(clips, np.float32)[:, None]


def test_a_dataset_that_kept_its_frames_is_encoded_by_another_encoder(tmp_path):
    dataset = write(tmp_path / "ds", [40, 3])
    counts: list[int] = []
    encoded = encode_dataset(dataset, tmp_path / "new", Brightness(), {"command": "encode"}, on_episode=counts.append)
    assert counts == [40, 3]
    assert IMAGE not in encoded.info.columns()
    assert encoded.info.encoder == Brightness().info()
    assert encoded.info.sources == (*INFO.sources, {"command": "encode"})
    brightness = rows_of(0, 40)[IMAGE].mean(axis=(1, 2, 3))
    latents = np.asarray(encoded[LATENT])
    np.testing.assert_allclose(latents[39, 0], brightness[36:40], rtol=1e-3)
    np.testing.assert_array_equal(np.asarray(encoded["target"]), np.asarray(dataset["target"]))
    kept = encode_dataset(dataset, tmp_path / "kept", Brightness(), {}, keep_frames=True)
    np.testing.assert_array_equal(np.asarray(kept[IMAGE]), np.asarray(dataset[IMAGE]))
    with pytest.raises(DatasetError, match="build it with frames kept"):
        encode_dataset(encoded, tmp_path / "again", Brightness(), {})


def test_a_name_that_stands_twice_in_the_description_is_refused_by_name(tmp_path):
    (tmp_path / "info.json").write_text('{"format_version": 1, "rows": 1, "rows": 2}')
    with pytest.raises(DatasetError, match=r"info\.json is not readable JSON: 'rows' stands twice"):
        Dataset(tmp_path)
