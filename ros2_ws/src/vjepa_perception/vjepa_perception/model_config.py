"""The configuration of a V-JEPA 2 model, as checkpoints and bundles contain it.

Its fields and defaults are those of transformers' `VJEPA2Config`, which takes most of a second to import.
"""

import difflib
import math
from dataclasses import dataclass, fields
from typing import Annotated

from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.parameters import ParameterError, Range, read_parameters
from vjepa_perception.checkpoint import Checkpoint, CheckpointError

MAX_LAYERS = 1000
"""More are a mistake, and would be counted one by one before the weights are read."""

_OF_EVERY_MODEL = frozenset(
    [
        "architectures",
        "attribute_map",
        "base_config_key",
        "base_model_ep_plan",
        "base_model_fsdp_plan",
        "base_model_pp_plan",
        "base_model_tp_plan",
        "chunk_size_feed_forward",
        "dtype",
        "extra_config_files",
        "extra_files",
        "id2label",
        "is_encoder_decoder",
        "label2id",
        "model_type",
        "output_hidden_states",
        "problem_type",
        "return_dict",
        "sub_configs_defaults",
        "transformers_version",
    ]
)
"""Fields of every configuration of transformers; the encoder does not depend on them."""

_WITHOUT_EFFECT = frozenset(
    [
        "add_cross_attention",
        "attn_implementation",
        "begin_suppress_tokens",
        "bos_token_id",
        "cross_attention_hidden_size",
        "decoder_start_token_id",
        "eos_token_id",
        "finetuning_task",
        "hidden_dropout_prob",
        "image_size",
        "is_decoder",
        "name_or_path",
        "num_labels",
        "output_attentions",
        "pad_token_id",
        "prefix",
        "pruned_heads",
        "revision",
        "sep_token_id",
        "suppress_tokens",
        "task_specific_params",
        "tf_legacy_loss",
        "tie_encoder_decoder",
        "tie_word_embeddings",
        "tokenizer_class",
        "torch_dtype",
        "torchscript",
        "use_SiLU",
        "use_bfloat16",
        "use_cache",
        "use_return_dict",
        "wide_SiLU",
    ]
)
"""Fields of published checkpoints that transformers no longer has; the encoder does not depend on them."""


@dataclass(frozen=True)
class ModelConfig:
    """The sizes of a V-JEPA 2 model. The predictor and the pooler are parts of its training only.

    Attributes:
        patch_size: side of a patch, pixels.
        crop_size: side of a picture, pixels.
        frames_per_clip: frames of a clip in training; an encoder takes clips of other lengths too.
        tubelet_size: frames of a token.
        hidden_size: values of a token.
        in_chans: channels of a picture.
        num_attention_heads: heads of each layer's attention.
        num_hidden_layers: layers of the encoder.
        drop_path_rate: share of layers that training skips.
        mlp_ratio: width of an MLP over that of a token.
        layer_norm_eps: least standard deviation in a norm's denominator.
        qkv_bias: whether queries, keys and values have a bias.
        attention_probs_dropout_prob: share of attention weights that training drops.
        hidden_act: name of the activation function in transformers.
        initializer_range: standard deviation of untrained weights.
        attention_dropout: share of attention outputs that training drops.
        num_pooler_layers: layers of the pooler.
        pred_hidden_size: values of a token in the predictor.
        pred_num_attention_heads: heads of the predictor's attention.
        pred_num_hidden_layers: layers of the predictor.
        pred_num_mask_tokens: mask tokens of the predictor.
        pred_zero_init_mask_tokens: whether the mask tokens begin at zero.
        pred_mlp_ratio: width of an MLP in the predictor over that of a token.
    """

    patch_size: Annotated[int, Range(low=1)] = 16
    crop_size: Annotated[int, Range(low=1)] = 256
    frames_per_clip: int = 64
    tubelet_size: Annotated[int, Range(low=1)] = 2
    hidden_size: Annotated[int, Range(low=1)] = 1024
    in_chans: int = 3
    num_attention_heads: Annotated[int, Range(low=1, high=MAX_LAYERS)] = 16
    num_hidden_layers: Annotated[int, Range(low=1, high=MAX_LAYERS)] = 24
    drop_path_rate: float = 0.0
    mlp_ratio: float = 4.0
    layer_norm_eps: float = 1e-6
    qkv_bias: bool = True
    attention_probs_dropout_prob: float = 0.0
    hidden_act: str = "gelu"
    initializer_range: float = 0.02
    attention_dropout: float = 0.0
    num_pooler_layers: int = 3
    pred_hidden_size: int = 384
    pred_num_attention_heads: int = 12
    pred_num_hidden_layers: int = 12
    pred_num_mask_tokens: int = 10
    pred_zero_init_mask_tokens: bool = True
    pred_mlp_ratio: float = 4.0

    def __post_init__(self) -> None:
        if self.in_chans != 3:
            raise ParameterError(f"in_chans is {self.in_chans}; expected 3")
        if not 1 <= self.hidden_size * self.mlp_ratio < math.inf:
            raise ParameterError(f"mlp_ratio is {self.mlp_ratio}; expected at least one value in an MLP")
        if self.hidden_size % (2 * self.num_attention_heads):
            raise ParameterError(
                f"hidden_size {self.hidden_size} and num_attention_heads {self.num_attention_heads}; expected "
                "attention heads of an even number of values, as positions rotate pairs"
            )


def model_config(checkpoint: Checkpoint) -> ModelConfig:
    """Return the configuration of a checkpoint's model.

    Raises:
        CheckpointError: it has unknown fields, or values that no encoder can have.
    """
    own = {field.name for field in fields(ModelConfig)}
    _refuse_unknown_fields(checkpoint, own)
    try:
        return read_parameters(ModelConfig, {k: v for k, v in checkpoint.model.items() if k in own}, "field")
    except (VjepaError, OverflowError) as error:  # A number of hundreds of digits overflows.
        raise CheckpointError(f"{checkpoint.path}: the model's configuration is not V-JEPA 2's: {error}") from error


def _refuse_unknown_fields(checkpoint: Checkpoint, known: set[str]) -> None:
    unknown = sorted(checkpoint.model.keys() - known - _OF_EVERY_MODEL)
    where = "config.json"
    if checkpoint.clip_frames is not None:
        where = "'model'"
    else:
        unknown = [name for name in unknown if name not in _WITHOUT_EFFECT and not name.startswith("_")]
        if checkpoint.model.get("use_SiLU"):
            unknown.append("use_SiLU")
    if unknown:
        close = {name: difflib.get_close_matches(name, known, 1) for name in unknown}
        meant = [f"{name} (is {found[0]} meant?)" if found else name for name, found in close.items()]
        raise CheckpointError(
            f"{checkpoint.path}: {where} has unknown fields {', '.join(meant)}; expected VJEPA2Config's. Remove those "
            "without effect. A newer architecture, such as V-JEPA 2.1, cannot be run by leaving its fields out"
        )
