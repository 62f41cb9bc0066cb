"""The stack's overhead from image to latent to command, against bare rclpy nodes that relay the same messages.

Both are measured in turns, ping, stack, ping, stack, ..., ping, so that changes of the machine affect both. Both use
the steady clock of the process that sends the image and receives the command. The stack's overhead is the median from
image to command, minus the median encode time, minus the median plan time. The median of a sum is not the sum of the
medians, but their difference is small while each of the three is narrow.
"""

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.figures import Figure, command_of, mean_with_interval, record
from benchmarks.ping import measure_ping
from benchmarks.stack import real_time_run

RATIO_AIM = 1.5


def measure(rounds: int, episodes: int, pings: int, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure ping and stack in turns and return the record.

    Args:
        rounds: runs of the stack; there is one more run of the ping.
        episodes: short episodes in a run of the stack.
        pings: round trips in a ping run.
        seed: seed of the first episode.
        say: is called with lines of progress.
    """
    ping_runs, loops = [measure_ping(pings)], []
    say(f"ping: {ping_runs[-1]['p50_ms']:.2f} ms")
    for i in range(rounds):
        loops.append(real_time_run(episodes, seed + i * episodes)["loop"])
        say(f"stack {i + 1}/{rounds}: {transport_ms(loops[-1]):.2f} ms")
        ping_runs.append(measure_ping(pings))
        say(f"ping: {ping_runs[-1]['p50_ms']:.2f} ms")
    return record(
        "transport",
        figures(ping_runs, loops),
        command_of("transport", rounds=rounds, run_episodes=episodes, pings=pings, seed=seed),
        range(seed, seed + rounds * episodes),
        pings=ping_runs,
        runs=[{**loop, "transport_ms": transport_ms(loop)} for loop in loops],
    )


def transport_ms(loop: dict[str, float]) -> float:
    """Return the median time from image to command without the medians of encoder and planner, milliseconds."""
    return loop["response_p50_ms"] - loop["encode_p50_ms"] - loop["plan_p50_ms"]


def ratios(ping_runs: Sequence[dict[str, float]], loops: Sequence[dict[str, float]]) -> list[float]:
    """Return, for each run of the stack, the ratio of its transport to the mean of the pings before and after it."""
    medians = [ping["p50_ms"] for ping in ping_runs]
    return [
        transport_ms(loop) / ((before + after) / 2)
        for loop, before, after in zip(loops, medians[:-1], medians[1:], strict=True)
    ]


def figures(ping_runs: Sequence[dict[str, float]], loops: Sequence[dict[str, float]]) -> list[Figure]:
    """Return the figure of all runs."""
    mean, interval = mean_with_interval(ratios(ping_runs, loops))
    return [
        Figure(
            "image to latent to command without encoding and planning, over a bare rclpy ping of the same messages",
            mean,
            "times",
            f"{len(loops)} runs of the stack between {len(ping_runs)} pings",
            RATIO_AIM,
            interval_95=interval,
            interval_of="bootstrap over runs",
        )
    ]
