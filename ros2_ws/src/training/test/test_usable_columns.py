"""What a driver does not send is counted by column; trainers refuse a column that nobody knows, and leave rows out."""

import dataclasses
import json

import numpy as np
import pytest

from vjepa_perception.checkpoint import find_checkpoint
from vjepa_planner.models.conditioning import Conditioning, ConditioningConfig
from vjepa_training.data.dataset import Dataset, EpisodeWriter, finish_dataset
from vjepa_training.data.transitions import open_transitions
from vjepa_training.data.usable_columns import ACTION, VELOCITY, UnusableColumnError, unknown_rows, unusable_columns
from vjepa_training.trainers.clip_sampler import ClipSampler
from vjepa_training.trainers.configs import Job
from vjepa_training.trainers.train_bc import BcTraining, labelled_frames
from vjepa_training.trainers.train_dynamics import DynamicsTraining, train_dynamics

QUICK = DynamicsTraining(members=2, action_repeat=2, horizon=2, components=12, epochs=2, batch_size=32)


def without(dataset: Dataset, folder, share: float, *names: str) -> Dataset:
    """Return a copy of `dataset` in which a share of the rows, drawn, does not know the columns `names`."""
    drawn = np.random.default_rng(3).random(len(dataset)) < share
    with EpisodeWriter(folder, dataset.info) as writer:
        for number, (start, stop) in enumerate(dataset.episodes):
            rows = {name: np.array(dataset[name][start:stop]) for name in dataset.info.columns()}
            del rows["episode_index"]
            for name in names:
                rows[name][drawn[start:stop]] = np.nan
            writer.add(number, rows)
    return finish_dataset(folder, dataset.info)


def test_a_dataset_states_in_how_many_rows_a_column_is_not_known(small_data, tmp_path):
    assert unknown_rows(small_data) == {}, "the last row of an episode has no step to know"
    partly = without(small_data, tmp_path / "partly", 0.1, VELOCITY)
    expected = int(np.isnan(np.asarray(partly[VELOCITY])).any(1).sum())
    assert 0 < expected < len(partly)
    assert unknown_rows(partly) == {VELOCITY: expected}
    assert json.loads((tmp_path / "partly/info.json").read_text())["unknown_rows"] == {VELOCITY: expected}
    assert unusable_columns(partly) == []
    bare = without(small_data, tmp_path / "bare", 1.0, VELOCITY, ACTION)
    steps = int(np.asarray(bare["has_next"]).sum())
    assert unknown_rows(bare) == {VELOCITY: len(bare), ACTION: steps}
    assert unusable_columns(bare) == [VELOCITY, ACTION]


def test_info_states_it_too(small_data, tmp_path, capsys):
    commands = pytest.importorskip("vjepa_cli.commands.dataset")
    without(small_data, tmp_path / "bare", 1.0, ACTION)
    without(small_data, tmp_path / "partly", 0.1, VELOCITY)
    for name in ("bare", "partly"):
        commands.info_command(commands.InfoCommand(dataset=str(tmp_path / name)))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["action", "float64", "2", "not", "known"] in lines
    (line,) = (line for line in lines if line[:1] == [VELOCITY] and len(line) > 3)
    assert line[3:6] == ["not", "known", "in"]
    commands.info_command(commands.InfoCommand(dataset=str(tmp_path / "bare"), json=True))
    facts = json.loads(capsys.readouterr().out)
    assert facts["unusable_columns"] == [ACTION]


def test_a_dataset_without_that_entry_is_read(small_data, tmp_path):
    file = without(small_data, tmp_path / "old", 0.1, VELOCITY).folder / "info.json"
    description = json.loads(file.read_text())
    del description["unknown_rows"]
    file.write_text(json.dumps(description))
    assert unknown_rows(Dataset(tmp_path / "old")).keys() == {VELOCITY}


@pytest.mark.parametrize(
    ("name", "advice"), [(VELOCITY, "build the dataset with --derive-velocity"), (ACTION, "have no efforts")]
)
def test_trainers_refuse_a_column_that_nobody_knows_by_its_name(small_data, tiny_encoder, tmp_path, name, advice):
    bare = without(small_data, tmp_path / "bare", 1.0, name)
    trainers = {
        "train dynamics": lambda: train_dynamics(bare, QUICK, Job(tmp_path / "out", tmp_path / "work", "")),
        "train encoder": lambda: ClipSampler([bare], find_checkpoint(str(tiny_encoder)), 4, "cpu"),
    }
    if name == VELOCITY:
        trainers["train bc"] = lambda: labelled_frames(bare, BcTraining())
    for command, train in trainers.items():
        with pytest.raises(UnusableColumnError, match=rf"'{name}' is NaN in every row, and {command} needs.*{advice}"):
            train()
    assert not (tmp_path / "out").exists()


def test_a_model_without_joint_states_needs_no_velocities(small_data, tmp_path):
    bare = without(small_data, tmp_path / "bare", 1.0, VELOCITY)
    training = dataclasses.replace(QUICK, joint_state=False)
    facts = train_dynamics(bare, training, Job(tmp_path / "out", tmp_path / "work", ""))
    assert np.isfinite(facts["open_loop"][0]["state"])


def test_rows_that_are_not_known_are_left_out_of_a_training(small_data, tmp_path):
    partly = without(small_data, tmp_path / "partly", 0.05, VELOCITY, ACTION)
    conditioning = Conditioning(ConditioningConfig(latent_dim=32, latent_rows=(0,), size=4, joint_state=True))
    data = open_transitions(partly, conditioning, tmp_path / "states")
    rows = data.rows(np.arange(20), 2, 3)
    assert len(rows) > 20
    for offset in range(-1, 4):
        assert np.isfinite(data.states[rows + offset]).all()
    for offset in range(3):
        assert np.isfinite(data.actions[rows + offset]).all()
    assert np.isfinite(data.states[data.rows(np.arange(20), 1, 0)]).all()
    facts = train_dynamics(partly, QUICK, Job(tmp_path / "out", tmp_path / "work", ""))
    assert np.isfinite(facts["open_loop"][0]["state"])
    frames = labelled_frames(partly, BcTraining())
    assert len(frames) == int((~np.isnan(np.asarray(partly[VELOCITY])).any(1)).sum())
