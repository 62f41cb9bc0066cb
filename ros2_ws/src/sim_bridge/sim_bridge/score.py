"""Scores of episodes: returns, distances and actions."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sim_bridge.tasks import plane_of, task_named
from vjepa_interfaces.effort import EffortLimit, EffortLimits
from vjepa_interfaces.messages import FIRST, LAST

MATCHED_STEPS = 1000
"""The largest number of steps without efforts, or efforts without a step, that are kept: topics arrive in any order."""


@dataclass
class Episode:
    """The score of one episode so far.

    Attributes:
        episode_return: sum of the rewards.
        steps: number of control steps.
        started_in_target: whether the fingertip was in the target at the first step; None without a target to reach.
        in_target_at_end: the same at the last step; None before it.
        done: whether the episode reached its last step.
        goal_distances: distance of each frame's latent from the goal latent, if there is a goal.
        distances: in one process, distance from fingertip to target at each frame, m in the plane.
        imagined: in one process, the planner's `Imagined` at each frame that it planned from, or None.
        novelty: in one process, the novelty of each latent that was planned from, or None if it is unknown.
        rewards: reward of each step.
        actions: action of each step, (n,) in [-1, 1]; None if it is unknown.
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
    """Scores episodes from stamped steps in order. It ignores repeated stamps.

    A FIRST step with a stamp before the last one comes from a simulation that started again, with its first episode.
    The earlier scores are then cleared.

    Attributes:
        task: dm_control task, which has the target's radius.
        effort_limit: effort of an action of 1, N·m, one number or one for each joint; 0 for the task's own.
        episodes: all episodes that have begun.
        distance_m: distance from fingertip to target at the last step, m in the plane; NaN before the first.
        joint_names: joints of the efforts that `apply` takes, in their order.
    """

    task: str
    episodes: list[Episode] = field(default_factory=list)
    distance_m: float = float("nan")
    effort_limit: EffortLimit = 0.0
    _last_ns: int = -1

    def __post_init__(self) -> None:
        task = task_named(self.task)
        self.joint_names = task.joint_names
        self._limits = EffortLimits.of(task.joint_names, self.effort_limit or task.effort_limit)
        self._radius = task.target_radius
        self._plane = plane_of(self.task)
        self._efforts: dict[int, np.ndarray] = {}
        self._awaited: dict[int, tuple[Episode, int]] = {}

    def add(self, stamp_ns: int, reward: float, step_type: int, target: np.ndarray, fingertip: np.ndarray) -> None:
        """Add one step. Steps before the first FIRST belong to no episode and are ignored.

        Args:
            stamp_ns: stamp of the step, nanoseconds.
            reward: reward of the transition to this step.
            step_type: FIRST, MID or LAST.
            target: (3,) m.
            fingertip: (3,) m.
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
        """Add the efforts (n,) in N·m that were applied in the transition to a stamp, before or after `add`."""
        self._efforts[stamp_ns] = effort
        self._match(stamp_ns)
        for waiting in (self._efforts, self._awaited):
            while len(waiting) > MATCHED_STEPS:
                waiting.pop(next(iter(waiting)))

    def _match(self, stamp_ns: int) -> None:
        """Set the action of a step when both its step and its efforts have arrived."""
        if stamp_ns in self._efforts and stamp_ns in self._awaited:
            episode, step = self._awaited.pop(stamp_ns)
            episode.actions[step] = self._limits.to_action(self._efforts.pop(stamp_ns))

    def _in_target(self) -> bool | None:
        return None if self._radius is None else self.distance_m <= self._radius

    @property
    def finished(self) -> list[Episode]:
        """Episodes that reached their LAST step."""
        return [episode for episode in self.episodes if episode.done]
