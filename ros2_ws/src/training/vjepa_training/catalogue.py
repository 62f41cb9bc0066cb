"""What the command line and the graph may ask of planners and tasks without running any."""

from collections.abc import Mapping
from typing import Any

from sim_bridge.tasks import task_named
from vjepa_interfaces.errors import unknown_name
from vjepa_planner.registry import available


def installed_planners() -> list[str]:
    """Return the names of all planners installed, sorted."""
    return available()


def refuse_unknown_names(parameters: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse, before anything is started, a task or a planner that there is not.

    Args:
        parameters: of every node, by node name, flat.

    Raises:
        VjepaError: naming it, and the valid ones.
    """
    task_named(parameters["sim_bridge"]["task"])
    planner = parameters["vjepa_planner"]
    for name in (planner["planner"], *planner.get("planners", ()), *planner.get("fallbacks", ())):
        if name not in available():
            raise unknown_name("planner", name, available())


def arm_of(task: str) -> dict[str, Any]:
    """Return what a planner must know of the arm of a simulated `task`, as parameters of its node.

    Raises:
        VjepaError: there is no such task; the message lists those there are.
    """
    arm = task_named(task)
    return {
        "joint_names": list(arm.joint_names),
        "effort_limit": arm.effort_limit,
        "control_period_s": arm.control_period_s,
    }


def options_of(planner: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a planner among the `parameters` of `vjepa_planner`, flat, where they are `NAME.OPTION`."""
    return {name.partition(".")[2]: value for name, value in parameters.items() if name.startswith(f"{planner}.")}
