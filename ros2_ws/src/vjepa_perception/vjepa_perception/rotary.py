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
            self._key, self._tables = key, _tables(attention, hidden)
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


def _tables(attention, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute what `rotate_queries_or_keys` of transformers computes, for depth, height and width side by side."""
    positions = type(attention).get_position_ids(attention, hidden)
    cosines, sines = [], []
    for size, position in zip((attention.d_dim, attention.h_dim, attention.w_dim), positions, strict=True):
        omega = torch.arange(size // 2, dtype=hidden.dtype, device=hidden.device)
        omega /= size / 2.0
        angle = position.unsqueeze(-1) * (1.0 / 10000**omega)
        cosines.append(angle.cos().repeat(1, 2))
        sines.append(angle.sin().repeat(1, 2))
    rest = attention.attention_head_size - sum(table.size(-1) for table in cosines)
    cosines.append(torch.ones(hidden.size(1), rest, dtype=hidden.dtype, device=hidden.device))
    sines.append(torch.zeros(hidden.size(1), rest, dtype=hidden.dtype, device=hidden.device))
    return torch.cat(cosines, dim=-1), torch.cat(sines, dim=-1)
