"""The encoder's products in 8-bit integers on a processor, to see whether they would be worth having."""

import warnings

import torch
from torch import Tensor

from vjepa_perception.engine import Engine, Linear


class Int8Weight:
    """A linear layer's weight and bias, of which `torch.nn.functional.linear` makes a product of 8-bit integers.

    Each output has a scale of its own; the inputs' is found anew in each call. Inputs and outputs are float32.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None):
        scales = weight.abs().amax(1).double() / 127
        zeros = torch.zeros(len(weight), dtype=torch.long)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch means to remove these types, and says so each time.
            narrow = torch.quantize_per_channel(weight.contiguous(), scales, zeros, 0, torch.qint8)
        self.packed = torch.ops.quantized.linear_prepack(narrow, bias)

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        """Be called in place of `linear`, the one function that such weights are given to."""
        inputs, weight = args[:2]
        return torch.ops.quantized.linear_dynamic(inputs, weight.packed)


def to_int8(engine: Engine) -> Engine:
    """Return the float32 `engine` with the products of its layers, but attention's, in 8-bit integers."""

    def converted(linear: Linear) -> tuple:
        weight, bias = linear
        return linear if weight.ndim == 1 else (Int8Weight(weight, bias), None)

    engine._layers = [tuple(converted(linear) for linear in layer) for layer in engine._layers]
    return engine
