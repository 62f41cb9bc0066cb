"""The configuration of an encoder, and the parameters of the node that runs it: without ROS, and without torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from vjepa_interfaces.errors import unknown_name
from vjepa_interfaces.parameters import Range, as_base, check_ranges, read_node_parameters
from vjepa_perception.placement import AUTO, refuse_unknown_placement

TRANSPORTS = ("raw", "compressed")
ALL_TOKENS = -1
"""The value of `grid` for every token."""


@dataclass(frozen=True)
class EncoderConfig:
    """Which encoder to run, and how.

    Attributes:
        encoder: a bundle that ships, by name, or the folder of a bundle or of a transformers checkpoint. Or a hub id
            such as `facebook/vjepa2-vitl-fpc64-256`, followed by `@REVISION` for a commit, tag or branch.
        device: `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`.
        dtype: `float32`, `bfloat16`, `float16` or `auto`: bfloat16 on a GPU and float32 on a CPU. On a CPU in real
            time, `auto` is the faster of the two, by measurement.
        clip_frames: frames of a clip, a multiple of the encoder's tubelet size. Positions are rotary, so it need not
            be the length that a hub checkpoint was trained on; of a bundle it must be.
        grid: g gives the mean row and g x g rows; 0 the mean row alone; -1 the mean row and every token.
        threads: torch's processor threads, of the whole process; 0 leaves them as they are.
    """

    encoder: str = ""
    device: str = AUTO
    dtype: str = AUTO
    clip_frames: Annotated[int, Range(low=1)] = 8
    grid: Annotated[int, Range(low=ALL_TOKENS)] = 4
    threads: Annotated[int, Range(low=0)] = 0

    def __post_init__(self) -> None:
        """Refuse values that no encoder can have, with a VjepaError; loading refuses the others."""
        check_ranges(self)
        refuse_unknown_placement(self.device, self.dtype)


@dataclass(frozen=True)
class PerceptionParameters(EncoderConfig):
    """Parameters of `vjepa_perception`.

    Attributes:
        lockstep: the simulation waits for each answer, so dtype `auto` is not measured.
        input_transport: `raw` or `compressed`.
        trace: publish on the topic `trace` when each frame passed the parts of this node.
    """

    lockstep: bool = False
    input_transport: str = "raw"
    trace: bool = False

    def __post_init__(self) -> None:
        """Refuse values that no encoder can have, and an unknown transport, with a VjepaError."""
        super().__post_init__()
        if self.input_transport not in TRANSPORTS:
            raise unknown_name("input_transport", self.input_transport, TRANSPORTS)


def encoder_config(parameters: Mapping[str, Any], **changes: Any) -> EncoderConfig:
    """Return the encoder that the node `vjepa_perception` would run.

    Args:
        parameters: the node's parameters by flat name, as in parameter files.
        changes: fields of `EncoderConfig` with another value.

    Raises:
        VjepaError: a parameter is unknown or of a wrong type, or no encoder can have its value.
    """
    return as_base(EncoderConfig, read_node_parameters(PerceptionParameters, parameters, "vjepa_perception"), **changes)
