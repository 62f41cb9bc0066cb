"""Runs of the graph for a number of episodes: start the processes, score the episodes, stop the processes."""

import contextlib
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from rcl_interfaces.srv import GetParameters
from rclpy.parameter import parameter_value_to_python
from std_msgs.msg import String

from sim_bridge.score import Episode, RunScores
from vjepa_bringup.domains import hold_domain
from vjepa_bringup.graph import StackOptions, build_graph, environment, merged_parameters
from vjepa_bringup.interrupts import interruptible
from vjepa_bringup.monitor import Monitor, text_in
from vjepa_bringup.one_stack import only_stack
from vjepa_bringup.supervisor import Supervisor
from vjepa_interfaces import topics
from vjepa_interfaces.encoder_info import EncoderInfo
from vjepa_interfaces.environment import environment_of
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.frame_trace import FrameTrace

POLL_S = 0.1
FIRST_STEP_TIMEOUT_S = 240.0
LOCKSTEP_SILENCE_S = 60.0
FINAL_FIGURES_S = 5.0
OPTIONS_TIMEOUT_S = 0.5
REFUSED_AT_START = 100
"""Latents that the planner may refuse before its first plan: in real time some arrive before their inputs."""

CAUSE_TIMEOUT_S = 10.0
"""Seconds of waiting for a node's own error after the stack manager's report of it."""


@dataclass(frozen=True)
class GraphResult:
    """The result of a run of the graph.

    Attributes:
        episodes: finished episodes, in order.
        encoder_info: the encoder's message on `latent_info`.
        planner: the chosen planner at the end.
        planners: planners that drove, in order of their first time. There are several after a swap or a fallback.
        restarts: number of restarts by node, without nodes that never restarted.
        loop: figures of the loop: latency percentiles (ms), achieved rate (Hz), counts of frames and commands.
        by_planner: `steps` and `reward_a_step` by planner, right to a tenth of a second at a swap.
        interrupted: whether the run ended before all episodes.
        bag: path of the recorded bag; empty without one.
        options: options of the chosen planner at the end, by parameter name; empty if its node did not answer.
    """

    episodes: list[Episode]
    encoder_info: EncoderInfo
    planner: str
    planners: list[str]
    restarts: dict[str, int]
    loop: dict[str, float]
    by_planner: dict[str, dict[str, float]]
    interrupted: bool = False
    bag: str = ""
    options: dict[str, Any] = field(default_factory=dict)


@contextlib.contextmanager
def running_graph(options: StackOptions, domain: int | None, about: dict[str, Any]) -> Iterator[tuple[Supervisor, int]]:
    """Hold a domain, run the stack's processes in it during the context, and yield their supervisor and the domain.

    Args:
        options: the launch arguments.
        domain: ROS domain to hold; None for a free one.
        about: further fields of `RunningStack`.

    Raises:
        VjepaError: the options are not valid, the domain is held, or a stack of this name runs already.
        KeyboardInterrupt: SIGINT, SIGTERM or SIGHUP arrived during the context. The processes are then taken down in
            order; one more signal ends them by force.
    """
    nodes = build_graph(options)
    variables = environment(options)
    about = {"namespace": options.namespace, "discovery": options.discovery, **about}
    with interruptible() as interrupts, hold_domain(domain, about) as held:
        variables = {**variables, "ROS_DOMAIN_ID": str(held)}
        named = f"vjepa run, planner {about.get('planner') or 'of the parameter files'},"
        with only_stack(held, options.namespace, variables, named), environment_of(variables):
            supervisor = Supervisor(variables, options.namespace, options.log_level)
            try:
                supervisor.start(nodes)
                with interrupts.let_in():
                    yield supervisor, held
            finally:
                before = interrupts.count
                supervisor.stop(hurry=lambda: interrupts.count > before)


def run_graph(
    options: StackOptions,
    episode_steps: int,
    domain: int | None = None,
    on_progress: Callable[[RunScores, Monitor], None] | None = None,
    trace: FrameTrace | None = None,
) -> GraphResult:
    """Run the full loop for `options.episodes` episodes and return their scores.

    Args:
        options: the launch arguments.
        episode_steps: control steps in an episode.
        domain: ROS domain to hold; None for a free one.
        on_progress: called at short intervals during the run.
        trace: reads the times of all frames; `options.trace` has the nodes publish them.

    Raises:
        VjepaError: the graph did not start, stopped before the end of the last episode, or had a planner without a
            plan for any latent. The message contains the nodes' errors.
        KeyboardInterrupt: as in `running_graph`, before the end of the first episode. Later, the scores so far are
            returned, marked as interrupted.
    """
    wanted = options.episodes or 0
    options = replace(options, episode_steps=episode_steps)
    scores = RunScores()
    with (
        running_graph(options, domain, {"planner": options.planner or ""}) as (supervisor, held),
        Monitor(held, options.namespace, scores) as monitor,
    ):
        if trace is not None:
            monitor.subscribe(topics.TRACE, partial(_read_times, trace))
        interrupted = False
        try:
            _follow(supervisor, monitor, scores, wanted, on_progress)
        except KeyboardInterrupt:
            if not scores.finished:
                raise
            interrupted = True
        return GraphResult(
            episodes=scores.finished[:wanted],
            encoder_info=monitor.encoder_info,
            planner=monitor.chosen_planner,
            planners=list(dict.fromkeys(monitor.drivers)),
            restarts=supervisor.restarts(),
            loop=_loop_figures(monitor),
            by_planner=monitor.by_planner(),
            interrupted=interrupted,
            bag=text_in(monitor.diagnostics, "episode_recorder", "bag"),
            options=_options_now(monitor, options),
        )


def _read_times(trace: FrameTrace, message: String) -> None:
    with contextlib.suppress(ValueError):  # Any process may publish there.
        trace.read(message.data)


def _options_now(monitor: Monitor, options: StackOptions) -> dict[str, Any]:
    """Return the options of the chosen planner from its node: `vjepa planner set` may have changed them."""
    known = merged_parameters(options)["vjepa_planner"]
    names = [name for name in known if name.startswith(f"{monitor.chosen_planner}.")]
    request = GetParameters.Request(names=names)
    response = monitor.call(GetParameters, "vjepa_planner/get_parameters", request, OPTIONS_TIMEOUT_S)
    if response is None or len(response.values) != len(names):
        return {}
    values = [parameter_value_to_python(value) for value in response.values]
    return {name: list(v) if isinstance(v, array) else v for name, v in zip(names, values, strict=True)}


def _follow(
    supervisor: Supervisor,
    monitor: Monitor,
    scores: RunScores,
    wanted: int,
    on_progress: Callable[[RunScores, Monitor], None] | None,
) -> None:
    """Watch the graph until `wanted` episodes have ended."""
    for _ in watch(supervisor, monitor, scores):
        if on_progress:
            on_progress(scores, monitor)
        if len(scores.finished) >= wanted:
            break
    monitor.wait_until(lambda: monitor.sim_finished and monitor.encoder_info and monitor.drivers, FINAL_FIGURES_S)
    _refuse_idle_planner(monitor, 0)


def watch(supervisor: Supervisor, monitor: Monitor, scores: RunScores) -> Iterator[None]:
    """Listen to the graph, and yield at short intervals while it runs.

    Raises:
        VjepaError: as in `run_graph`.
    """
    while True:
        monitor.spin(POLL_S)
        _refuse_standstill(supervisor, monitor, scores.silence_s, scores.begun > 0)
        _refuse_idle_planner(monitor, REFUSED_AT_START)
        yield


def refuse_failures(supervisor: Supervisor, monitor: Monitor) -> None:
    """Raise VjepaError if a node has ended and does not restart, or failed to start."""
    gone = supervisor.poll()
    if gone:
        raise VjepaError("; ".join(gone))
    if "stack_manager" in monitor.errors():
        monitor.wait_until(lambda: len(monitor.errors()) > 1, CAUSE_TIMEOUT_S)
        errors = monitor.errors()
        causes = [f"{name}: {message}" for name, message in errors.items() if name != "stack_manager"]
        raise VjepaError("; ".join(causes or errors.values()))


def _refuse_standstill(supervisor: Supervisor, monitor: Monitor, silence_s: float, has_begun: bool) -> None:
    """Raise VjepaError if the graph cannot start, or makes no step for too long."""
    refuse_failures(supervisor, monitor)
    if monitor.sim_finished and silence_s > FINAL_FIGURES_S:
        raise VjepaError("the simulation has ended, but not all steps of its episodes have arrived")
    limit_s = LOCKSTEP_SILENCE_S if has_begun else FIRST_STEP_TIMEOUT_S
    if silence_s > limit_s:
        causes = [f"{name}: {message}" for name, (_, message, _) in monitor.diagnostics.items()]
        raise VjepaError(f"no step for {limit_s:.0f} s; the nodes report: {'; '.join(causes) or 'nothing'}")


def _refuse_idle_planner(monitor: Monitor, allowed: int) -> None:
    """Raise VjepaError if the planner has answered more than `allowed` latents and refused all of them."""
    commands = monitor.value("vjepa_planner", "commands")
    if commands > allowed and monitor.value("vjepa_planner", "refused_latents") == commands:
        raise VjepaError(f"the planner made no plan from any latent: {monitor.diagnostics['vjepa_planner'][1]}")


def _loop_figures(monitor: Monitor) -> dict[str, float]:
    sim = {name: monitor.value("sim_bridge", name) for name in _SIM_FIGURES}
    sim["dropped_frames"] = sim["frames"] - sim["answered_frames"]
    perception = {name: monitor.value("vjepa_perception", name) for name in ("encode_p50_ms", "encode_p99_ms")}
    planner = {name: monitor.value("vjepa_planner", name) for name in _PLANNER_FIGURES}
    return {**sim, **perception, **planner}


_SIM_FIGURES = (
    "latency_p50_ms",
    "latency_p99_ms",
    "response_p50_ms",
    "response_p99_ms",
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


_PLANNER_FIGURES = (
    "plan_p50_ms",
    "plan_p99_ms",
    "fallbacks",
    "fallback_commands",
    "missed_deadlines",
    "novel_latents",
)
