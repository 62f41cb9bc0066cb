"""What the command line and the graph may ask of planners and tasks without running any."""

from collections.abc import Mapping
from typing import Any

from sim_bridge.backgrounds import Pictures
from sim_bridge.camera_view import PLAIN, refuse_unknown_rendering
from sim_bridge.looks import NOMINAL, Look
from sim_bridge.tasks import TASKS, task_named
from vjepa_interfaces.errors import VjepaError, unknown_name
from vjepa_perception.placement import AUTO, refuse_unknown_placement
from vjepa_planner.registry import available

EXPERTS = {"reacher": ("expert", "expert-p"), "point_mass": ("expert-xy",)}
"""The scripted planners that are shown the target and know the arm, the best first, by dm_control's domain."""


def installed_planners() -> list[str]:
    """Return the names of all planners installed, sorted."""
    return available()


def refuse_unknown_names(parameters: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse, before anything is started, a task, look, rendering, background, planner, device or type there is not.

    Args:
        parameters: of every node, by node name, flat.

    Raises:
        VjepaError: naming it, and the valid ones.
    """
    sim = parameters["sim_bridge"]
    task_named(sim["task"])
    Look.of(str(sim.get("look", NOMINAL)))
    refuse_unknown_rendering(sim.get("render", PLAIN))
    Pictures(str(sim.get("backgrounds", "")))
    planner = parameters["vjepa_planner"]
    for name in (planner["planner"], *planner.get("planners", ()), *planner.get("fallbacks", ())):
        if name not in available():
            raise unknown_name("planner", name, available())
    device, dtype = (parameters["vjepa_perception"].get(name, AUTO) for name in ("device", "dtype"))
    if isinstance(device, str) and isinstance(dtype, str):  # The encoder's configuration refuses other types.
        refuse_unknown_placement(device, dtype)


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


def task_domain(task: str) -> str:
    """Return dm_control's domain of `task`, such as `reacher`: tasks of one domain have the same arm.

    Raises:
        VjepaError: there is no such task; the message lists those there are.
    """
    return task_named(task).domain


def experts_of(task: str) -> tuple[str, ...]:
    """Return the scripted planners that know how to do `task`, the best first; empty where there is none.

    Raises:
        VjepaError: there is no such task; the message lists those there are.
    """
    return EXPERTS.get(task_domain(task), ())


def expert_of(task: str, otherwise: str) -> str:
    """Return the best scripted planner that knows how to do `task`.

    Args:
        task: of dm_control.
        otherwise: what it means that there is none, for the message.

    Raises:
        VjepaError: there is none, or no such task.
    """
    experts = experts_of(task)
    if not experts:
        raise VjepaError(f"no scripted expert knows the task '{task}', so {otherwise}")
    return experts[0]


def refuse_other_arm(planner: str, task: str) -> None:
    """Refuse a scripted planner that knows another arm than that of a simulated `task`.

    Raises:
        VjepaError: naming the scripted planners that know it, or that there is none; or there is no such task.
    """
    known = experts_of(task)
    if planner in {name for names in EXPERTS.values() for name in names} - set(known):
        raise VjepaError(
            f"planner '{planner}' is scripted for another arm than that of {task}; scripted for this one: "
            f"{', '.join(known) or 'none'}; random drives any arm"
        )


def is_about_reaching(task: str) -> bool:
    """Return whether the reward of `task` is for the fingertip in a target; true where the task is not known."""
    return task not in TASKS or TASKS[task].target_radius is not None


def plane_of(task: str) -> list[int]:
    """Return the numbers of the two world axes in which the arm of `task` moves; x and y where it is not known."""
    return list(TASKS[task].plane) if task in TASKS else [0, 1]


def options_of(planner: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a planner among the `parameters` of `vjepa_planner`, flat, where they are `NAME.OPTION`."""
    return {name.partition(".")[2]: value for name, value in parameters.items() if name.startswith(f"{planner}.")}
