"""Scores of episodes: they are kept where the simulation runs, and read from its messages elsewhere."""

import json
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sim_bridge.action_change import ActionChange
from sim_bridge.tasks import plane_of, task_named
from vjepa_interfaces.effort import EffortLimits
from vjepa_interfaces.json_text import parse_json
from vjepa_interfaces.messages import FIRST, LAST

if TYPE_CHECKING:  # The choice of an OpenGL backend must come before the import of the physics.
    from sim_bridge.env import SimStep


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
        change: change of the action while the fingertip rests in the target.
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
    change: ActionChange = field(default_factory=ActionChange)


class ScoreKeeper:
    """Scores the present episode from the steps of a simulation. A FIRST step begins the next one.

    Attributes:
        episode: score of the present episode; empty before the first step.
        distance_m: distance from fingertip to target at the last step, m in the plane; NaN before the first.
    """

    def __init__(self, task: str, limits: EffortLimits):
        """Store the arguments.

        Args:
            task: dm_control task, which has the target's radius.
            limits: joints of the steps' efforts, and the effort of an action of 1.

        Raises:
            VjepaError: the task does not exist.
        """
        self.episode = Episode()
        self.distance_m = math.nan
        self._limits = limits
        self._radius = task_named(task).target_radius
        self._plane = plane_of(task)

    def add(self, step: "SimStep") -> None:
        """Add the next step."""
        self.distance_m = float(np.linalg.norm((step.target - step.fingertip)[self._plane]))
        in_target = None if self._radius is None else self.distance_m <= self._radius
        if step.step_type == FIRST:
            self.episode = Episode(started_in_target=in_target)
            return
        self.episode.episode_return += step.reward
        self.episode.steps += 1
        self.episode.change.add(step.reward, self._limits.to_action(step.joint_effort))
        if step.step_type == LAST:
            self.episode.in_target_at_end = in_target
            self.episode.done = True


class ScoreMessage(NamedTuple):
    """The text of a message on `sim_bridge/progress` or `sim_bridge/score`, in parts.

    Attributes:
        run: a number that differs each time the simulation is configured.
        number: number of the episode, from 0.
        distance_m: distance from fingertip to target at the last step, m in the plane.
        episode: score of the episode so far.
    """

    run: int
    number: int
    distance_m: float
    episode: Episode

    def text(self) -> str:
        """Return the message's text: JSON, whose numbers `of` reads back to the bit."""
        score = self.episode
        return json.dumps(
            {
                "run": self.run,
                "episode": self.number,
                "steps": score.steps,
                "return": score.episode_return,
                "distance": self.distance_m,
                "started_in_target": score.started_in_target,
                "in_target_at_end": score.in_target_at_end,
                "done": score.done,
                "action_change": score.change.total,
                "action_pairs": score.change.pairs,
            }
        )

    @classmethod
    def of(cls, text: str) -> "ScoreMessage":
        """Return the parts of a message's `text`.

        Raises:
            ValueError: the text is not that of such a message.
        """
        found = parse_json(text)
        try:
            episode = Episode(
                episode_return=float(found["return"]),
                steps=int(found["steps"]),
                started_in_target=found["started_in_target"],
                in_target_at_end=found["in_target_at_end"],
                done=bool(found["done"]),
                change=ActionChange(float(found["action_change"]), int(found["action_pairs"])),
            )
            return cls(int(found["run"]), int(found["episode"]), float(found["distance"]), episode)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"this is not the score of an episode: {error!r}") from error


class RunScores:
    """The episodes of a running simulation, from its messages on `sim_bridge/progress` and `sim_bridge/score`.

    Messages of different topics may arrive in any order. The scores of episodes that ended before the first progress
    are kept too. When the simulation was configured again, its episodes begin anew, and the earlier scores are cleared.

    Attributes:
        distance_m: distance from fingertip to target in the newest progress, m in the plane; NaN before the first.
    """

    def __init__(self) -> None:
        self._clear(None)

    def _clear(self, run: int | None) -> None:
        self.distance_m = math.nan
        self._run = run
        self._episodes: dict[int, Episode] = {}
        self._watched_from: int | None = None
        self._moved_s = time.monotonic()

    def read(self, text: str) -> tuple[int, float]:
        """Read a message.

        Returns:
            Number of new steps and the sum of their rewards. Steps before the first progress are not new.

        Raises:
            ValueError: the text is not that of such a message.
        """
        message = ScoreMessage.of(text)
        if message.run != self._run:
            self._clear(message.run)
        number, episode = message.number, message.episode
        before = self._episodes.get(number, Episode())
        if before.done:
            return 0, 0.0
        if number not in self._episodes or episode.steps != before.steps:
            self._moved_s = time.monotonic()
        self._episodes[number] = episode
        if number + 1 == self.begun:
            self.distance_m = message.distance_m
        if self._watched_from is None and not episode.done:
            self._watched_from = number
            return 0, 0.0
        if self._watched_from is None or number < self._watched_from:
            return 0, 0.0
        return episode.steps - before.steps, episode.episode_return - before.episode_return

    @property
    def episodes(self) -> list[Episode]:
        """Scores of all known episodes, in order; the last one may be running."""
        return [self._episodes[number] for number in sorted(self._episodes)]

    @property
    def begun(self) -> int:
        """Number of episodes that the simulation has begun; 0 while it is unknown."""
        return max(self._episodes, default=-1) + 1

    @property
    def steps(self) -> int:
        """Number of control steps of all known episodes."""
        return sum(episode.steps for episode in self._episodes.values())

    @property
    def silence_s(self) -> float:
        """Seconds since an episode began or made a step; before the first, since this object was made."""
        return time.monotonic() - self._moved_s

    @property
    def finished(self) -> list[Episode]:
        """Episodes that reached their LAST step, in order."""
        return self.finished_from(0)

    def finished_from(self, number: int) -> list[Episode]:
        """Return the episodes that reached their LAST step, from this `number` on, in order."""
        return [episode for i, episode in sorted(self._episodes.items()) if i >= number and episode.done]
