"""Running the graph for a number of episodes: processes up, scores in, processes down."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from vjepa_bringup.domains import hold_domain
from vjepa_bringup.graph import StackOptions, build_graph, environment
from vjepa_bringup.monitor import Monitor
from vjepa_bringup.supervisor import Supervisor
from vjepa_interfaces.errors import VjepaError
from vjepa_training.score import Episode, ScoreKeeper

POLL_S = 0.1
FIRST_STEP_TIMEOUT_S = 240.0
LOCKSTEP_SILENCE_S = 60.0
FINAL_FIGURES_S = 5.0


@dataclass(frozen=True)
class GraphResult:
    """What a run of the graph gave.

    Attributes:
        episodes: the finished ones, in order.
        encoder_info: what the encoder said of itself.
        planner: who drove at the end.
        loop: figures of the loop: latency percentiles (ms), achieved rate (Hz), counts of frames and commands.
        complete: whether every episode asked for ran.
    """

    episodes: list[Episode]
    encoder_info: dict[str, Any]
    planner: str
    loop: dict[str, float]
    complete: bool


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into KeyboardInterrupt, as SIGINT already is, so that every way out cleans up."""

    def interrupt(number, frame):
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def running_graph(options: StackOptions, domain: int | None, about: dict[str, Any]) -> Iterator[tuple[Supervisor, int]]:
    """Run the stack's processes in a domain held for them while the context lasts."""
    nodes = build_graph(options)
    with interruptible(), hold_domain(domain, {"namespace": options.namespace, **about}) as held:
        variables = {**environment(options), "ROS_DOMAIN_ID": str(held)}
        os.environ.update(variables)
        supervisor = Supervisor(variables, options.namespace, options.log_level)
        try:
            supervisor.start(nodes)
            yield supervisor, held
        finally:
            supervisor.stop()


def run_graph(
    options: StackOptions,
    task: str,
    episode_steps: int,
    domain: int | None = None,
    on_progress: Callable[[ScoreKeeper, Monitor], None] | None = None,
) -> GraphResult:
    """Run the full loop for `options.episodes` episodes and return their scores.

    Raises:
        VjepaError: the graph did not come up, or stood still; the message says which node said what.
    """
    wanted = options.episodes or 0
    options = replace(options, episode_steps=episode_steps)
    keeper = ScoreKeeper(task)
    with (
        running_graph(options, domain, {"planner": options.planner or ""}) as (supervisor, held),
        Monitor(held, options.namespace, keeper) as monitor,
    ):
        moved_s, steps_seen = time.monotonic(), -1
        while len(keeper.finished) < wanted:
            monitor.spin(POLL_S)
            steps = sum(episode.steps for episode in keeper.episodes) + len(keeper.episodes)
            if steps != steps_seen:
                moved_s, steps_seen = time.monotonic(), steps
            _refuse_standstill(supervisor, monitor, time.monotonic() - moved_s, steps)
            if on_progress:
                on_progress(keeper, monitor)
        monitor.wait_until(
            lambda: monitor.diagnostics.get("sim_bridge", ("", "", {}))[1] == "finished", FINAL_FIGURES_S
        )
        return GraphResult(
            episodes=keeper.finished[:wanted],
            encoder_info=monitor.encoder_info,
            planner=monitor.active_planner,
            loop=_loop_figures(monitor),
            complete=len(keeper.finished) >= wanted,
        )


def _refuse_standstill(supervisor: Supervisor, monitor: Monitor, silence_s: float, steps: int) -> None:
    """Raise when the graph cannot come up, or has stopped moving for good."""
    gone = supervisor.poll()
    if gone:
        raise VjepaError("; ".join(gone))
    manager = monitor.diagnostics.get("stack_manager")
    errors = monitor.errors()
    if manager is not None and "stack_manager" in errors:
        causes = [f"{name}: {message}" for name, message in errors.items() if name != "stack_manager"]
        raise VjepaError("; ".join(causes) or errors["stack_manager"])
    limit_s = LOCKSTEP_SILENCE_S if steps else FIRST_STEP_TIMEOUT_S
    if silence_s > limit_s:
        causes = [f"{name}: {message}" for name, (_, message, _) in monitor.diagnostics.items()]
        raise VjepaError(f"no step for {limit_s:.0f} s; nodes say: {'; '.join(causes) or 'nothing'}")


def _loop_figures(monitor: Monitor) -> dict[str, float]:
    sim = {name: monitor.value("sim_bridge", name) for name in _SIM_FIGURES}
    sim["dropped_frames"] = sim["frames"] - sim["answered_frames"]
    perception = {name: monitor.value("vjepa_perception", name) for name in ("encode_p50_ms", "encode_p99_ms")}
    planner = {name: monitor.value("vjepa_planner", name) for name in ("plan_p50_ms", "plan_p99_ms")}
    return {**sim, **perception, **planner}


_SIM_FIGURES = (
    "latency_p50_ms",
    "latency_p99_ms",
    "command_age_p50_periods",
    "command_age_p99_periods",
    "achieved_rate_hz",
    "steps",
    "stale_steps",
    "timeout_steps",
    "frames",
    "answered_frames",
    "resent_frames",
    "refused_commands",
    "clamped_commands",
)


def print_progress(line: str, done: bool = False) -> None:
    """Show one live line on a terminal; elsewhere only the last one of each kind, as a line."""
    if sys.stdout.isatty():
        print(f"\r\x1b[K{line}", end="\n" if done else "", flush=True)
    elif done:
        print(line, flush=True)
