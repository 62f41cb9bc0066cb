"""Compute figures of episodes: returns, success and intervals, for both ways of running a planner."""

import math
from dataclasses import dataclass
from typing import NotRequired, TypedDict, cast

import numpy as np

from sim_bridge.action_change import ActionChange
from sim_bridge.score import Episode
from vjepa_interfaces.errors import unknown_name
from vjepa_training.evaluation.bootstrap import bootstrap_interval
from vjepa_training.evaluation.imagination import ImaginedAndReal, compare_with_what_happened
from vjepa_training.evaluation.novelty import NoveltyFigures, novelty_of


@dataclass(frozen=True)
class Protocol:
    """The length of an episode and its condition of success.

    Attributes:
        name: `short`, `full` or `baseline`.
        episode_steps: control steps.
        success_return: success is a return above this; None: success is being in the target at the end. A task without
            a target has no success then.
    """

    name: str
    episode_steps: int
    success_return: float | None


PROTOCOLS = {
    "short": Protocol("short", 200, 150.0),
    "full": Protocol("full", 1000, None),
    "baseline": Protocol("baseline", 100, None),
}
"""`short` is the earlier work's protocol for policies, `full` that of the literature.

`baseline` is the earlier work's protocol for planners, which reported only returns and distances to the goal latent.
Success in it is here, as in `full`, the target at the end.
"""


class GoalFigures(TypedDict, total=False):
    """The fields of a result with a goal latent.

    Attributes:
        goal_distance: distance to the goal latent, `start`, `least` and `end` of each episode.
        closer: mean over the episodes of 1 - end/start of this distance.
        target_distance: distance from fingertip to target, m, `start` and `end` of each episode, of a task with a
            target.
        goal_correlation: correlation of the two distances over all frames.
    """

    goal_distance: dict[str, list[float]]
    closer: float
    target_distance: dict[str, list[float]]
    goal_correlation: float


class Summary(GoalFigures, NoveltyFigures):
    """The fields of a result that follow from its episodes; docs/interface.md describes them.

    A list has an entry for each episode. NaN stands for a value that no episode has, and None for a value that is
    undefined for the task.
    """

    protocol: str
    episode_steps: int
    episodes: int
    steps: list[int]
    returns: list[float]
    in_target_at_end: list[bool | None]
    started_in_target: list[bool | None]
    mean_return: float
    interval_95: list[float]
    success: list[bool | None]
    success_rate: float
    action_change_at_rest: float | None
    imagined: NotRequired[ImaginedAndReal]


def protocol_named(name: str) -> Protocol:
    """Return the protocol `name`.

    Raises:
        VjepaError: there is no such protocol; the message lists the valid ones.
    """
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def wilson_interval(successes: int, count: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share (Wilson 1927), which stays correct if all or none succeed.

    Args:
        successes: number of successes.
        count: number of independent trials, at least 1.
    """
    z = 1.959963984540054
    share = successes / count
    centre = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def summarise(episodes: list[Episode], protocol: Protocol) -> Summary:
    """Return the figures of finished `episodes` under a `protocol`."""
    returns = [episode.episode_return for episode in episodes]
    at_end = [episode.in_target_at_end for episode in episodes]
    if protocol.success_return is not None:
        successes: list[bool | None] = [value > protocol.success_return for value in returns]
    else:
        successes = at_end
    defined = [success for success in successes if success is not None]
    low, high = bootstrap_interval(returns)
    changes = [episode.change for episode in episodes]
    change = ActionChange(sum(each.total for each in changes), sum(each.pairs for each in changes))
    imagined = compare_with_what_happened([(episode.distances, episode.imagined) for episode in episodes])
    summary = {
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
        "action_change_at_rest": change.mean,
        **_approach([episode.goal_distances for episode in episodes]),
        **_meaning(episodes),
        **({"imagined": imagined} if imagined else {}),
        **novelty_of(episodes),
    }
    return cast(Summary, summary)


def _approach(distances: list[list[float]]) -> GoalFigures:
    """Return how near the goal latent episodes came, by their distances to it; empty without a goal latent."""
    if not distances or not all(distances):
        return {}
    start, end = [way[0] for way in distances], [way[-1] for way in distances]
    closer = [1 - after / before if before else float("nan") for before, after in zip(start, end, strict=True)]
    return {
        "goal_distance": {"start": start, "least": [min(way) for way in distances], "end": end},
        "closer": float(np.mean(closer)),
    }


def _meaning(episodes: list[Episode]) -> GoalFigures:
    """Return target distances, m, and their correlation with goal distances; empty without a goal or a target."""
    ways = [(episode.goal_distances, episode.distances) for episode in episodes]
    if not ways or any(len(to_goal) != len(metres) or not metres for to_goal, metres in ways):
        return {}
    to_goal, metres = (np.concatenate([way[i] for way in ways]) for i in range(2))
    varies = to_goal.std() > 0 and metres.std() > 0
    return {
        "target_distance": {"start": [way[0] for _, way in ways], "end": [way[-1] for _, way in ways]},
        "goal_correlation": float(np.corrcoef(to_goal, metres)[0, 1]) if varies else float("nan"),
    }
