"""Rotary position tables of V-JEPA 2, computed once.

transformers computes the sines and cosines of every token's position again for each layer's queries and keys. They
depend only on the number of tokens. So they are computed once here, by the same arithmetic, and the encoder's output is
the same to the last bit.
"""

import types
from typing import Any

import torch


class RotaryTables:
    """Cosines and sines of all tokens' positions, shared by every layer of one encoder."""

    def __init__(self) -> None:
        self._key: tuple[Any, ...] | None = None
        self._tables: tuple[torch.Tensor, torch.Tensor] | None = None

    def of(self, attention: Any, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cosines and sines, each (N, head size), for `hidden`, (B, N, D), entering the layer `attention`."""
        key = (hidden.size(1), hidden.dtype, hidden.device)
        if self._tables is None or key != self._key:
            self._key, self._tables = key, rotary_tables(attention.config, *key)
        return self._tables


def share_rotary_tables(module: Any) -> None:
    """Make all attention layers of a transformers `VJEPA2Encoder` share one pair of tables. No masks may be used."""
    tables = RotaryTables()
    for layer in module.layer:
        attention = layer.attention
        attention.get_position_ids = types.MethodType(lambda self, x, masks=None: tables.of(self, x), attention)
        attention.apply_rotary_embeddings = _rotate


def _rotate(x: torch.Tensor, tables: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Return queries or keys, (B, heads, N, head size), rotated by their tokens' positions."""
    cosines, sines = tables
    first, second = x.unflatten(-1, (-1, 2)).unbind(dim=-1)
    return x * cosines + torch.stack((-second, first), dim=-1).flatten(-2) * sines


def rotary_tables(model: Any, tokens: int, dtype: torch.dtype, device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosines and sines, each (N, head size), of the tokens' positions in depth, height and width.

    The arithmetic is that of transformers' `rotate_queries_or_keys`.

    Args:
        model: configuration of the encoder, a `ModelConfig` or transformers' `VJEPA2Config`.
        tokens: N, in the order of tubelet, row and column.
        dtype: type of queries and keys.
        device: device of the tables.
    """
    side, head = model.crop_size // model.patch_size, model.hidden_size // model.num_attention_heads
    number = torch.arange(tokens, device=device)
    size = 2 * (head // 3 // 2)  # A third of a head for each axis, in pairs; the rest is not rotated.
    omega = torch.arange(size // 2, dtype=dtype, device=device)
    omega /= size / 2.0
    cosines, sines = [], []
    for position in (number // side**2, number % side**2 // side, number % side):
        angle = position.unsqueeze(-1) * (1.0 / 10000**omega)
        cosines.append(angle.cos().repeat(1, 2))
        sines.append(angle.sin().repeat(1, 2))
    cosines.append(torch.ones(tokens, head - 3 * size, dtype=dtype, device=device))
    sines.append(torch.zeros(tokens, head - 3 * size, dtype=dtype, device=device))
    return torch.cat(cosines, dim=-1), torch.cat(sines, dim=-1)
