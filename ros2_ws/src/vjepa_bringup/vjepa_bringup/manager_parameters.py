"""The parameters of the node `stack_manager`, without ROS."""

from dataclasses import dataclass
from typing import Annotated

from vjepa_interfaces.parameters import Range


@dataclass(frozen=True)
class ManagerParameters:
    """Parameters of `stack_manager`.

    Attributes:
        autostart: bring the nodes up at once; otherwise they wait for `~/startup` or transitions by hand.
        transition_timeout_s: seconds after which a transition has failed.
        max_restarts: most times that a node may be brought up again.
        managed_nodes: names of the lifecycle nodes, in their order of activation. The stack sets them.
    """

    autostart: bool = True
    transition_timeout_s: Annotated[float, Range(above=0.0)] = 180.0
    max_restarts: Annotated[int, Range(low=0)] = 3
    managed_nodes: tuple[str, ...] = ("vjepa_perception", "vjepa_planner", "sim_bridge")
