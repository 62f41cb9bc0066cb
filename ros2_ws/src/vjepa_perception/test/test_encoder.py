"""The encoder on small random checkpoints, in transformers' format and as bundles, against transformers' own model."""

import dataclasses
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.models.vjepa2.configuration_vjepa2 import VJEPA2Config
from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2ForVideoClassification, VJEPA2Model

from vjepa_interfaces.bundle import write_bundle
from vjepa_interfaces.errors import VjepaError
from vjepa_perception import encode_time, weights
from vjepa_perception.checkpoint import find_checkpoint
from vjepa_perception.encoder import (
    Encoder,
    EncoderConfig,
    EncoderError,
    empty_module,
    identify_encoder,
    load_encoder,
    pooled,
)
from vjepa_perception.preprocessing import Preprocessing
from vjepa_perception.weights import MemoryShortageError

SIDE = 4
MODEL = {
    "crop_size": 32,
    "patch_size": 8,
    "tubelet_size": 2,
    "frames_per_clip": 64,
    "hidden_size": 48,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "pred_hidden_size": 24,
    "pred_num_attention_heads": 2,
    "pred_num_hidden_layers": 1,
    "num_pooler_layers": 1,
}
ENCODER_FIELDS = {name: value for name, value in MODEL.items() if not name.startswith(("pred", "num_pooler"))}
PROCESSOR = {"crop_size": {"height": 32, "width": 32}, "size": {"shortest_edge": 36}, "resample": 2}
BUNDLE = {
    "kind": "encoder",
    "architecture": "vjepa2",
    "model": ENCODER_FIELDS,
    "preprocessing": {"resize": 36, "crop": 32},
    "clip_frames": 8,
    "init_seed": 0,
}


def save_checkpoint(path: Path, seed: int = 0, model_class=VJEPA2Model, **save_options) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model_class(VJEPA2Config(**MODEL, initializer_range=0.2)).save_pretrained(path, **save_options)
    (path / "video_preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return path


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A checkpoint in transformers' format, trained on 64 frames; not to be changed."""
    return save_checkpoint(tmp_path_factory.mktemp("saved") / "tiny")


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A copy of that checkpoint that a test may damage."""
    return Path(shutil.copytree(saved, tmp_path / "tiny"))


def load(encoder, **options) -> Encoder:
    return load_encoder(EncoderConfig(str(encoder), **{"device": "cpu", **options}))


def random_clips(encoder: Encoder, count: int = 1) -> list[list[torch.Tensor]]:
    frames = np.random.default_rng(0).integers(0, 256, (count, encoder.clip_frames, 40, 50, 3), np.uint8)
    return [[encoder.preprocess(frame) for frame in clip] for clip in frames]


def change_json(file: Path, **fields) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.mark.parametrize("clip_frames", [2, 8])
def test_every_token_equals_transformers_own_model(saved, clip_frames):
    encoder = load(saved, clip_frames=clip_frames, grid=-1)
    clips = random_clips(encoder, 2)
    video = torch.stack([torch.stack(clip) for clip in clips])
    with torch.inference_mode():
        theirs = VJEPA2Model.from_pretrained(saved)(video, skip_predictor=True).last_hidden_state.numpy()
    latents = encoder.encode(clips)
    assert latents.dtype == np.float32
    assert latents.shape == (2, *encoder.shape) == (2, 1 + clip_frames // 2 * SIDE**2, 48)
    np.testing.assert_allclose(latents[:, 1:], theirs, rtol=0, atol=1e-5)
    np.testing.assert_allclose(latents[:, 0], theirs.mean(axis=1), rtol=0, atol=1e-5)


def test_tokens_are_ordered_by_tubelet_row_and_column(saved):
    encoder = load(saved, grid=-1)
    black = np.zeros((32, 32, 3), np.uint8)
    marked = black.copy()
    marked[8:16, 24:32] = 255  # row 1, column 3
    preprocess = Preprocessing(32, 32).apply
    clip = [preprocess(marked if i in (4, 5) else black) for i in range(8)]  # tubelet 2
    patches, background = encoder._engine.embed([clip, [preprocess(black)] * 8])
    changed = (patches != background).any(dim=1).nonzero().flatten().tolist()
    assert changed == [2 * SIDE**2 + 1 * SIDE + 3]


@pytest.mark.parametrize("grid", [1, 2, 4])
def test_grid_rows_are_the_means_of_the_last_tubelets_cells(saved, grid):
    tokens = load(saved, grid=-1)
    every = tokens.encode(random_clips(tokens))[0]
    latent = load(saved, grid=grid).encode(random_clips(tokens))[0]
    last = every[1:][-(SIDE**2) :].reshape(SIDE, SIDE, -1)
    cell = SIDE // grid
    expected = [
        last[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell].mean(axis=(0, 1))
        for row in range(grid)
        for column in range(grid)
    ]
    assert latent.shape == (1 + grid**2, 48)
    np.testing.assert_allclose(latent[0], every[1:].mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(latent[1:], expected, atol=1e-6)


def test_a_grid_that_does_not_divide_the_patches_pools_overlapping_cells():
    tokens = torch.arange(16.0).reshape(1, 16, 1)
    rows = pooled(tokens, side=4, grid=3)[0, 1:, 0]
    assert rows.tolist() == [2.5, 3.5, 4.5, 6.5, 7.5, 8.5, 10.5, 11.5, 12.5]


def test_grid_zero_gives_the_mean_row_alone(saved):
    encoder = load(saved, grid=0)
    assert encoder.encode(random_clips(encoder)).shape == (1, 1, 48)


def test_a_batch_gives_what_its_clips_give_one_by_one(saved):
    encoder = load(saved)
    clips = random_clips(encoder, 3)
    singles = np.concatenate([encoder.encode([clip]) for clip in clips])
    np.testing.assert_allclose(encoder.encode(clips), singles, atol=1e-5)
    assert np.abs(singles[0] - singles[1]).max() > 1e-2


def test_the_predictor_is_not_kept(saved):
    encoder = load(saved)
    whole = VJEPA2Model.from_pretrained(saved)
    assert encoder.parameters == sum(p.numel() for p in whole.encoder.parameters())
    assert encoder.parameters < sum(p.numel() for p in whole.parameters())


def test_a_video_classifier_and_shards_are_the_same_encoder(saved, tmp_path):
    whole = VJEPA2Model.from_pretrained(saved)
    whole.save_pretrained(tmp_path / "shards", max_shard_size="20kB")
    shutil.copy(saved / "video_preprocessor_config.json", tmp_path / "shards")
    assert not (tmp_path / "shards" / "model.safetensors").exists()
    classifier = VJEPA2ForVideoClassification(VJEPA2Config(**MODEL))
    classifier.vjepa2.load_state_dict(whole.state_dict())
    classifier.save_pretrained(tmp_path / "classifier")
    shutil.copy(saved / "video_preprocessor_config.json", tmp_path / "classifier")
    fingerprints = {load(path).fingerprint for path in (saved, tmp_path / "shards", tmp_path / "classifier")}
    assert len(fingerprints) == 1


def test_a_bundle_of_the_same_weights_is_the_same_encoder(saved, tmp_path):
    config = {name: value for name, value in BUNDLE.items() if name != "init_seed"}
    write_bundle(tmp_path, config, "card")
    shutil.copy(saved / "model.safetensors", tmp_path)
    encoder, bundled = load(saved), load(tmp_path)
    assert bundled.fingerprint == encoder.fingerprint
    assert not bundled.untrained
    np.testing.assert_array_equal(bundled.encode(random_clips(encoder)), encoder.encode(random_clips(encoder)))


def test_weights_stored_in_a_narrow_type_are_the_encoder_of_their_values(folder):
    file = folder / "model.safetensors"
    narrow = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(file).items()}
    save_file(narrow, file)
    from_narrow = load(folder)
    assert from_narrow.dtype == torch.float32
    save_file({name: tensor.to(torch.float32) for name, tensor in narrow.items()}, file)
    assert load(folder).fingerprint == from_narrow.fingerprint


def test_the_processor_may_be_nested_in_processor_config(folder):
    before = load(folder).fingerprint
    (folder / "video_preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"video_processor": PROCESSOR}))
    assert load(folder).fingerprint == before


def test_the_fingerprint_is_of_weights_preprocessing_clip_length_and_pooling_only(saved, folder, tmp_path):
    base = load(saved)
    assert len(base.fingerprint) == 16
    assert load(saved, dtype="bfloat16").fingerprint == base.fingerprint
    assert load(folder).fingerprint == base.fingerprint
    change_json(folder / "config.json", frames_per_clip=16)
    assert load(folder).fingerprint == base.fingerprint
    others = [load(save_checkpoint(tmp_path / "other", seed=1)), load(saved, grid=2), load(saved, clip_frames=4)]
    change_json(folder / "video_preprocessor_config.json", image_mean=[0.5, 0.5, 0.5])
    others.append(load(folder))
    change_json(folder / "video_preprocessor_config.json", **PROCESSOR)
    change_json(folder / "config.json", num_attention_heads=4)
    others.append(load(folder))
    fingerprints = {encoder.fingerprint for encoder in [base, *others]}
    assert len(fingerprints) == 1 + len(others)


def test_an_encoder_is_identified_without_being_loaded(saved, tmp_path, monkeypatch):
    seeded = write_bundle(tmp_path / "seeded", BUNDLE, "").path
    configs = [EncoderConfig(str(path), "cpu", dtype) for path in (saved, seeded) for dtype in ("float32", "bfloat16")]
    loaded = [load_encoder(config) for config in configs]
    monkeypatch.setattr("vjepa_perception.encoder.Engine", None)
    assert [identify_encoder(config) for config in configs] == [(e.name, e.fingerprint) for e in loaded]


def test_what_cannot_be_loaded_is_not_identified_either(folder, monkeypatch):
    config = EncoderConfig(str(folder), "cpu")
    with pytest.raises(EncoderError, match="grid is 9"):
        identify_encoder(dataclasses.replace(config, grid=9))
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    with pytest.raises(VjepaError, match="truncated or corrupt"):
        identify_encoder(config)
    file.write_bytes(whole)
    monkeypatch.setattr(weights, "free_bytes", lambda device: 1)
    with pytest.raises(MemoryShortageError, match="free"):
        identify_encoder(config)


def test_narrow_types_give_close_latents(saved):
    encoder, narrow = load(saved), load(saved, dtype="bfloat16")
    clips = random_clips(encoder)
    assert narrow.dtype == torch.bfloat16
    exact, rounded = encoder.encode(clips), narrow.encode(clips)
    assert rounded.dtype == np.float32
    assert 0 < np.abs(exact - rounded).mean() < 0.05 * np.abs(exact).mean()


def test_auto_is_float32_on_a_cpu(saved):
    assert load(saved, dtype="auto").dtype == torch.float32


def test_info_says_what_latent_info_needs_and_is_json(saved):
    encoder = load(saved)
    assert json.loads(json.dumps(encoder.info())) == {
        "model": "tiny",
        "fingerprint": encoder.fingerprint,
        "clip_frames": 8,
        "grid": 4,
        "shape": [17, 48],
        "image_size": 32,
        "untrained": False,
        "dtype": "float32",
    }


def test_a_seeded_bundle_is_the_same_every_time_and_leaves_the_global_generator_alone(tmp_path):
    write_bundle(tmp_path / "a", BUNDLE, "card")
    write_bundle(tmp_path / "b", BUNDLE | {"init_seed": 1}, "card")
    state = torch.get_rng_state()
    first, again, other = load(tmp_path / "a"), load(tmp_path / "a"), load(tmp_path / "b")
    assert torch.equal(torch.get_rng_state(), state)
    assert first.untrained
    assert first.fingerprint == again.fingerprint != other.fingerprint
    np.testing.assert_array_equal(first.encode(random_clips(first)), again.encode(random_clips(first)))


def test_a_seeded_bundle_is_the_same_on_every_machine(tmp_path):
    write_bundle(tmp_path, BUNDLE, "card")
    assert load(tmp_path).fingerprint == "92b2ff8efa9d982d"


def test_seeded_weights_have_the_spread_that_the_configuration_asks_for(tmp_path):
    write_bundle(tmp_path, BUNDLE | {"model": ENCODER_FIELDS | {"initializer_range": 0.1}}, "card")
    checkpoint = find_checkpoint(str(tmp_path))
    module = empty_module(checkpoint)
    weights.place_weights(module, checkpoint, torch.device("cpu"), torch.float32)
    parameters = dict(module.named_parameters())
    assert parameters["layer.0.mlp.fc1.weight"].std().item() == pytest.approx(0.1, rel=0.05)
    assert parameters["layer.0.mlp.fc1.bias"].abs().max() == 0
    assert (parameters["layer.0.norm1.weight"] == 1).all()


def test_warm_up_accepts_a_sound_encoder_and_refuses_one_with_damaged_weights(saved, folder):
    load(saved).warm_up()
    tensors = load_file(folder / "model.safetensors")
    tensors["encoder.layernorm.bias"][0] = float("nan")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(EncoderError, match="not finite"):
        load(folder).warm_up()


def test_the_time_of_an_encode_is_measured_and_printed_for_other_programs(saved, monkeypatch, capsys):
    encoder = load(saved)
    encode, slow_s = encoder.encode, iter([9.0, 9.0, 0.05, 0.0, 0.0, 0.05, 0.05])
    monkeypatch.setattr(encoder, "encode", lambda clips: time.sleep(min(next(slow_s), 0.05)) or encode(clips))
    assert 0.05 < encoder.encode_time_s(clips=5) < 5.0
    given = {"encoder": str(saved), "device": "cpu", "input_transport": "compressed"}
    monkeypatch.setattr(sys, "argv", ["encode_time", json.dumps(given)])
    encode_time.main()
    assert 0 < float(capsys.readouterr().out) < 5.0
    monkeypatch.setattr(sys, "argv", ["encode_time", json.dumps(given | {"grid": 99})])
    with pytest.raises(SystemExit) as ended:
        encode_time.main()
    assert (ended.value.code, capsys.readouterr().err.splitlines()[-1][:10]) == (2, "grid is 99")


def test_the_time_of_an_encode_is_that_of_the_type_which_the_node_takes(saved, monkeypatch, capsys):
    chosen = []

    def choose(*_):
        chosen.append(torch.bfloat16)
        return torch.bfloat16, "it is faster"

    monkeypatch.setattr("vjepa_perception.encoder.faster_dtype", choose)
    monkeypatch.setattr(sys, "argv", ["encode_time", json.dumps({"encoder": str(saved), "device": "cpu"})])
    encode_time.main()
    assert chosen


def test_a_closed_encoder_says_so(saved):
    encoder = load(saved)
    clips = random_clips(encoder)
    encoder.close()
    with pytest.raises(EncoderError, match="was closed"):
        encoder.encode(clips)


def test_threads_are_set_for_torch(saved):
    before = torch.get_num_threads()
    try:
        load(saved, threads=3)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


FAULTS = """
import resource, sys
import numpy as np
from vjepa_perception.encoder import EncoderConfig, load_encoder

load_encoder(EncoderConfig(sys.argv[1], device="cpu"))
before = 0
for count in range(60):
    if count == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    four = [np.ones(2**17) for _ in range(4)]  # Of a MiB.
    del four
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_memory_that_was_freed_is_there_for_the_next_clip(saved):
    """Four MiB are 1024 pages, which by itself the C library fetches anew every time."""
    run = subprocess.run([sys.executable, "-c", FAULTS, str(saved)], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 50 * 10


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"device": "tpu"}, "unknown device 'tpu'; valid are: auto, cpu, cuda, cuda:N"),
        ({"device": "cuda:x"}, "unknown device 'cuda:x'"),
        ({"dtype": "int8"}, "unknown dtype 'int8'; valid are: auto, bfloat16, float16, float32"),
        ({"threads": -1}, "threads is -1"),
        ({"clip_frames": 7}, "clip_frames is 7; expected a multiple of tiny's tubelet size, 2"),
        ({"clip_frames": 0}, "clip_frames is 0"),
        ({"grid": 5}, "grid is 5; expected 1 to 4"),
        ({"grid": -2}, "grid is -2"),
    ],
)
def test_options_that_do_not_fit_are_refused(saved, options, match):
    with pytest.raises(VjepaError, match=match):
        load(saved, **options)


def test_cuda_asked_for_but_absent_is_refused(saved, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EncoderError, match=r"device is 'cuda:1', but torch .* finds 0 CUDA devices; use device auto"):
        load(saved, device="cuda:1")
    assert load(saved, device="auto").device.type == "cpu"


def test_a_bundle_keeps_to_its_clip_length(tmp_path):
    write_bundle(tmp_path, BUNDLE, "card")
    with pytest.raises(EncoderError, match=r"made for clips of 8; set clip_frames"):
        load(tmp_path, clip_frames=4)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda clip: [], "have no frames; expected one clip or more of 8"),
        (lambda clip: [clip[:7]], r"have \[7\] frames"),
        (lambda clip: [clip, clip[:6]], r"have \[6, 8\] frames"),
        (lambda clip: [[*clip[:7], torch.zeros(3, 31, 32)]], r"frame of shape \(3, 31, 32\); expected \(3, 32, 32\)"),
    ],
    ids=["none", "short", "uneven", "size"],
)
def test_clips_that_do_not_fit_are_refused(saved, make, match):
    encoder = load(saved)
    with pytest.raises(EncoderError, match=match):
        encoder.encode(make(random_clips(encoder)[0]))


def test_too_little_memory_is_told_before_loading(saved, monkeypatch):
    monkeypatch.setattr(weights, "free_bytes", lambda device: 1000)
    with pytest.raises(
        MemoryShortageError, match=r"tiny \(0M parameters, torch.float32\) needs .* GiB .* cpu has 0.0 GiB"
    ):
        load(saved)


def test_running_out_of_memory_while_encoding_is_told(saved, monkeypatch):
    encoder = load(saved)
    clips = random_clips(encoder)

    def exhausted(*args, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(encoder, "_engine", exhausted)
    with pytest.raises(MemoryShortageError, match="out of memory while encoding 1 clips on cpu; use a smaller batch"):
        encoder.encode(clips)


@pytest.mark.parametrize(
    ("model", "match"),
    [
        ({"hidden_size": "large"}, "hidden_size"),
        ({"num_attention_heads": 7}, "attention heads"),
        ({"hidden_act": "magic"}, "unknown activation function in hidden_act: 'magic'; valid are: .*gelu"),
        ({"in_chans": 1}, "in_chans is 1; expected 3"),
        ({"hidden_size": 10**400}, "configuration is not V-JEPA 2's"),
        ({"hiden_size": 48}, "'model' has unknown fields hiden_size"),
        ({"crop_size": 64}, "crops to 32 pixels and the model takes 64"),
        ({"patch_size": 5}, "in patches of 5"),
    ],
    ids=str,
)
def test_a_model_that_is_not_v_jepa_2s_is_refused(tmp_path, model, match):
    write_bundle(tmp_path, BUNDLE | {"model": ENCODER_FIELDS | model}, "card")
    with pytest.raises(VjepaError, match=match):
        load(tmp_path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"kind": "policy"}, "of kind 'policy'; expected 'encoder'"),
        ({"architecture": "resnet"}, "architecture 'resnet'; expected 'vjepa2'"),
        ({"init_seed": "zero"}, "'init_seed' is 'zero'"),
        ({"clip_frames": None}, "'clip_frames' is nothing"),
        ({"preprocessing": {"resize": 64}}, "lacks"),
    ],
    ids=["kind", "architecture", "seed", "clip", "preprocessing"],
)
def test_a_bundle_with_a_wrong_field_is_refused(tmp_path, change, match):
    write_bundle(tmp_path, BUNDLE | change, "card")
    with pytest.raises(VjepaError, match=match):
        load(tmp_path)


def test_a_bundle_with_neither_weights_nor_seed_or_with_both_is_refused(saved, tmp_path):
    config = {name: value for name, value in BUNDLE.items() if name != "init_seed"}
    write_bundle(tmp_path, config, "card")
    with pytest.raises(VjepaError, match=r"lacks model\.safetensors"):
        load(tmp_path)
    write_bundle(tmp_path, BUNDLE, "card")
    shutil.copy(saved / "model.safetensors", tmp_path)
    with pytest.raises(VjepaError, match="and an init_seed; expected one of them"):
        load(tmp_path)
