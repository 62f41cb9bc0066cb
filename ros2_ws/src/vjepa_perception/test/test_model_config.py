"""The configuration of a model, against transformers' own."""

from pathlib import Path

from transformers.models.vjepa2.configuration_vjepa2 import VJEPA2Config

from vjepa_perception.checkpoint import Checkpoint
from vjepa_perception.model_config import ModelConfig, model_config
from vjepa_perception.preprocessing import Preprocessing


def test_a_configuration_that_transformers_writes_is_read_with_the_same_values():
    theirs = VJEPA2Config(hidden_size=48, num_attention_heads=2, mlp_ratio=2, qkv_bias=False)
    written = theirs.to_dict()
    of_bundle = {name: value for name, value in written.items() if name in VJEPA2Config.__dataclass_fields__}
    for fields, clip_frames in ((written, None), (of_bundle, 8)):
        checkpoint = Checkpoint("tiny", Path("tiny"), fields, Preprocessing(256, 256), (), 0, clip_frames)
        ours = vars(model_config(checkpoint))
        assert ours == {name: getattr(theirs, name) for name in ours}


def test_the_fields_and_their_defaults_are_those_of_transformers():
    theirs, ours = VJEPA2Config(), vars(ModelConfig())
    assert ours == {name: getattr(theirs, name) for name in VJEPA2Config.__annotations__ if name != "model_type"}
