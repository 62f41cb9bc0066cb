"""The encoder's products in 8-bit integers on a processor, to measure whether they are worth it."""

import warnings

import torch
from torch import Tensor

from vjepa_perception.engine import Engine, Linear


class Int8Weight:
    """The weight and bias of a linear layer, which make `torch.nn.functional.linear` compute in 8-bit integers.

    Each output has its own scale; the scale of the inputs is computed in each call. Inputs and outputs are float32.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None):
        scales = weight.abs().amax(1).double() / 127
        zeros = torch.zeros(len(weight), dtype=torch.long)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch warns in each call that it will remove these types.
            narrow = torch.quantize_per_channel(weight.contiguous(), scales, zeros, 0, torch.qint8)
        self.packed = torch.ops.quantized.linear_prepack(narrow, bias)

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        """Replace `linear`, the only function that gets such weights."""
        inputs, weight = args[:2]
        return torch.ops.quantized.linear_dynamic(inputs, weight.packed)


def to_int8(engine: Engine) -> Engine:
    """Return the float32 `engine` with all products of its layers except attention's in 8-bit integers."""

    def converted(linear: Linear) -> tuple:
        weight, bias = linear
        return linear if weight.ndim == 1 else (Int8Weight(weight, bias), None)

    engine._layers = [tuple(converted(linear) for linear in layer) for layer in engine._layers]
    return engine
