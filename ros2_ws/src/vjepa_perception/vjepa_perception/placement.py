"""The names of the devices and number types that an encoder may be asked for; no torch, so a start can check them."""

import re

from vjepa_interfaces.errors import unknown_name

AUTO = "auto"
DEVICES = (AUTO, "cpu", "cuda", "cuda:N")
DTYPES = (AUTO, "float32", "bfloat16", "float16")

_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?", re.ASCII)


def refuse_unknown_placement(device: str, dtype: str) -> None:
    """Refuse names that mean no device or no type on any machine.

    Raises:
        VjepaError: naming it, and the valid ones.
    """
    if not _DEVICE.fullmatch(device):
        raise unknown_name("device", device, DEVICES)
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
