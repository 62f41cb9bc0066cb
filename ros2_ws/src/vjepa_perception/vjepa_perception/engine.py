"""A frozen V-JEPA 2 encoder's forward pass, made for speed: weights and tokens are those of transformers.

It takes a configuration, and weights by their names in transformers' module, but imports no part of transformers.
These are the differences from that module:

- One product gives queries, keys and values, and the weights contain the attention's scale.
- Rotary tables are computed once. Their order in memory makes a rotation three passes over it.
- Patch embedding is a product, and a tubelet of the last clips is not embedded again.
- On a processor a batch is computed in pieces that stay in its cache.
- On a GPU the launches of a small batch are replayed as one graph.
"""

import operator
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vjepa_interfaces.errors import VjepaError, unknown_name
from vjepa_perception.rotary import rotary_tables

Linear = tuple[Tensor, Tensor | None]
"""Weight and bias of a linear layer."""

CACHE_BYTES = {torch.float32: 2**20}
CACHE_BYTES_NARROW = 2**21
"""The largest size of an MLP's hidden activations in one piece of a batch on a processor. Measured."""

MOST_PLAIN_TOKENS = 1024
"""With more tokens the attention's matrix does not fit into memory."""

MOST_GRAPHED_CLIPS = 4
"""The largest batch that is replayed as a graph; a larger one keeps a GPU busy without it."""


class Tubelet:
    """Consecutive frames as a key: equal only to the same tensors, which it keeps alive.

    A tensor is no key itself, as `==` compares its values.
    """

    def __init__(self, frames: Sequence[Tensor]) -> None:
        self.frames = tuple(frames)

    def __hash__(self) -> int:
        return hash(tuple(map(id, self.frames)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tubelet) and all(map(operator.is_, self.frames, other.frames))


class Engine:
    """The forward pass of a transformers `VJEPA2Encoder`; not for training.

    Only one thread may call it at a time. Frames must not be changed afterwards, because a tubelet is recognised by the
    identity of its frames.
    """

    def __init__(self, config: Any, weights: Mapping[str, Tensor], clip_frames: int) -> None:
        """Prepare `weights` for clips of `clip_frames` frames.

        Args:
            config: a `ModelConfig`, or transformers' `VJEPA2Config`.
            weights: all tensors of `weight_shapes(config)`, on one device and of one type.
            clip_frames: a multiple of the tubelet size.

        Raises:
            VjepaError: the size of a head is odd, so it cannot be rotated by pairs.
        """
        patches = weights["embeddings.patch_embeddings.proj.weight"]
        self._device, self._dtype = patches.device, patches.dtype
        self._heads = config.num_attention_heads
        self._size = config.hidden_size // self._heads
        if self._size % 2:
            raise VjepaError(
                f"attention heads have {self._size} values ({config.hidden_size} in {self._heads} heads); "
                "expected an even number, as positions rotate pairs"
            )
        self._tubelet, self._patch = config.tubelet_size, config.patch_size
        self._tokens = clip_frames // config.tubelet_size * (config.crop_size // config.patch_size) ** 2
        self._eps = config.layer_norm_eps
        self._embedding = (patches.flatten(1), weights["embeddings.patch_embeddings.proj.bias"])
        self._last_norm = (weights["layernorm.weight"], weights["layernorm.bias"])
        self._activation = activation(config.hidden_act)
        self._tables = self._halved_tables(config)
        self._layers = [self._layer(weights, f"layer.{i}.") for i in range(config.num_hidden_layers)]
        self._plain = (self._device.type, self._dtype) == ("cpu", torch.bfloat16) and self._tokens <= MOST_PLAIN_TOKENS
        self._embedded: deque[dict[Tubelet, Tensor]] = deque(maxlen=self._tubelet)
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}
        self._piece = self._clips_in_cache(config.hidden_size * config.mlp_ratio)

    def __call__(self, clips: Sequence[Sequence[Tensor]]) -> Tensor:
        """Return the tokens of `clips`: shape (B, N, D), in the module's own type.

        Args:
            clips: B clips of frames (3, side, side) each, oldest first, on the module's device.
        """
        embedded = self.embed(clips)
        if self._device.type == "cuda" and len(clips) <= MOST_GRAPHED_CLIPS:
            return self._replayed(embedded)
        return torch.cat([self._attended(piece) for piece in embedded.split(self._piece)])

    def embed(self, clips: Sequence[Sequence[Tensor]]) -> Tensor:
        """Return the embedded patches of `clips`, the input of the first layer: shape (B, N, D).

        Tubelets are kept for as many calls as a tubelet has frames. When a window has slid by that many frames, one in
        each call, all its tubelets except the newest are known.
        """
        step = self._tubelet
        tubelets = [Tubelet(clip[start : start + step]) for clip in clips for start in range(0, len(clip), step)]
        known: dict[Tubelet, Tensor] = {}
        for call in self._embedded:
            known |= call
        new = [tubelet for tubelet in dict.fromkeys(tubelets) if tubelet not in known]
        if new:
            frames = torch.stack([frame for tubelet in new for frame in tubelet.frames])
            rows = functional.linear(self._patches(frames.to(self._device, self._dtype)), *self._embedding)
            known |= zip(new, rows, strict=True)
        self._embedded.append({tubelet: known[tubelet] for tubelet in tubelets})
        return torch.stack([known[tubelet] for tubelet in tubelets]).unflatten(0, (len(clips), -1)).flatten(1, 2)

    def _patches(self, frames: Tensor) -> Tensor:
        """Return the values of patches, (T, patches, values), of T tubelets of frames (T x frames, 3, side, side)."""
        patch = self._patch
        split = frames.unflatten(0, (-1, self._tubelet)).unflatten(3, (-1, patch)).unflatten(5, (-1, patch))
        return split.permute(0, 3, 5, 2, 1, 4, 6).flatten(3).flatten(1, 2)

    def _attended(self, x: Tensor) -> Tensor:
        """Return the output of the layers for the tokens `x`, (B, N, D), which are changed in place."""
        batch, tokens, width = x.shape
        heads, size = self._heads, self._size
        cosines, first_sines, second_sines = self._tables
        turned = x.new_empty(batch, tokens, 2 * heads, size)
        first, second = turned[..., : size // 2], turned[..., size // 2 :]
        queries, keys = turned[:, :, :heads].transpose(1, 2), turned[:, :, heads:].transpose(1, 2)
        for norm1, qkv, project, norm2, widen, narrow in self._layers:
            product = functional.linear(functional.layer_norm(x, (width,), *norm1, self._eps), *qkv)
            product = product.view(batch, tokens, 3 * heads, size)
            straight = product[:, :, : 2 * heads]
            torch.mul(straight, cosines, out=turned)
            first.addcmul_(straight[..., size // 2 :], first_sines)
            second.addcmul_(straight[..., : size // 2], second_sines)
            mixed = self._attention(queries, keys, product[:, :, 2 * heads :].transpose(1, 2))
            x += functional.linear(mixed.transpose(1, 2).reshape(batch, tokens, width), *project)
            hidden = functional.linear(functional.layer_norm(x, (width,), *norm2, self._eps), *widen)
            x += functional.linear(self._activation(hidden), *narrow)
        return functional.layer_norm(x, (width,), *self._last_norm, self._eps)

    def _attention(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        if self._plain:  # A fifth faster there than the fused kernel, which computes in float32.
            return (queries @ keys.transpose(-1, -2)).softmax(-1) @ values
        return functional.scaled_dot_product_attention(queries, keys, values, scale=1.0)

    def _replayed(self, embedded: Tensor) -> Tensor:
        """Return the output of the layers for `embedded` on a GPU, by a graph recorded at the first such batch."""
        if len(embedded) not in self._graphs:
            given = embedded.clone()
            aside = torch.cuda.Stream(self._device)
            aside.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(aside):
                for _ in range(3):  # Libraries choose their kernels before the recording.
                    self._attended(given.clone())
            torch.cuda.current_stream(self._device).wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                made = self._attended(given.clone())
            self._graphs[len(embedded)] = (graph, given, made)
        graph, given, made = self._graphs[len(embedded)]
        given.copy_(embedded)
        graph.replay()
        return made.clone()

    def _layer(self, weights: Mapping[str, Tensor], prefix: str) -> tuple[Linear, ...]:
        """Return the weights and biases of one layer, in the order of their use."""

        def named(name: str) -> Linear:
            return weights[f"{prefix}{name}.weight"], weights.get(f"{prefix}{name}.bias")

        order = torch.cat([torch.arange(0, self._size, 2), torch.arange(1, self._size, 2)]).to(self._device)
        rows = (torch.arange(self._heads, device=self._device)[:, None] * self._size + order).flatten()
        queries = _rows(named("attention.query"), rows, self._size**-0.5)
        parts = (queries, _rows(named("attention.key"), rows), named("attention.value"))
        biases = [bias for _, bias in parts if bias is not None]
        qkv = (torch.cat([weight for weight, _ in parts]), torch.cat(biases) if biases else None)
        return (named("norm1"), qkv, *map(named, ("attention.proj", "norm2", "mlp.fc1", "mlp.fc2")))

    def _halved_tables(self, config: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return cosines, and sines of the first and of the second of each pair, for queries and keys of all heads.

        In each head the first values of all pairs come first, then the second values, so a rotation works on two
        halves. The shape is (N, 2 x heads, head size); sines have half of the head size.
        """
        cosines, sines = rotary_tables(config, self._tokens, self._dtype, self._device)
        halved = torch.cat([cosines[:, 0::2], cosines[:, 1::2]], dim=1)
        tables = (halved, -sines[:, 0::2], sines[:, 1::2])
        cosines, first, second = (table[:, None].repeat(1, 2 * self._heads, 1).contiguous() for table in tables)
        return cosines, first, second

    def _clips_in_cache(self, hidden: float) -> int:
        """Return the number of clips in one piece of a batch, given the width of an MLP's `hidden` values."""
        if self._device.type != "cpu":
            return 2**20
        one = self._tokens * hidden * self._dtype.itemsize
        return max(1, int(CACHE_BYTES.get(self._dtype, CACHE_BYTES_NARROW) / one))


def weight_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes of an encoder's weights by their names in transformers' `VJEPA2Encoder`."""
    width, hidden = config.hidden_size, int(config.hidden_size * config.mlp_ratio)
    patches = "embeddings.patch_embeddings.proj"
    shapes: dict[str, tuple[int, ...]] = {
        f"{patches}.weight": (width, config.in_chans, config.tubelet_size, config.patch_size, config.patch_size),
        f"{patches}.bias": (width,),
    }
    linears = {f"attention.{name}": (width, width) for name in ("query", "key", "value", "proj")}
    linears |= {"mlp.fc1": (hidden, width), "mlp.fc2": (width, hidden)}
    for layer in range(config.num_hidden_layers):
        for name, shape in linears.items():
            shapes[f"layer.{layer}.{name}.weight"] = shape
            if config.qkv_bias or name in ("attention.proj", "mlp.fc1", "mlp.fc2"):
                shapes[f"layer.{layer}.{name}.bias"] = shape[:1]
    for norm in (*(f"layer.{i}.norm{k}" for i in range(config.num_hidden_layers) for k in (1, 2)), "layernorm"):
        shapes[f"{norm}.weight"] = shapes[f"{norm}.bias"] = (width,)
    return shapes


def _rows(linear: Linear, rows: Tensor, scale: float = 1.0) -> Linear:
    """Return weight and bias of a linear layer with its outputs in the order `rows`, times `scale`."""
    weight, bias = linear
    return weight[rows] * scale, None if bias is None else bias[rows] * scale


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """Return transformers' activation function of a name.

    Raises:
        VjepaError: transformers has no function of this name.
    """
    if name == "gelu":
        return functional.gelu
    from transformers.activations import ACT2FN  # Imported here, as it takes seconds.

    if name not in ACT2FN:
        raise unknown_name("activation function in hidden_act:", name, ACT2FN)
    return ACT2FN[name]
