"""Training an encoder: what it may see, that it learns, resumes and refuses, and what it leaves behind."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vjepa_interfaces.errors import VjepaError
from vjepa_perception.checkpoint import find_checkpoint
from vjepa_perception.encoder import EncoderConfig, empty_module, load_encoder
from vjepa_training.data.dataset import IMAGE, PLAIN_IMAGE, Dataset, EpisodeWriter, finish_dataset
from vjepa_training.trainers import train_encoder as trainer
from vjepa_training.trainers.clip_sampler import ClipSampler
from vjepa_training.trainers.configs import Job
from vjepa_training.trainers.encoder_objectives import CanonicalView, Clips, JointEmbedding, MaskedPrediction
from vjepa_training.trainers.train_encoder import CollapseError, EncoderTraining, effective_rank, train_encoder

HELD_OUT = np.array([2, 7, 13, 19])


def weights(folder) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("objective", ["joint-embedding", "canonical-view", "masked"])
def test_a_trained_encoder_is_a_bundle_that_perception_loads(small_data, training, tmp_path, objective):
    folder = train_encoder(
        [small_data],
        dataclasses.replace(training, objective=objective),
        Job(tmp_path / "enc", tmp_path / "work", "the command"),
    )
    encoder = load_encoder(EncoderConfig(str(folder), clip_frames=4, grid=2))
    assert not encoder.untrained
    assert encoder.shape == (5, 32)
    frame = encoder.preprocess(np.zeros((32, 32, 3), np.uint8))
    assert np.isfinite(encoder.encode([[frame] * 4])).all()
    config = json.loads((folder / "config.json").read_text())
    assert config["command"] == "the command"
    assert config["training"]["objective"] == objective
    assert config["steps_done"] == 6
    assert config["data"] == [{"made": "by a test"}]
    assert "the command" in (folder / "MODEL_CARD.md").read_text()
    assert list((tmp_path / "work" / "events").glob("events*"))


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(small_data, training, tmp_path):
    runs = [
        weights(
            train_encoder(
                [small_data], dataclasses.replace(training, seed=seed), Job(tmp_path / n, tmp_path / f"{n}w", "")
            )
        )
        for n, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


@pytest.mark.parametrize("objective", ["joint-embedding", "canonical-view", "masked"])
def test_a_run_that_was_killed_gives_what_it_would_have_given(small_data, training, tmp_path, objective):
    training = dataclasses.replace(training, objective=objective)
    whole = train_encoder([small_data], training, Job(tmp_path / "whole", tmp_path / "w1", ""))

    class KilledError(Exception):
        pass

    def kill(step, steps, figures):
        if step == 6:
            raise KilledError

    with pytest.raises(KilledError):
        train_encoder([small_data], training, Job(tmp_path / "cut", tmp_path / "w2", "", kill))
    assert json.loads((tmp_path / "cut" / "config.json").read_text())["steps_done"] == 3
    assert same(
        weights(train_encoder([small_data], training, Job(tmp_path / "cut", tmp_path / "w2", ""))), weights(whole)
    )


def test_a_finished_run_only_writes_its_bundle_anew(small_data, training, tmp_path):
    first = train_encoder([small_data], training, Job(tmp_path / "first", tmp_path / "work", ""))
    again = train_encoder([small_data], training, Job(tmp_path / "again", tmp_path / "work", ""))
    assert same(weights(first), weights(again))
    assert json.loads((again / "config.json").read_text())["steps_done"] == training.steps


def test_finetuning_begins_with_the_weights_and_with_longer_tubelets_as_the_mean_of_the_shorter(tiny_encoder):
    known = find_checkpoint(str(tiny_encoder))
    begun = dataclasses.replace(EncoderTraining(encoder=str(tiny_encoder), finetune=True), model={"tubelet_size": 4})
    plain, long = (
        trainer._encoder(trainer._checkpoint(training), training)
        for training in (dataclasses.replace(begun, model={}), begun)
    )
    assert (known.model["tubelet_size"], long.config.tubelet_size) == (2, 4)
    clip = torch.rand(3, 4, 3, known.model["crop_size"], known.model["crop_size"])
    shorter, longer = plain.embeddings(clip), long.embeddings(clip)
    assert torch.allclose(longer, shorter.unflatten(1, (2, -1)).mean(1), atol=1e-5)
    others = {name: tensor for name, tensor in long.state_dict().items() if "patch_embeddings.proj.weight" not in name}
    assert others
    assert all(torch.equal(tensor, plain.state_dict()[name]) for name, tensor in others.items())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"tubelet_size": 3}, "tubelet_size is 3; expected a multiple of 2, the tubelet_size of"),
        ({"tubelet_size": 1}, "tubelet_size is 1; expected a multiple of 2"),
        (
            {"tubelet_size": 4, "hidden_size": 64},
            "weights fit their own model only; leave out finetune, or hidden_size",
        ),
    ],
)
def test_weights_that_do_not_fit_the_model_are_refused(tiny_encoder, model, message):
    def begin():
        training = EncoderTraining(encoder=str(tiny_encoder), finetune=True, model=model)
        trainer._encoder(trainer._checkpoint(training), training)

    with pytest.raises(VjepaError, match=message):
        begin()


def test_another_run_in_the_same_work_folder_is_refused(small_data, training, tmp_path):
    train_encoder([small_data], training, Job(tmp_path / "enc", tmp_path / "work", ""))
    other = dataclasses.replace(training, learning_rate=1e-4)
    with pytest.raises(VjepaError, match="learning_rate"):
        train_encoder([small_data], other, Job(tmp_path / "enc", tmp_path / "work", ""))


def test_a_run_goes_on_with_its_encoder_at_another_path_but_not_with_other_weights(
    small_data, training, tiny_encoder, tmp_path
):
    moved = shutil.copytree(tiny_encoder, tmp_path / "moved")
    training = dataclasses.replace(training, encoder=str(tiny_encoder), finetune=True, steps=3)
    job = Job(tmp_path / "enc", tmp_path / "work", "")
    train_encoder([small_data], training, job)
    there = dataclasses.replace(training, encoder=str(moved))
    train_encoder([small_data], there, job)
    config = json.loads((moved / "config.json").read_text())
    config["init_seed"] += 1
    (moved / "config.json").write_text(json.dumps(config))
    with pytest.raises(VjepaError, match="other encoder"):
        train_encoder([small_data], there, job)


def test_it_learns_to_say_the_joint_readings_of_episodes_it_did_not_see(small_data, training, tmp_path):
    curve = []
    train_encoder(
        [small_data],
        dataclasses.replace(training, steps=120, checkpoint_every=60, learning_rate=3e-3, batch_size=16),
        Job(
            tmp_path / "enc",
            tmp_path / "work",
            "",
            lambda step, steps, figures: curve.append(figures["joints"]) if "joints" in figures else None,
        ),
    )
    assert np.mean(curve[-2:]) < 0.5 * curve[0]


@pytest.mark.parametrize("column", ["target", "fingertip", "next.reward", "target_size"])
def test_nothing_that_a_robot_does_not_record_is_ever_read(small_data, training, tmp_path, monkeypatch, column):
    read = []
    original = Dataset.__getitem__
    monkeypatch.setattr(Dataset, "__getitem__", lambda self, name: read.append(name) or original(self, name))
    train_encoder([small_data], training, Job(tmp_path / "enc", tmp_path / "work", ""))
    assert read
    assert column not in read


def test_a_clip_is_what_the_live_node_would_see(small_data, tiny_encoder):
    sampler = ClipSampler([small_data], find_checkpoint(str(tiny_encoder)), 4, "cpu")
    encoder = load_encoder(EncoderConfig(str(tiny_encoder), clip_frames=4, grid=2))
    latents, start = small_data["observation.latent"], int(small_data.episodes[3][0])
    rows = np.array([start, start + 1, start + 9])
    clips = sampler.clips(rows)
    assert np.allclose(encoder.encode(list(clips.video)), latents[rows], atol=4e-3)
    assert torch.equal(clips.video[1][0], clips.video[1][1])  # The first frame, repeated.


def test_a_clip_never_reaches_beyond_its_episode(small_data, tiny_encoder):
    sampler = ClipSampler([small_data], find_checkpoint(str(tiny_encoder)), 4, "cpu")
    rows = np.concatenate(sampler.split_rows([HELD_OUT]))
    ends = {int(stop) for _, stop in small_data.episodes}
    assert len(rows) == len(small_data.episodes) * 19
    assert not {row + ahead for row in rows.tolist() for ahead in (1, 2)} & ends


def plainly(small_data, folder):
    """Return `small_data` with plain frames beside its own: black ones."""
    info = dataclasses.replace(small_data.info, plain_images=True)
    columns = [name for name in small_data.info.columns() if name != "episode_index"]
    with EpisodeWriter(folder, info) as writer:
        for number, (start, stop) in enumerate(small_data.episodes):
            rows = {name: np.asarray(small_data[name][start:stop]) for name in columns}
            writer.add(number, {**rows, PLAIN_IMAGE: np.zeros_like(rows[IMAGE])})
    return finish_dataset(folder, info)


def test_what_is_predicted_is_the_plain_frame_where_there_is_one_and_never_augmented(
    small_data, tiny_encoder, tmp_path
):
    checkpoint = find_checkpoint(str(tiny_encoder))
    data = plainly(small_data, tmp_path / "plain")
    start = int(data.episodes[1][0])
    rows = np.arange(start + 4, start + 12)
    usual, plain = (ClipSampler([each], checkpoint, 4, "cpu") for each in (small_data, data))
    clips = usual.clips(rows)
    assert torch.equal(clips.present, clips.video[:, -2:])
    assert torch.equal(plain.clips(rows).video, clips.video)
    assert len(plain.clips(rows).present.unique()) == 3, "black"
    changed = usual.clips(rows, augment=(0, 1))
    assert not torch.equal(changed.video, clips.video)
    assert torch.equal(changed.present, clips.present)
    assert torch.equal(changed.future, clips.future)
    assert torch.equal(usual.clips(rows, augment=(0, 1)).video, changed.video)
    assert not torch.equal(usual.clips(rows, augment=(0, 2)).video, changed.video)


def test_one_encoder_learns_from_several_datasets(small_data, training, tiny_encoder, tmp_path):
    both = [small_data, plainly(small_data, tmp_path / "plain")]
    sampler = ClipSampler(both, find_checkpoint(str(tiny_encoder)), 4, "cpu")
    rows, held_out = sampler.split_rows([HELD_OUT, HELD_OUT[:1]])
    episodes = np.concatenate([data["episode_index"] for data in both])
    assert set(episodes[held_out[held_out < len(small_data)]]) == set(HELD_OUT)
    assert set(episodes[held_out[held_out >= len(small_data)]]) == set(HELD_OUT[:1])
    assert (rows >= len(small_data)).sum() - (rows < len(small_data)).sum() == (len(HELD_OUT) - 1) * 19
    clips = sampler.clips(np.array([5, 30, len(small_data) + 5]))
    assert clips.source.tolist() == [0, 0, 1]
    assert torch.equal(clips.joint_position[0], clips.joint_position[2])
    folder = train_encoder(
        both,
        dataclasses.replace(training, augment=True, model={"num_hidden_layers": 1}),
        Job(tmp_path / "e", tmp_path, ""),
    )
    config = json.loads((folder / "config.json").read_text())
    assert config["model"]["num_hidden_layers"] == 1
    assert len(config["data"]) == 2
    load_encoder(EncoderConfig(str(folder), clip_frames=4, grid=2))


def test_frames_of_another_size_are_refused(small_data, tiny_encoder, tmp_path):
    config = json.loads((tiny_encoder / "config.json").read_text())
    config["model"]["crop_size"] = config["preprocessing"]["crop"] = config["preprocessing"]["resize"] = 64
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(VjepaError, match=r"32, 32.*64 x 64"):
        ClipSampler([small_data], find_checkpoint(str(tmp_path)), 4, "cpu")


def test_a_collapse_stops_the_training_and_says_so(small_data, training, tmp_path, monkeypatch):
    def collapsed(self, encoder, clips):
        loss, parts = original(self, encoder, clips)
        return loss, {**parts, "rows": torch.ones_like(parts["rows"]) * torch.randn(len(parts["rows"]), 1, 1)}

    original = JointEmbedding.forward
    monkeypatch.setattr(JointEmbedding, "forward", collapsed)
    with pytest.raises(CollapseError, match=r"effective rank is 1\.0"):
        train_encoder([small_data], training, Job(tmp_path / "enc", tmp_path / "work", ""))


def test_effective_rank_counts_directions():
    directions = torch.linalg.qr(torch.randn(32, 32))[0][:6]
    rows = (torch.randn(400, 5, 6) @ directions).float()
    assert 5.5 < effective_rank(rows) <= 6.0
    assert effective_rank(torch.randn(400, 5, 32)) > 25


def test_the_faster_encoder_in_training_gives_the_plain_ones_tokens(tiny_encoder, training):
    checkpoint = find_checkpoint(str(tiny_encoder))
    fast = trainer._encoder(checkpoint, training)
    plain = empty_module(checkpoint)
    plain.load_state_dict(fast.state_dict(), assign=True)
    video = torch.randn(2, 4, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(fast(video).last_hidden_state, plain.eval()(video).last_hidden_state, atol=1e-5)


def test_the_targets_are_laid_out_by_cell(tiny_encoder):
    model = empty_module(find_checkpoint(str(tiny_encoder))).config
    objective = JointEmbedding(model, 2, [2], 0)
    patches = torch.arange(16.0).view(1, 16, 1).expand(1, 16, 64)  # 4 x 4 patches, numbered row by row
    cells = objective._by_cell(patches).unflatten(2, (4, 64))[0, :, :, 0]
    assert cells.tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


class SameForEveryVideo(torch.nn.Module):
    """A teacher that does not look, so that only the student does."""

    def forward(self, video):
        return SimpleNamespace(last_hidden_state=torch.ones(2, 32, 32))


def test_what_is_there_beside_the_robot_is_found_in_the_canonical_view(tiny_encoder, training):
    encoder = trainer._encoder(find_checkpoint(str(tiny_encoder)), training)
    objective = CanonicalView(encoder.config, 2, [2])
    for parameter in objective.robot.parameters():
        torch.nn.init.zeros_(parameter)
    heads = (objective.where, objective.centre)
    frames = torch.zeros(8, 4, 3, 32, 32)
    shown = torch.zeros(8, 2, 3, 32, 32)
    shown[:, -1, :, 4:10, 20:26] = 2.0  # Rows 2 to 4 and columns 10 to 12 of the cells.
    none = torch.zeros(8, 2)
    clips = Clips(frames, shown, shown, torch.zeros(8).long(), none[:, None].repeat(1, 2, 1), none, none)
    optimiser = torch.optim.Adam([p for head in heads for p in head.parameters()], 0.1)
    for _ in range(200):
        loss, parts = objective(encoder, clips)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    latents = parts["rows"].flatten(1)
    found = objective.where(latents).softmax(1)[0].view(16, 16)
    assert found[2:5, 10:13].sum() > 0.9
    assert objective.centre(latents)[0].tolist() == pytest.approx([(3.5 * 4 / 16) - 2, (11.5 * 4 / 16) - 2], abs=0.05)


def test_nothing_beside_the_robot_is_nothing_to_look_for(tiny_encoder, training):
    encoder = trainer._encoder(find_checkpoint(str(tiny_encoder)), training)
    objective = CanonicalView(encoder.config, 2, [2])
    for parameter in objective.robot.parameters():
        torch.nn.init.zeros_(parameter)
    none, frames = torch.zeros(8, 2), torch.zeros(8, 4, 3, 32, 32)
    shown = 0.01 * torch.randn(8, 2, 3, 32, 32)
    clips = Clips(frames, shown, shown, torch.zeros(8).long(), none[:, None].repeat(1, 2, 1), none, none)
    parts = objective(encoder, clips)[1]
    assert parts["where"] < 0.01
    assert parts["centre"] < 0.01


def test_a_masked_patch_does_not_reach_the_encoder(tiny_encoder, training):
    encoder = trainer._encoder(find_checkpoint(str(tiny_encoder)), dataclasses.replace(training, objective="masked"))
    objective = MaskedPrediction(encoder.config, 2, encoder, 0)
    context, hidden = objective._draw()
    assert context.numel()
    assert hidden.numel() >= 0.75 * 32
    assert sorted([*context[0].tolist(), *hidden[0].tolist()]) == list(range(32))
    objective._draw = lambda: (context, hidden)
    objective.teacher = SameForEveryVideo()
    video = torch.randn(2, 4, 3, 32, 32)
    token = int(hidden[0, 0]) % 16
    row, column = token // 4 * 8, token % 4 * 8
    changed = video.clone()
    changed[:, :, :, row : row + 8, column : column + 8] += 1

    def loss(frames):
        shown, none = frames[:, :2], torch.zeros(2, 2)
        return objective(encoder, Clips(frames, shown, shown, torch.zeros(2).long(), none[:, None], none, none))[0]

    with torch.no_grad():
        assert torch.equal(loss(video), loss(changed))
        changed[:, :, :, :8, :8] += 1  # The first patch is always seen.
        assert not torch.equal(loss(video), loss(changed))
