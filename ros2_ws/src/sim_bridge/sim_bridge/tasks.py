"""The dm_control tasks that can be simulated, by name.

A further entry of `TASKS` adds a task: any task of dm_control's suite whose actuators are plain motors.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sim_bridge.gl import choose_gl_backend
from vjepa_interfaces.errors import VjepaError, unknown_name


@dataclass(frozen=True)
class Place:
    """A point of a MuJoCo model: the origin of the geom, site or body (`kind`) called `name`."""

    kind: str
    name: str

    def position(self, physics: Any) -> np.ndarray:
        """Return the point's world position, (3,) m, as a copy."""
        positions = {"geom": physics.data.geom_xpos, "site": physics.data.site_xpos, "body": physics.data.xpos}
        return positions[self.kind][physics.model.name2id(self.name, self.kind)].copy()


@dataclass(frozen=True)
class SimTask:
    """A task of dm_control's suite.

    Attributes:
        domain: dm_control's domain name.
        task: dm_control's task name within the domain.
        camera: the model's camera that renders frames.
        fingertip: the point of the arm that acts on the world.
        target: the point that it should act on.
        joint_names: names of its motors, in the actuators' order, as in `Motors`.
        effort_limit: effort of its strongest motor, N·m.
        control_period_s: seconds from one control step to the next.
        target_radius: largest distance in the plane, m, from fingertip to target with full reward; None for a task
            that is not about reaching.
        plane: numbers of the two world axes in which the arm moves.
    """

    domain: str
    task: str
    camera: str
    fingertip: Place
    target: Place
    joint_names: tuple[str, ...]
    effort_limit: float
    control_period_s: float = 0.02
    target_radius: float | None = None
    plane: tuple[int, int] = (0, 1)

    def load(self, seed: int) -> Any:
        """Return a new `dm_control.rl.control.Environment` of this task, without a time limit.

        Args:
            seed: seed of its first episode.

        Raises:
            VjepaError: MuJoCo has no OpenGL backend to render with.
        """
        choose_gl_backend()  # The first import of dm_control fixes the backend.
        from dm_control import suite

        return suite.load(self.domain, self.task, task_kwargs={"random": seed, "time_limit": float("inf")})


_UPRIGHT = (0, 2)
_TARGET = Place("geom", "target")
_FINGER_RADIUS = 0.01
_REACHER: dict[str, Any] = {
    "camera": "fixed",
    "fingertip": Place("geom", "finger"),
    "target": _TARGET,
    "joint_names": ("shoulder", "wrist"),
    "effort_limit": 0.05,
}

TASKS = {
    "reacher-easy": SimTask("reacher", "easy", **_REACHER, target_radius=0.05 + _FINGER_RADIUS),
    "reacher-hard": SimTask("reacher", "hard", **_REACHER, target_radius=0.015 + _FINGER_RADIUS),
    # The finger must strike the spinner's free end; the task has no target of its own.
    "finger-spin": SimTask(
        "finger",
        "spin",
        "cam0",
        Place("geom", "fingertip"),
        Place("site", "tip"),
        ("proximal", "distal"),
        30.0,
        plane=_UPRIGHT,
    ),
    "cartpole-swingup": SimTask(
        "cartpole",
        "swingup",
        "fixed",
        Place("body", "cart"),
        Place("geom", "pole_1"),
        ("slider",),
        10.0,
        control_period_s=0.01,
        plane=_UPRIGHT,
    ),
    "manipulator-bring_ball": SimTask(
        "manipulator",
        "bring_ball",
        "fixed",
        Place("site", "grasp"),
        Place("body", "ball"),
        ("arm_root", "arm_shoulder", "arm_elbow", "arm_wrist", "grasp"),
        12.0,
        control_period_s=0.01,
        plane=_UPRIGHT,
    ),
    "point_mass-easy": SimTask(
        "point_mass", "easy", "fixed", Place("geom", "pointmass"), _TARGET, ("t1", "t2"), 0.1, target_radius=0.015
    ),
}


def task_named(name: str) -> SimTask:
    """Return the task `name`.

    Raises:
        VjepaError: there is no such task; the message lists all tasks.
    """
    if name not in TASKS:
        raise unknown_name("task", name, TASKS)
    return TASKS[name]


EXPERTS = {"reacher": ("expert", "expert-p"), "point_mass": ("expert-xy",)}
"""Scripted planners, which know the target and the arm, by dm_control's domain, the best first."""


def arm_of(task: str) -> dict[str, Any]:
    """Return the arm of a simulated `task` as parameters of the planner's node.

    Raises:
        VjepaError: there is no such task; the message lists all tasks.
    """
    arm = task_named(task)
    return {
        "joint_names": list(arm.joint_names),
        "effort_limit": arm.effort_limit,
        "control_period_s": arm.control_period_s,
    }


def task_domain(task: str) -> str:
    """Return dm_control's domain of `task`, such as `reacher`. Tasks of one domain have the same arm.

    Raises:
        VjepaError: there is no such task; the message lists all tasks.
    """
    return task_named(task).domain


def experts_of(task: str) -> tuple[str, ...]:
    """Return the scripted planners for `task`, the best first; empty for none.

    Raises:
        VjepaError: there is no such task; the message lists all tasks.
    """
    return EXPERTS.get(task_domain(task), ())


def expert_of(task: str, otherwise: str) -> str:
    """Return the best scripted planner for `task`.

    Args:
        task: a task of dm_control.
        otherwise: the consequence of a missing planner, for the message.

    Raises:
        VjepaError: there is no such planner, or no such task.
    """
    experts = experts_of(task)
    if not experts:
        raise VjepaError(f"no scripted expert knows the task '{task}', so {otherwise}")
    return experts[0]


def is_about_reaching(task: str) -> bool:
    """Return whether the reward of `task` is for the fingertip in a target; true for an unknown task."""
    return task not in TASKS or TASKS[task].target_radius is not None


def plane_of(task: str) -> list[int]:
    """Return the numbers of the two world axes in which the arm of `task` moves; x and y for an unknown task."""
    return list(TASKS[task].plane) if task in TASKS else [0, 1]


def refuse_other_arm(planner: str, task: str) -> None:
    """Refuse a scripted planner that is for another arm than the arm of a simulated `task`.

    Raises:
        VjepaError: the planner is for another arm (the message lists the scripted planners), or there is no such task.
    """
    known = experts_of(task)
    if planner in {name for names in EXPERTS.values() for name in names} - set(known):
        raise VjepaError(
            f"planner '{planner}' is scripted for another arm than that of {task}; scripted for this one: "
            f"{', '.join(known) or 'none'}; random drives any arm"
        )
