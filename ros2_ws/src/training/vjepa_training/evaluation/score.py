"""Scores: from the steps of episodes to returns, success and intervals, for both ways of running a planner."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sim_bridge.tasks import task_named
from vjepa_interfaces.effort import EffortLimits
from vjepa_interfaces.errors import unknown_name
from vjepa_interfaces.messages import FIRST, LAST
from vjepa_planner.contract import Imagined
from vjepa_training.evaluation.action_change import action_change_at_rest
from vjepa_training.catalogue import plane_of
from vjepa_training.evaluation.imagination import compare_with_what_happened

BOOTSTRAP_RESAMPLES = 10_000
MATCHED_STEPS = 1000
"""Steps whose efforts are waited for, and efforts whose steps are: topics arrive in any order."""


@dataclass(frozen=True)
class Protocol:
    """How long an episode is and what counts as success in it.

    Attributes:
        name: `short`, `full` or `old`.
        episode_steps: control steps.
        success_return: success is a return above this; None: success is being in the target at the end, which is
            not defined for a task without a target.
    """

    name: str
    episode_steps: int
    success_return: float | None


PROTOCOLS = {
    "short": Protocol("short", 200, 150.0),
    "full": Protocol("full", 1000, None),
    "old": Protocol("old", 100, None),
}
"""`short` is the earlier work's for policies, `full` that of the literature. `old` is the earlier work's for planners,
which gave returns and distances to the goal latent alone; success is here, as in `full`, the target at the end.
"""


def protocol_named(name: str) -> Protocol:
    """Return the protocol `name`, refused with the valid ones where there is none."""
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


@dataclass
class Episode:
    """One episode as it goes: its rewards so far, and whether its ends lie in the target.

    Attributes:
        goal_distances: of each frame's latent to the goal latent, where there is one.
        distances: in one process, from fingertip to target at each frame, m in the plane.
        imagined: in one process, what the planner expected at each frame that it planned from, or None.
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
    imagined: list[Imagined | None] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list, compare=False)
    actions: list[np.ndarray | None] = field(default_factory=list, compare=False)


@dataclass
class ScoreKeeper:
    """Scores episodes from stamped steps given in order; a stamp given again is ignored.

    A FIRST step from before the last one is that of a simulation started again, which begins with its first episode:
    what was scored before is then forgotten.

    Attributes:
        task: dm_control task, which tells how near counts as in the target.
        effort_limit: N·m of an action of 1; None for the task's own.
        episodes: those begun so far.
        distance_m: from the task's fingertip to its target point at the last step, in the plane; NaN before the first.
        joint_names: of the efforts that `apply` takes, in their order.
    """

    task: str
    episodes: list[Episode] = field(default_factory=list)
    distance_m: float = float("nan")
    effort_limit: float | None = None
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


def bootstrap_interval(values: list[float], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile-bootstrap interval of the mean of `values` (Efron 1979), from a fixed seed."""
    if not values:
        return float("nan"), float("nan")
    sample = np.asarray(values, np.float64)
    random = np.random.default_rng(seed)
    means = [sample[random.integers(0, len(sample), len(sample))].mean() for _ in range(BOOTSTRAP_RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def wilson_interval(successes: int, count: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share (Wilson 1927), which stays honest where all or none succeed.

    Args:
        successes: how many succeeded.
        count: of how many independent trials, at least 1.
    """
    z = 1.959963984540054
    share = successes / count
    centre = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def summarise(episodes: list[Episode], protocol: Protocol) -> dict[str, Any]:
    """Return the figures of finished `episodes` under a `protocol`, as they go into a result's JSON.

    NaN stands for what no episode gives, and None for what is not defined for the task.
    """
    returns = [episode.episode_return for episode in episodes]
    at_end = [episode.in_target_at_end for episode in episodes]
    if protocol.success_return is not None:
        successes: list[bool | None] = [value > protocol.success_return for value in returns]
    else:
        successes = at_end
    defined = [success for success in successes if success is not None]
    low, high = bootstrap_interval(returns)
    return {
        "protocol": protocol.name,
        "episode_steps": protocol.episode_steps,
        "episodes": len(episodes),
        "steps": [episode.steps for episode in episodes],
        "returns": returns,
        "in_target_at_end": at_end,
        "started_in_target": [episode.started_in_target for episode in episodes],
        "mean_return": float(np.mean(returns)) if returns else float("nan"),
        "interval_95": [low, high],
        "success": successes,
        "success_rate": float(np.mean(defined)) if defined else float("nan"),
        "action_change_at_rest": action_change_at_rest((episode.rewards, episode.actions) for episode in episodes),
        **_approach([episode.goal_distances for episode in episodes]),
        **_meaning(episodes),
        **_imagination(episodes),
    }


def _approach(distances: list[list[float]]) -> dict[str, Any]:
    """Return how near the goal latent episodes came, by their distances to it; nothing where there was none."""
    if not distances or not all(distances):
        return {}
    start, end = [way[0] for way in distances], [way[-1] for way in distances]
    closer = [1 - after / before if before else float("nan") for before, after in zip(start, end, strict=True)]
    return {
        "goal_distance": {"start": start, "least": [min(way) for way in distances], "end": end},
        "closer": float(np.mean(closer)),
    }


def _meaning(episodes: list[Episode]) -> dict[str, Any]:
    """Return what nearness to the goal latent was worth in metres; nothing where there was no goal or no target."""
    ways = [(episode.goal_distances, episode.distances) for episode in episodes]
    if not ways or any(len(to_goal) != len(metres) or not metres for to_goal, metres in ways):
        return {}
    to_goal, metres = (np.concatenate([way[i] for way in ways]) for i in range(2))
    varies = to_goal.std() > 0 and metres.std() > 0
    return {
        "target_distance": {"start": [way[0] for _, way in ways], "end": [way[-1] for _, way in ways]},
        "goal_correlation": float(np.corrcoef(to_goal, metres)[0, 1]) if varies else float("nan"),
    }


def _imagination(episodes: list[Episode]) -> dict[str, Any]:
    """Return what was imagined against what happened; nothing where nothing was imagined."""
    found = compare_with_what_happened([(episode.distances, episode.imagined) for episode in episodes])
    return {"imagined": found} if found else {}
