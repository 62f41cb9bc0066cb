"""Tables computed once change nothing: the encoder gives transformers' own output, to the last bit."""

import pytest
import torch
from transformers.models.vjepa2.configuration_vjepa2 import VJEPA2Config
from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2Encoder

from vjepa_perception.rotary import share_rotary_tables


@pytest.mark.parametrize("heads", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_output_is_the_same_to_the_last_bit(heads, dtype):
    torch.manual_seed(0)
    config = VJEPA2Config(
        crop_size=32, patch_size=8, hidden_size=96, num_attention_heads=heads, num_hidden_layers=3, frames_per_clip=8
    )
    module = VJEPA2Encoder(config).eval().to(dtype)
    clips = [torch.randn(2, frames, 3, 32, 32, dtype=dtype) for frames in (8, 4, 8)]
    with torch.inference_mode():
        plain = [module(clip).last_hidden_state for clip in clips]
        share_rotary_tables(module)
        shared = [module(clip).last_hidden_state for clip in clips]
    for expected, found in zip(plain, shared, strict=True):
        assert torch.equal(expected, found)
