"""The configuration of probes. No torch: the command line makes its options from it."""

from dataclasses import dataclass
from typing import Annotated

from sim_bridge.sim_parameters import SimConfig
from vjepa_interfaces.parameters import Range, check_ranges

AtLeastOne = Annotated[int, Range(low=1)]


@dataclass(frozen=True)
class ProbeConfig:
    """What to probe, on what.

    Attributes:
        encoder: bundle, checkpoint folder or hub id; empty for the latents that the dataset holds.
        device: where encoders and probes run, as `EncoderConfig` names it.
        grid: the pooling, see `EncoderConfig`.
        data: a dataset with frames, or with latents alone; None to simulate episodes.
        task: dm_control task that is simulated, such as reacher-easy.
        episodes: episodes to simulate.
        seed: episode i uses seed + i.
        episode_steps: control steps of an episode.
        randomize: draw camera, colours, lights and, where there is a target, its size anew each episode.
        render: how frames are rendered, see `SimConfig`.
        look: what the camera sees, such as `all:medium`.
        workers: processes that simulate.
        attentive: train attentive probes beside the linear ones.
    """

    encoder: str = ""
    device: str = "auto"
    grid: int = 4
    data: str | None = None
    task: str = "reacher-easy"
    episodes: AtLeastOne = 1000
    seed: Annotated[int, Range(low=0, high=2**31 - 1)] = 1_000_000
    episode_steps: AtLeastOne = 50
    randomize: bool = False
    render: str = SimConfig.render
    look: str = SimConfig.look
    workers: AtLeastOne = 2
    attentive: bool = True

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense, with a VjepaError."""
        check_ranges(self)
