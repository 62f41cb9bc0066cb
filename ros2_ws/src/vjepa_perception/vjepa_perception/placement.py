"""The names of the devices and number types of an encoder; without torch, so that a start can check them early."""

import re

from vjepa_interfaces.errors import unknown_name

AUTO = "auto"
DEVICES = (AUTO, "cpu", "cuda", "cuda:N")
DTYPES = (AUTO, "float32", "bfloat16", "float16")

_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?", re.ASCII)


def refuse_unknown_placement(device: str, dtype: str) -> None:
    """Refuse names that are no device or no type on any machine.

    Args:
        device: such as `auto`, `cpu`, `cuda` or `cuda:0`.
        dtype: such as `auto` or `bfloat16`.

    Raises:
        VjepaError: a name is invalid; the message lists the valid ones.
    """
    if not _DEVICE.fullmatch(device):
        raise unknown_name("device", device, DEVICES)
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
