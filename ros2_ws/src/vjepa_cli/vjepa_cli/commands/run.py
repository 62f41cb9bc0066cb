"""`vjepa run` and `vjepa eval`: run episodes through the ROS graph or in one process, and score them."""

import math
import re
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from sim_bridge.tasks import refuse_other_arm
from vjepa_bringup.graph import (
    ARM_KINDS,
    DriveOptions,
    StackOptions,
    build_graph,
    default_parameters,
    merged_parameters,
    refuse_unknown_names,
    share,
    trained_periods,
    versions,
)
from vjepa_bringup.measured_rate import with_measured_rate
from vjepa_bringup.options import replace
from vjepa_cli import arguments as types
from vjepa_cli.actions import Command
from vjepa_cli.command_line import Action, LogLevel, option, parsed_by
from vjepa_cli.commands.camera import ViewOptions
from vjepa_cli.eval_looks import measure_looks
from vjepa_cli.result_files import require_writable, write_result
from vjepa_cli.scoreboard import Evaluation, result_json, scoreboard
from vjepa_cli.screen import Screen
from vjepa_interfaces.bundle import CONFIG_FILE, Bundle, read_bundle, shipped_bundles
from vjepa_interfaces.effort import EffortLimits
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.frame_trace import FrameTrace
from vjepa_interfaces.parameters import Range, as_base
from vjepa_planner.registry import options_of
from vjepa_training.evaluation.appearance import Appearance, appearances, check_backgrounds, provenance
from vjepa_training.evaluation.score import Protocol, protocol_named, summarise

DEFAULT_PROTOCOL = "short"
OF_THE_SIMULATION = (
    "episodes",
    "protocol",
    "task",
    "lockstep",
    "robot_state_publisher",
    "json",
    "trace",
    "look",
    "render",
    "backgrounds",
)
OF_A_CAMERA = ("crop", "rotate", "flip", "seconds")
"""Options of `run` that need a simulation, and options that need a camera."""
LOOK = "NAME[:LEVEL[:moving]]"
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


@dataclass(frozen=True, kw_only=True)
class OfEpisodes(DriveOptions):
    """The options of both `run` and `eval`. None leaves a choice to the parameter files.

    Attributes:
        episodes: number of episodes.
        protocol: control steps of an episode: short 200, full 1000, baseline 100.
        json: write the result as JSON.
        domain: ROS domain.
    """

    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = None
    render: Annotated[str | None, option(default="dm_control under a look, else the parameters'")] = None
    backgrounds: Annotated[str | None, option(metavar="DIR", default="none")] = None
    seed: Annotated[int | None, Range(low=0, high=types.MAX_SEED), option(default="the parameters', else 0")] = None
    rate: Annotated[str | None, option(metavar="HZ", default="the parameters', else the task's")] = None
    params_file: Annotated[str, option(default="none")] = ""
    namespace: Annotated[str, parsed_by(types.namespace, "NAME"), option(default="none")] = ""
    log_level: LogLevel = "warn"
    episodes: Annotated[int | None, Range(low=1)] = None
    protocol: Annotated[Literal["short", "full", "baseline"] | None, option(default=DEFAULT_PROTOCOL)] = None
    json: Annotated[str | None, option(metavar="FILE", default="")] = None
    domain: Annotated[int | None, parsed_by(types.domain, "INT"), option(default="a free one")] = None
    default_episodes: ClassVar[int]

    @property
    def episode_count(self) -> int:
        """The number of episodes to run."""
        return self.episodes or self.default_episodes

    @property
    def chosen_protocol(self) -> Protocol:
        """The length of an episode, and the meaning of success in it."""
        return protocol_named(self.protocol or DEFAULT_PROTOCOL)


@dataclass(frozen=True, kw_only=True)
class RunCommand(ViewOptions, OfEpisodes):
    """Run the full loop for a few episodes, ending in a scoreboard.

    Attributes:
        lockstep: take one simulation step for each answered frame, not in real time.
        robot_state_publisher: start ROS's node with the reacher's URDF too, for RViz.
        look: look of the frames, such as camera:hard, or their rendering: nominal, exact or plain; looks are drawn anew
            each episode.
        record: record a rosbag2 bag into this folder.
        trace: write where the time from frame to torque goes, for each frame, in Chrome's trace format.
        camera: camera in the simulation's place, without episodes and score. It is a device such as /dev/video0, a
            video file, an rtsp:// address, env:NAME or @PATH.
        seconds: with a camera: end after this many seconds.
    """

    default_episodes: ClassVar[int] = 5
    episodes: Annotated[int | None, Range(low=1), option(default=f"{default_episodes}")] = None
    lockstep: bool = False
    robot_state_publisher: bool = False
    look: Annotated[str | None, option(metavar=LOOK, default="")] = None
    record: Annotated[str | None, option(metavar="DIR", default="")] = None
    trace: Annotated[str | None, option(metavar="FILE", default="")] = None
    camera: Annotated[str | None, option(metavar="SOURCE", default="")] = None
    seconds: Annotated[float | None, parsed_by(types.seconds, "S"), option(default="the file's end, Ctrl-C")] = None


@dataclass(frozen=True, kw_only=True)
class EvalCommand(OfEpisodes):
    """Evaluate a planner over many episodes in lockstep.

    Attributes:
        looks: looks of the frames, such as camera:hard, or renderings: nominal, exact or plain. Several are measured in
            turn, into a table.
        through: run in the ROS graph, or without ROS.
        batch_size: episodes at a time in each process, with --through process.
        workers: with --through process: processes, among which whole batches are divided. Returns do not depend on it.
        ray_address: with --through process: run the batches on the CPUs of the Ray cluster at this address instead.
        goal: with --through process: goal latent for planners that seek one, of a frame that the expert reached in its
            own environment. Its target is the same or another; the result contains distances to the goal.
    """

    default_episodes: ClassVar[int] = 20
    episodes: Annotated[int | None, Range(low=1), option(default=f"{default_episodes}")] = None
    looks: Annotated[tuple[str, ...], option(metavar=f"{LOOK} ...", default="")] = ()
    through: Literal["ros", "process"] = "ros"
    batch_size: Annotated[int | None, Range(low=1), option(default="1")] = None
    workers: Annotated[int | None, Range(low=1), option(default="one a core, as memory allows")] = None
    ray_address: Annotated[str | None, option(metavar="ADDRESS", default="")] = None
    goal: Annotated[Literal["same", "other"] | None, option(default="")] = None


def _options(arguments: RunCommand | EvalCommand) -> StackOptions:
    """Return the options of the stack for `run` or `eval`."""
    return StackOptions(**vars(as_base(DriveOptions, arguments)), episodes=arguments.episode_count)


def run_command(arguments: RunCommand) -> int:
    """Run `vjepa run`."""
    if arguments.camera == "":
        raise VjepaError("--camera is empty; expected a device such as /dev/video0, a video file or an rtsp:// address")
    refused = OF_THE_SIMULATION if arguments.camera else OF_A_CAMERA
    if given := [option for option in refused if getattr(arguments, option)]:
        instead = "the simulation: leave it out" if arguments.camera else "a camera: give --camera SOURCE with it"
        raise VjepaError(f"--{given[0].replace('_', '-')} is for {instead}")
    options = replace(_options(arguments), record=True if arguments.record else None, bag_dir=arguments.record)
    if arguments.record:
        require_writable(str(Path(arguments.record, "bag")))
    if arguments.camera:
        return _on_camera(arguments, options, arguments.camera)
    options = replace(
        options, lockstep=arguments.lockstep or None, robot_state_publisher=arguments.robot_state_publisher
    )
    if arguments.look:
        options = _with_look(options, Appearance.of(arguments.look, arguments.render))
    if not arguments.trace:
        return _report(arguments, _through_ros(arguments, options))
    require_writable(arguments.trace)
    trace = FrameTrace()
    result = _through_ros(arguments, replace(options, trace=True), trace)
    trace.write(arguments.trace)
    print(f"{arguments.trace}: {len(trace.complete_frames())} frames from step to torque")
    return _report(arguments, result)


def eval_command(arguments: EvalCommand) -> int:
    """Run `vjepa eval`."""
    if arguments.through == "process":
        options, measure = _options(arguments), _in_process
    else:
        for name in ("batch_size", "workers", "ray_address"):
            if getattr(arguments, name) is not None:
                option_name = f"--{name.replace('_', '-')}"
                raise VjepaError(f"{option_name} is for --through process; the ROS graph runs one episode at a time")
        if arguments.goal is not None:
            raise VjepaError(
                "--goal is for --through process; in a running stack set one with: vjepa goal set --image FILE, or "
                "--live"
            )
        options, measure = replace(_options(arguments), lockstep=True), _through_ros
    asked = appearances(arguments.looks, arguments.render)
    if arguments.backgrounds and asked:
        check_backgrounds(arguments.backgrounds, [each.look for each in asked])
    if len(asked) > 1:
        if arguments.json:
            require_writable(arguments.json)
        return measure_looks(
            [each.name for each in asked],
            [partial(measure, arguments, _with_look(options, each)) for each in asked],
            arguments.json,
            Command.of(arguments),
        )
    for appearance in asked:
        options = _with_look(options, appearance)
    return _report(arguments, measure(arguments, options))


def _with_look(options: StackOptions, appearance: Appearance) -> StackOptions:
    return replace(options, look=appearance.look, render=appearance.render)


def _checked_parameters(
    arguments: RunCommand | EvalCommand, options: StackOptions, ros: bool = True
) -> dict[str, dict[str, Any]]:
    """Return the parameters of every node, after refusing those with which no episode can run.

    With `ros`, this includes faults that only loading the encoder shows; one process loads it anyway.
    """
    if arguments.json:
        require_writable(arguments.json)
    parameters = merged_parameters(options)
    refuse_unknown_names(parameters)
    if arguments.backgrounds and not getattr(arguments, "looks", ()):
        check_backgrounds(arguments.backgrounds, [parameters["sim_bridge"]["look"]])
    encoder = parameters["vjepa_perception"]["encoder"]
    if not Path(encoder).expanduser().is_dir() and not _HUB_ID.fullmatch(encoder):
        shipped = ", ".join(sorted(path.name for path in share("models").glob("encoder*")))
        raise VjepaError(
            f"unknown encoder '{encoder}'; valid are: {shipped}, a folder (a bundle or a transformers checkpoint) "
            "or a hub id such as facebook/vjepa2-vitl-fpc64-256"
        )
    bundles = _bundles(parameters["vjepa_planner"])
    for bundle, kind in bundles.items():
        read_bundle(bundle, kind)
    if options.source == "sim":
        _refuse_other_arm(parameters, bundles)
    # Loading takes a second or two, and shipped models fit, so a run of them alone skips this check.
    if ros and any((options.encoder, options.bc_bundle, options.params_file, options.device)):
        from vjepa_training.evaluation.evaluate import refuse_misfits

        refuse_misfits(parameters, bundles)
    return parameters


def _refuse_other_arm(parameters: dict[str, dict[str, Any]], bundles: dict[str, str]) -> None:
    """Refuse a planner that was made for another arm than the simulated one."""
    task, planner = parameters["sim_bridge"]["task"], parameters["vjepa_planner"]
    refuse_other_arm(planner["planner"], task)
    names, limit = planner["joint_names"], planner["effort_limit"]
    if not isinstance(names, list) or not isinstance(limit, int | float | list):
        return  # The planner's node refuses these.
    arm = EffortLimits.of(names, limit)
    try:
        for bundle, kind in bundles.items():
            if kind in ARM_KINDS:
                read_bundle(bundle, kind).check_arm(arm)
    except VjepaError as error:
        raise VjepaError(f"{error}; random drives any arm") from error


def _bundles(planner: dict[str, Any]) -> dict[str, str]:
    """Return the bundles of the chosen planner, each with the kind of the shipped bundle for the same option."""
    defaults = options_of(planner["planner"], default_parameters()["vjepa_planner"])
    kinds = {name: read_bundle(value).config["kind"] for name, value in defaults.items() if value in shipped_bundles()}
    options = options_of(planner["planner"], planner)
    return {options[name]: kind for name, kind in kinds.items() if options[name] and isinstance(options[name], str)}


def _through_ros(
    arguments: RunCommand | EvalCommand, options: StackOptions, trace: FrameTrace | None = None
) -> Evaluation:
    """Run the episodes through the ROS graph and return the result; `trace` reads the times of all frames."""
    from vjepa_bringup.run_graph import run_graph  # These need rclpy, but one process must do without.
    from vjepa_cli.dashboard import Dashboard
    from vjepa_cli.start_up import StartUp

    protocol = arguments.chosen_protocol
    options = with_measured_rate(options)
    parameters = _checked_parameters(arguments, options)
    sim = parameters["sim_bridge"]
    task, seed = sim["task"], sim.get("seed", 0)
    options = replace(options, seed=seed)
    started = time.monotonic()

    dashboard = Dashboard(arguments.episode_count, protocol.episode_steps, StartUp(build_graph(options)))
    with Screen() as screen:

        def progress(scores: Any, monitor: Any) -> None:
            driver, elapsed_s = monitor.driver, time.monotonic() - started
            for line in dashboard.ended(scores, monitor.diagnostics, elapsed_s):
                screen.note(line)
            screen.show(*dashboard.lines(scores, driver, monitor.diagnostics, elapsed_s, screen.width))

        graph = run_graph(options, protocol.episode_steps, arguments.domain, progress, trace)
    changed = {name for name, value in graph.options.items() if parameters["vjepa_planner"].get(name) != value}
    parameters["vjepa_planner"] |= graph.options
    return result_json(
        planner=graph.planner,
        encoder=graph.encoder_info,
        through="ros",
        seed=seed,
        summary=summarise(graph.episodes, protocol),
        latency_ms={"p50": graph.loop["latency_p50_ms"], "p99": graph.loop["latency_p99_ms"]},
        versions=versions(),
        command=Command.of(arguments),
        task=task,
        **provenance(sim),
        lockstep=bool(options.lockstep or sim.get("lockstep", False)),
        **_periods(parameters, graph.planner),
        by_planner=graph.by_planner,
        **({"interrupted": True, "asked": arguments.episode_count} if graph.interrupted else {}),
        planners=graph.planners,
        restarts=graph.restarts,
        **({"bag": graph.bag} if graph.bag else {}),
        **({"options_changed": sorted(changed)} if changed else {}),
        **_policy(parameters, graph.planner),
        loop=graph.loop,
        wall_s=time.monotonic() - started,
    )


def _on_camera(arguments: RunCommand, options: StackOptions, source: str) -> int:
    """Run the stack on a camera. Faults of the source or the view are refused before any process starts."""
    from vjepa_cli.camera_run import camera_lines, camera_report, refuse_no_plan, run_camera
    from vjepa_cli.start_up import StartUp

    options = replace(
        options,
        source="camera",
        camera=source,
        crop=arguments.crop,
        rotate=arguments.rotate,
        flip=arguments.flip,
    )
    options = with_measured_rate(options)
    parameters = _checked_parameters(arguments, options)
    from vjepa_perception.camera_check import View, check_camera

    camera = parameters["camera"]
    view = View(tuple(camera["crop"]), camera["rotate"], camera["flip"])
    check_camera(source, view, parameters["vjepa_perception"]["encoder"], camera.get("fps", 0.0), seconds=0.0)
    started, start_up = time.monotonic(), StartUp(build_graph(options))
    with Screen() as screen:

        def progress(monitor: Any) -> None:
            elapsed_s = time.monotonic() - started
            for line in start_up.update(monitor.diagnostics, elapsed_s):
                screen.note(line)
            screen.show(*camera_lines(start_up, monitor.driver, monitor.diagnostics, elapsed_s, screen.width))

        run = run_camera(options, arguments.seconds or math.inf, arguments.domain, progress)
    print(camera_report(options, run), flush=True)
    refuse_no_plan(run)
    return 0


def _in_process(arguments: EvalCommand, options: StackOptions) -> Evaluation:
    """Run the episodes without ROS, in this process or in several, and return the result."""
    protocol = arguments.chosen_protocol
    parameters = _checked_parameters(arguments, options, ros=False)
    seed, batch_size = parameters["sim_bridge"].get("seed", 0), arguments.batch_size or 1
    from vjepa_perception.perception_parameters import encoder_config
    from vjepa_training.evaluation.evaluate import evaluate
    from vjepa_training.progress import Progress
    from vjepa_training.ray_workers import refuse_workers_on_ray
    from vjepa_training.workers import default_workers

    refuse_workers_on_ray(arguments.workers, arguments.ray_address)
    workers = arguments.workers or default_workers(encoder_config(parameters["vjepa_perception"]))
    started = time.monotonic()
    with Progress("evaluating", "episodes", arguments.episode_count) as bar:

        def progress(done: int, mean_return: float) -> None:
            bar.move_to(done, figures=f"mean return {mean_return:.1f}")

        episodes, encoder, durations = evaluate(
            parameters,
            protocol,
            arguments.episode_count,
            seed,
            batch_size,
            progress,
            goal=arguments.goal,
            workers=workers,
            ray_address=arguments.ray_address,
        )
    p50, p99 = durations.percentiles(50, 99)
    return result_json(
        planner=parameters["vjepa_planner"]["planner"],
        encoder=encoder,
        through="process",
        seed=seed,
        summary=summarise(episodes, protocol),
        latency_ms={"p50": p50, "p99": p99},
        versions=versions(),
        command=Command.of(arguments),
        task=parameters["sim_bridge"]["task"],
        **provenance(parameters["sim_bridge"]),
        batch_size=batch_size,
        **({"workers": workers} if arguments.ray_address is None else {}),
        **_periods(parameters, parameters["vjepa_planner"]["planner"]),
        **({"interrupted": True, "asked": arguments.episode_count} if len(episodes) < arguments.episode_count else {}),
        **({"goal": arguments.goal} if arguments.goal else {}),
        **_policy(parameters, parameters["vjepa_planner"]["planner"]),
        wall_s=time.monotonic() - started,
    )


def _policy(parameters: dict[str, dict[str, Any]], planner: str) -> dict[str, Any]:
    """Return the options and the trained policy of `planner`, so that a result states what it measured."""
    shipped = str(share("models"))
    options = {
        name: Path(value).name if str(value).startswith(shipped) else value
        for name, value in options_of(planner, parameters["vjepa_planner"]).items()
    }
    bundles = {
        name: Path(value).name
        for name, value in options_of(planner, parameters["vjepa_planner"]).items()
        if isinstance(value, str) and value and Path(value, CONFIG_FILE).expanduser().is_file()
    }
    found = {"options": options, "bundles": bundles}
    folder = parameters["vjepa_planner"].get(f"{planner}.bundle")
    if not folder:
        return found
    bundle = Bundle(Path(folder).expanduser(), {})
    return {**found, "policy": bundle.path.name, "policy_sha256": bundle.weights_sha256}


def _periods(parameters: dict[str, dict[str, Any]], planner: str) -> dict[str, Any]:
    """Return the control period of the arm, and the periods at which the planner's bundles were trained, if known."""
    return {
        "control_period_s": parameters["vjepa_planner"]["control_period_s"],
        "trained_periods_s": list(trained_periods(planner, parameters["vjepa_planner"])),
    }


def _report(arguments: RunCommand | EvalCommand, result: Evaluation) -> int:
    print(scoreboard(result), flush=True)
    if arguments.json:
        write_result(arguments.json, result)
    if result.get("interrupted"):
        raise KeyboardInterrupt
    return 0


ACTIONS = {"run": Action(run_command), "eval": Action(eval_command)}
