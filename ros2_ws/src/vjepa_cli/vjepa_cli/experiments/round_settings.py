"""How online rounds are made. No torch and no pyarrow: the command line makes its options from this."""

from dataclasses import dataclass
from typing import Annotated, Literal

from vjepa_interfaces.parameters import Range, check_choices, check_ranges

PROCESS, ROS, STACK = "process", "ros", "stack"
ROUND_SEEDS = 1_000_000
"""Seeds from one round's first to the next one's; evaluation has the ones before the first round's."""
EVALUATION_SEED = 1_500_000_000
"""Far from the seeds of the project's datasets and results, so that choosing by it says nothing about those."""

AtLeastOne = Annotated[int, Range(low=1)]


@dataclass(frozen=True)
class RoundSettings:
    """How rounds are made: the same in all rounds of a folder.

    Attributes:
        data: dataset that the planner was trained on, which stays as it is.
        through: record and evaluate in one process; or in the ROS graph in lockstep, where recorded episodes are the
            protocol's, with no random actions; or record the stack that runs, evaluate in process, and swap in what is
            better while it runs.
        protocol: of evaluation and, through `ros`, of recorded episodes.
        seed: of evaluation; round k records from it + k million.
        episodes: recorded in a round.
        episode_steps: control steps of each of them, in process; None elsewhere: the graph decides.
        epsilon: share of random actions in them, in process; None elsewhere: there are none.
        hold: control steps that such an action is held; None likewise.
        eval_episodes: episodes of each evaluation.
        epochs: of dynamics and heads in a round.
        steps: of an actor in a round.
        learning_rate: of all of them, at its highest.
    """

    data: str
    through: Literal["process", "ros", "stack"] = "process"
    protocol: Literal["short", "full", "old"] = "short"
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
