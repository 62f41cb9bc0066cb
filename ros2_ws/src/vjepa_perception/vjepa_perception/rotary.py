"""Rotary position tables of V-JEPA 2, computed once.

transformers computes the sines and cosines of every token's position anew for each layer's queries and keys. They
depend on nothing but the number of tokens, so they are computed once here, by the same arithmetic: the encoder's output
is the same to the last bit.
"""

import types

import torch


class RotaryTables:
    """Cosines and sines of all tokens' positions, shared by every layer of one encoder."""

    def __init__(self) -> None:
        self._key: tuple | None = None
        self._tables: tuple[torch.Tensor, torch.Tensor] | None = None

    def of(self, attention, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cosines and sines, each (N, head size), for `hidden`, (B, N, D), entering the layer `attention`."""
        key = (hidden.size(1), hidden.dtype, hidden.device)
        if self._tables is None or key != self._key:
            self._key, self._tables = key, rotary_tables(attention, *key)
        return self._tables


def share_rotary_tables(module) -> None:
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


def rotary_tables(attention, tokens: int, dtype: torch.dtype, device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosines and sines, each (N, head size), of so many tokens' positions in depth, height and width.

    The arithmetic is that of transformers' `rotate_queries_or_keys`.

    Args:
        attention: any attention layer of the encoder.
        tokens: N.
        dtype: of queries and keys.
        device: where the tables shall be.
    """
    positions = type(attention).get_position_ids(attention, torch.empty(1, tokens, 0, device=device))
    cosines, sines = [], []
    for size, position in zip((attention.d_dim, attention.h_dim, attention.w_dim), positions, strict=True):
        omega = torch.arange(size // 2, dtype=dtype, device=device)
        omega /= size / 2.0
        angle = position.unsqueeze(-1) * (1.0 / 10000**omega)
        cosines.append(angle.cos().repeat(1, 2))
        sines.append(angle.sin().repeat(1, 2))
    rest = attention.attention_head_size - sum(table.size(-1) for table in cosines)
    cosines.append(torch.ones(tokens, rest, dtype=dtype, device=device))
    sines.append(torch.zeros(tokens, rest, dtype=dtype, device=device))
    return torch.cat(cosines, dim=-1), torch.cat(sines, dim=-1)
