"""The settings of probes, without torch: the command line makes its options from them."""

from dataclasses import dataclass
from typing import Annotated

from sim_bridge.sim_parameters import SimConfig
from vjepa_interfaces.parameters import Range, check_ranges

AtLeastOne = Annotated[int, Range(low=1)]


@dataclass(frozen=True)
class ProbeConfig:
    """The target and the data of a probe.

    Attributes:
        encoder: bundle, checkpoint folder or hub id; empty for the latents in the dataset.
        device: device of encoders and probes, as in `EncoderConfig`.
        grid: the pooling, see `EncoderConfig`.
        data: a dataset with frames, or with latents alone; None to simulate episodes.
        task: dm_control task that is simulated, such as reacher-easy.
        episodes: episodes to simulate.
        seed: episode i uses seed + i.
        episode_steps: control steps of an episode.
        randomize: draw camera, colours, lights and, if there is a target, its size for each episode.
        render: rendering of the frames, see `SimConfig`.
        look: what the camera shows, such as `all:medium`.
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
        """Refuse impossible numbers with a VjepaError."""
        check_ranges(self)
