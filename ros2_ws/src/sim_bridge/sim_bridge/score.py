"""Scores: from the steps of a task's episodes to returns, distances and actions."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sim_bridge.tasks import plane_of, task_named
from vjepa_interfaces.effort import EffortLimits
from vjepa_interfaces.messages import FIRST, LAST

MATCHED_STEPS = 1000
"""Steps whose efforts are waited for, and efforts whose steps are: topics arrive in any order."""


@dataclass
class Episode:
    """One episode as it goes: its rewards so far, and whether its ends lie in the target.

    Attributes:
        goal_distances: of each frame's latent to the goal latent, where there is one.
        distances: in one process, from fingertip to target at each frame, m in the plane.
        imagined: in one process, the planner's `Imagined` at each frame that it planned from, or None.
        novelty: in one process, how far each latent that was planned from is from those of the planner's training, or
            None where the planner does not know.
        rewards: of each step.
        actions: (n,) in [-1, 1], applied in each step; None where it is not known.
    """

    episode_return: float = 0.0
    steps: int = 0
    started_in_target: bool | None = None
    in_target_at_end: bool | None = None
    done: bool = False
    goal_distances: list[float] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)
    imagined: list[Any] = field(default_factory=list)
    novelty: list[float | None] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list, compare=False)
    actions: list[np.ndarray | None] = field(default_factory=list, compare=False)


@dataclass
class ScoreKeeper:
    """Scores episodes from stamped steps given in order; a stamp given again is ignored.

    A FIRST step from before the last one is that of a simulation started again, which begins with its first episode:
    what was scored before is then forgotten.

    Attributes:
        task: dm_control task, which tells how near counts as in the target.
        effort_limit: N·m of an action of 1; 0 for the task's own.
        episodes: those begun so far.
        distance_m: from the task's fingertip to its target point at the last step, in the plane; NaN before the first.
        joint_names: of the efforts that `apply` takes, in their order.
    """

    task: str
    episodes: list[Episode] = field(default_factory=list)
    distance_m: float = float("nan")
    effort_limit: float = 0.0
    _last_ns: int = -1

    def __post_init__(self) -> None:
        task = task_named(self.task)
        self.joint_names = task.joint_names
        self._limits = EffortLimits(task.joint_names, self.effort_limit or task.effort_limit)
        self._radius = task.target_radius
        self._plane = plane_of(self.task)
        self._efforts: dict[int, np.ndarray] = {}
        self._awaited: dict[int, tuple[Episode, int]] = {}

    def add(self, stamp_ns: int, reward: float, step_type: int, target: np.ndarray, fingertip: np.ndarray) -> None:
        """Take one step: `reward` of the transition that led here; `target` and `fingertip` are (3,) in metres.

        Steps before the first FIRST belong to no episode and are ignored.
        """
        if step_type == FIRST and stamp_ns < self._last_ns:
            for forgotten in (self.episodes, self._efforts, self._awaited):
                forgotten.clear()
        elif stamp_ns <= self._last_ns:
            return
        self._last_ns = stamp_ns
        self.distance_m = float(np.linalg.norm((target - fingertip)[self._plane]))
        if step_type == FIRST:
            self.episodes.append(Episode(started_in_target=self._in_target()))
            return
        if not self.episodes or self.episodes[-1].done:
            return
        episode = self.episodes[-1]
        episode.episode_return += reward
        episode.steps += 1
        episode.rewards.append(reward)
        episode.actions.append(None)
        self._awaited[stamp_ns] = (episode, len(episode.actions) - 1)
        self._match(stamp_ns)
        if step_type == LAST:
            episode.in_target_at_end = self._in_target()
            episode.done = True

    def apply(self, stamp_ns: int, effort: np.ndarray) -> None:
        """Take the efforts (n,) in N·m that were applied in the step which led to a stamp, before or after `add`."""
        self._efforts[stamp_ns] = effort
        self._match(stamp_ns)
        for waiting in (self._efforts, self._awaited):
            while len(waiting) > MATCHED_STEPS:
                waiting.pop(next(iter(waiting)))

    def _match(self, stamp_ns: int) -> None:
        """Give the step of a stamp its action, once both are there."""
        if stamp_ns in self._efforts and stamp_ns in self._awaited:
            episode, step = self._awaited.pop(stamp_ns)
            episode.actions[step] = self._limits.to_action(self._efforts.pop(stamp_ns))

    def _in_target(self) -> bool | None:
        return None if self._radius is None else self.distance_m <= self._radius

    @property
    def finished(self) -> list[Episode]:
        """Episodes that reached their LAST step."""
        return [episode for episode in self.episodes if episode.done]
