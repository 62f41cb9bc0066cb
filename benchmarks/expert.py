"""The scripted expert through ROS in lockstep: it checks that the loop carries a good planner without loss."""

import shlex
from typing import Any

from benchmarks.figures import Figure, record
from benchmarks.stack import vjepa
from vjepa_training.evaluation.score import wilson_interval

RETURN_AIM = 975.0
SECONDS_PER_EPISODE = 120


def measure(episodes: int, protocol: str, seed: int) -> dict[str, Any]:
    """Evaluate `expert` for some `episodes` of a `protocol` and return the record."""
    arguments = ["eval", "--planner", "expert", "--encoder", "encoder-small", "--through", "ros"]
    arguments += ["--protocol", protocol, "--episodes", str(episodes), "--seed", str(seed)]
    result = vjepa(*arguments, timeout_s=120 + SECONDS_PER_EPISODE * episodes)
    return record(
        "expert",
        figures(result),
        shlex.join(["./vjepa", *arguments]),
        range(seed, seed + episodes),
        result={name: value for name, value in result.items() if name not in ("versions", "command")},
    )


def figures(result: dict[str, Any]) -> list[Figure]:
    """Return the figures of an evaluation's `result`, the JSON that `vjepa eval` writes."""
    episodes = result["episodes"]
    sample = f"{episodes} episodes of {result['episode_steps']} steps"
    at_end = sum(map(bool, result["in_target_at_end"]))
    return [
        Figure(
            "mean return of `expert` through ROS in lockstep",
            result["mean_return"],
            "",
            sample,
            RETURN_AIM,
            at_least=True,
            interval_95=tuple(result["interval_95"]),
            interval_of="bootstrap over episodes",
        ),
        Figure(
            "episodes of `expert` that end in the target",
            at_end / episodes,
            "%",
            sample,
            1.0,
            at_least=True,
            interval_95=wilson_interval(at_end, episodes),
            interval_of="Wilson score",
        ),
    ]
