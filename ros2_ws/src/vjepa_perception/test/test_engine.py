"""The fast forward pass gives the tokens of transformers' own module."""

import copy
import subprocess
import sys

import pytest
import torch
from torch.nn import functional
from transformers.models.vjepa2.configuration_vjepa2 import VJEPA2Config
from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2Encoder

from vjepa_interfaces.bundle import write_bundle
from vjepa_interfaces.errors import VjepaError
from vjepa_perception.engine import Engine, weight_shapes

FRAMES = 8
CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))


def encoder(**fields) -> VJEPA2Encoder:
    torch.manual_seed(0)
    small = {"crop_size": 32, "patch_size": 8, "hidden_size": 96, "num_attention_heads": 3, "num_hidden_layers": 3}
    config = VJEPA2Config(**{**small, "frames_per_clip": FRAMES, "initializer_range": 0.1, **fields})
    module = VJEPA2Encoder(config).eval().requires_grad_(False)
    for name, parameter in module.named_parameters():
        if parameter.ndim == 1:  # As initialised, biases are 0 and gains 1: a mix-up of them would not show.
            parameter.add_(0.3 * torch.randn_like(parameter) if "norm" in name else torch.randn_like(parameter))
    return module


def engine_of(module, frames: int = FRAMES) -> Engine:
    return Engine(module.config, module.state_dict(), frames)


def clips(count: int, frames: int = FRAMES, side: int = 32, seed: int = 1) -> list[list[torch.Tensor]]:
    video = torch.randn(count, frames, 3, side, side, generator=torch.Generator().manual_seed(seed))
    return [list(clip) for clip in video]


def tokens_of(module, given: list[list[torch.Tensor]]) -> torch.Tensor:
    parameter = next(module.parameters())
    video = torch.stack([torch.stack(clip) for clip in given]).to(parameter.device, parameter.dtype)
    return module(video).last_hidden_state


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("count", [1, 5, 16])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"num_attention_heads": 2},
        {"num_attention_heads": 6, "tubelet_size": 4},
        {"qkv_bias": False, "hidden_act": "gelu_pytorch_tanh"},
        {"hidden_size": 64, "num_attention_heads": 1, "mlp_ratio": 2.0},
        {"frames_per_clip": 64},
    ],
)
@torch.inference_mode()
def test_in_float32_the_tokens_are_those_of_transformers(fields, count, device):
    module = encoder(**fields).to(device)
    found = engine_of(module)(clips(count))
    expected = tokens_of(module, clips(count))
    assert found.shape == expected.shape
    assert relative_error(found, expected) < 1e-5


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("fields", [{}, {"crop_size": 128, "patch_size": 8, "frames_per_clip": 16}])
@torch.inference_mode()
def test_in_bfloat16_every_token_points_the_same_way(fields, device):
    module = encoder(**fields).to(device)
    side, frames = module.config.crop_size, module.config.frames_per_clip
    given = clips(3, frames, side)
    narrow = copy.deepcopy(module).to(torch.bfloat16)
    found = engine_of(narrow, frames)(given).float()
    assert functional.cosine_similarity(found, tokens_of(module, given), dim=-1).min() > 0.999


@torch.inference_mode()
def test_a_window_that_slides_has_the_tokens_of_a_clip_seen_whole():
    module = encoder()
    engine = engine_of(module)
    (video,) = clips(1, frames=30)
    for start in range(len(video) - FRAMES + 1):
        window = video[start : start + FRAMES]
        found = engine([window])
        assert relative_error(found, tokens_of(module, [window])) < 1e-5


@pytest.mark.parametrize(("tubelet", "expected"), [(2, [8, 8, 2, 2, 2, 2, 2]), (4, [8, 8, 8, 8, 4, 4, 4])])
@torch.inference_mode()
def test_a_sliding_window_embeds_its_newest_tubelet_alone(monkeypatch, tubelet, expected):
    engine = engine_of(encoder(tubelet_size=tubelet))
    (video,) = clips(1, frames=14)
    embedded = []
    patches = engine._patches
    monkeypatch.setattr(engine, "_patches", lambda frames: embedded.append(len(frames)) or patches(frames))
    for start in range(len(video) - FRAMES + 1):
        engine([video[start : start + FRAMES]])
    assert embedded == expected


@torch.inference_mode()
def test_frames_that_are_gone_are_not_mistaken_for_new_ones():
    module = encoder()
    engine = engine_of(module)
    for seed in range(20):  # Python gives a new tensor the identity of one that is gone.
        given = clips(2, seed=seed)
        assert relative_error(engine(given), tokens_of(module, given)) < 1e-5
        video = torch.stack([torch.stack(clip) for clip in given]).flip(1)
        assert relative_error(engine(video), tokens_of(module, [list(clip) for clip in video])) < 1e-5


@torch.inference_mode()
def test_what_is_returned_is_not_overwritten_by_the_next_call():
    engine = engine_of(encoder())
    first = engine(clips(2))
    kept = first.clone()
    engine(clips(2, seed=3))
    assert torch.equal(first, kept)


@pytest.mark.parametrize("fields", [{}, {"qkv_bias": False, "mlp_ratio": 2.5, "tubelet_size": 4}])
def test_the_weights_are_those_of_transformers_by_name_and_shape(fields):
    module = encoder(**fields)
    assert weight_shapes(module.config) == {name: tuple(value.shape) for name, value in module.state_dict().items()}


def test_an_encoder_needs_no_part_of_transformers(tmp_path):
    code = (
        "import sys; from vjepa_perception.encoder import EncoderConfig, load_encoder; "
        "load_encoder(EncoderConfig(sys.argv[1], device='cpu')).warm_up(); "
        "assert 'transformers' not in sys.modules"
    )
    model = {"crop_size": 32, "patch_size": 8, "hidden_size": 48, "num_attention_heads": 2, "num_hidden_layers": 1}
    bundle = {"kind": "encoder", "architecture": "vjepa2", "model": model, "clip_frames": 8, "init_seed": 0}
    write_bundle(tmp_path, bundle | {"preprocessing": {"resize": 32, "crop": 32}}, "card")
    subprocess.run([sys.executable, "-P", "-c", code, str(tmp_path)], check=True)


def test_heads_of_an_odd_size_are_refused():
    with pytest.raises(VjepaError, match=r"attention heads have 13 values \(39 in 3 heads\); expected an even number"):
        engine_of(encoder(hidden_size=39))
