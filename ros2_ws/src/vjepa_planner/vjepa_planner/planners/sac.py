"""`sac`: an actor trained by soft actor-critic in the simulator, with one forward pass per plan."""

from dataclasses import dataclass

from vjepa_planner.contract import PlannerContext
from vjepa_planner.planners.dreamer import DreamerConfig, DreamerPlanner


@dataclass(frozen=True)
class SacConfig:
    """Options of `sac`.

    Attributes:
        bundle: folder of an actor's bundle; required.
    """

    bundle: str = ""


class SacPlanner(DreamerPlanner):
    """Returns the mode of its actor's distribution as action, like `dreamer`; only the actor's training differs."""

    Config = SacConfig

    def __init__(self, config: SacConfig, context: PlannerContext):
        super().__init__(DreamerConfig(config.bundle), context)
        self.config = config
