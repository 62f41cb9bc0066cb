"""`sac`: an actor trained by soft actor-critic in the simulator, one forward pass a plan."""

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
    """Acts by the mode of its actor, as `dreamer` does; how the actor was trained is all that differs."""

    Config = SacConfig

    def __init__(self, config: SacConfig, context: PlannerContext):
        super().__init__(DreamerConfig(config.bundle), context)
        self.config = config
