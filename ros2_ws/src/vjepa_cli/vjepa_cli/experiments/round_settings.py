"""The settings of online rounds. This module has no torch and no pyarrow, because a command line is made from it."""

from dataclasses import dataclass
from typing import Annotated, Literal

from vjepa_interfaces.parameters import Range, check_choices, check_ranges

PROCESS, ROS, STACK = "process", "ros", "stack"
ROUND_SEEDS = 1_000_000
"""Distance between the first seeds of two rounds; evaluation has the seeds before the first round."""
EVALUATION_SEED = 1_500_000_000
"""First seed of evaluation. It is far from the seeds of datasets and results, so a choice by it does not bias these."""

AtLeastOne = Annotated[int, Range(low=1)]


@dataclass(frozen=True)
class RoundSettings:
    """The settings of rounds, which are the same in all rounds of a folder.

    Attributes:
        data: dataset that the planner was trained on, which stays unchanged.
        through: record and evaluate in one process, or in the ROS graph in lockstep. In the graph, recorded episodes
            are the protocol's, without random actions. Or record the running stack, evaluate in process, and swap in a
            better planner while it runs.
        protocol: protocol of evaluation and, through `ros`, of recorded episodes.
        seed: first seed of evaluation; round k records from it + k million.
        episodes: number of recorded episodes in a round.
        episode_steps: control steps of each recorded episode, in process; None elsewhere, where the graph decides.
        epsilon: share of random actions in recorded episodes, in process; None elsewhere, where there are none.
        hold: control steps for which a random action is held, in process; None elsewhere.
        eval_episodes: number of episodes of each evaluation.
        epochs: epochs of dynamics and heads in a round.
        steps: training steps of an actor in a round.
        learning_rate: highest learning rate of all trainings.
    """

    data: str
    through: Literal["process", "ros", "stack"] = "process"
    protocol: Literal["short", "full", "baseline"] = "short"
    seed: Annotated[int, Range(low=0, high=2**31 - 1)] = EVALUATION_SEED
    episodes: AtLeastOne = 200
    episode_steps: Annotated[int | None, Range(low=1)] = None
    epsilon: Annotated[float | None, Range(low=0, high=1)] = None
    hold: Annotated[int | None, Range(low=1)] = None
    eval_episodes: AtLeastOne = 20
    epochs: AtLeastOne = 5
    steps: AtLeastOne = 2000
    learning_rate: Annotated[float, Range(above=0)] = 2e-4

    def __post_init__(self) -> None:
        """Refuse values that no rounds can have, with a VjepaError."""
        check_choices(self)
        check_ranges(self)
