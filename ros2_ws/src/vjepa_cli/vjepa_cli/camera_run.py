"""`vjepa run --camera`: the stack on a camera's frames. There is no simulation, thus no episode and no score."""

import math
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vjepa_bringup.graph import StackOptions
from vjepa_bringup.monitor import Diagnostics, Monitor, number_in, text_in
from vjepa_bringup.run_graph import POLL_S, refuse_failures, running_graph
from vjepa_cli.dashboard import driver_field, troubles
from vjepa_cli.scoreboard import table
from vjepa_cli.start_up import StartUp
from vjepa_interfaces.address import shown
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.managed_node import ERROR
from vjepa_training.fields import Field, fitted

LAST_FIGURES_S = 2.0
"""The wait for the nodes' last diagnostics after a file has ended."""


@dataclass(frozen=True)
class CameraRun:
    """The result of a run on a camera.

    Attributes:
        nodes: the last diagnostics of every node.
        rate_hz: rate of the camera's frames before the end.
        drivers: the planners that drove, in order.
        restarts: number of restarts by node, for nodes that died and were started again.
    """

    nodes: Mapping[str, Any]
    rate_hz: float
    drivers: list[str]
    restarts: dict[str, int]


def run_camera(
    options: StackOptions,
    seconds: float = math.inf,
    domain: int | None = None,
    on_progress: Callable[[Monitor], None] = lambda monitor: None,
) -> CameraRun:
    """Run the stack on a camera until its file ends, until Ctrl-C, or for some seconds of frames.

    Args:
        options: options of the stack.
        seconds: end after this time, counted from the first frame.
        domain: ROS domain; None for a free one.
        on_progress: is called with the monitor after each poll.

    Raises:
        VjepaError: a node refused its parameters, did not start, or ended for good.
        KeyboardInterrupt: the run was interrupted before the first frame.
    """
    with (
        running_graph(options, domain, {"planner": options.planner or ""}) as (supervisor, held),
        Monitor(held, options.namespace) as monitor,
    ):
        began_s, rate_hz = math.inf, math.nan
        try:
            while time.monotonic() - began_s < seconds and not has_ended(monitor.diagnostics):
                monitor.spin(POLL_S)
                refuse_failures(supervisor, monitor)
                if monitor.value("camera", "frames") > 0:
                    began_s = min(began_s, time.monotonic())
                    if not has_ended(monitor.diagnostics):
                        rate_hz = monitor.value("camera", "rate_hz")
                on_progress(monitor)
            if has_ended(monitor.diagnostics):
                monitor.spin(LAST_FIGURES_S)
        except KeyboardInterrupt:
            if math.isinf(began_s):
                raise
        drivers = list(dict.fromkeys(monitor.drivers))
        return CameraRun(dict(monitor.diagnostics), rate_hz, drivers, supervisor.restarts())


def has_ended(nodes: Diagnostics) -> bool:
    """Return whether the camera is a file that has been played to its end."""
    return text_in(nodes, "camera", "ended") == "True"


def camera_lines(start_up: StartUp, driver: str, nodes: Diagnostics, elapsed_s: float, width: int) -> list[str]:
    """Return the lines that a terminal shows during the run."""
    if not number_in(nodes, "camera", "frames") > 0:
        others = {name: node for name, node in nodes.items() if name != "stack_manager" or node[0] == ERROR}
        return [*start_up.lines(elapsed_s, width), *troubles(others, width)]

    camera = [
        Field(f"frame {number_in(nodes, 'camera', 'frames'):.0f}"),
        Field(nodes["camera"][2].get("size", ""), rank=2),
        Field(f"{number_in(nodes, 'camera', 'rate_hz'):.1f} Hz", rank=1),
        Field(f"{elapsed_s:.0f} s", rank=3),
    ]
    loop = [driver_field(driver, nodes)]
    for rank, (node, key, form) in enumerate(_FIGURES, 1):
        if math.isfinite(value := number_in(nodes, node, key)):
            loop.append(Field(form.format(value), rank))
    return [fitted(camera, width), fitted(loop, width), *troubles(nodes, width)]


_FIGURES = (
    ("vjepa_perception", "encode_p50_ms", "encoder {:.1f} ms"),
    ("vjepa_planner", "plan_p50_ms", "plan {:.1f} ms"),
    ("vjepa_planner", "commands", "{:.0f} commands"),
)


def camera_report(options: StackOptions, run: CameraRun) -> str:
    """Return a table of the results of a run."""

    def figure(node: str, key: str, digits: int = 0) -> str:
        value = number_in(run.nodes, node, key)
        return f"{value:.{digits}f}" if math.isfinite(value) else "unknown"

    size = text_in(run.nodes, "camera", "size", "unknown size")
    encoder = text_in(run.nodes, "vjepa_perception", "encoder", "unknown")
    rows = [
        ("camera", f"{shown(options.camera)}, {size} pixels"),
        ("frames", f"{figure('camera', 'frames')}" + (f" at {run.rate_hz:.1f} Hz" if run.rate_hz > 0 else "")),
        (
            "encoder",
            f"{encoder}: {figure('vjepa_perception', 'latents')} latents, "
            f"p50 {figure('vjepa_perception', 'encode_p50_ms', 1)} ms",
        ),
        (
            "planner",
            f"{' then '.join(run.drivers) or 'none'}: {figure('vjepa_planner', 'commands')} commands, of which "
            f"{figure('vjepa_planner', 'refused_latents')} are zero for want of a plan",
        ),
        ("score", "none: a camera knows no reward"),
    ]
    if run.restarts:
        rows.append(("RESTARTED NODES", ", ".join(f"{node} {times}" for node, times in run.restarts.items())))
    bag = text_in(run.nodes, "episode_recorder", "bag")
    if bag:
        rows.append(("bag", bag))
        rows.append(("next", f"./vjepa view {bag} --png run.png  # a picture"))
    elif shown(options.camera) == options.camera:
        if has_no_plan(run):
            other = f"./vjepa run --camera {shlex.quote(options.camera)} --planner bc --bc-bundle bc-latents"
            rows.append(("next", f"{other}  # reads the camera alone"))
        else:
            rows.append(("next", f"{shlex.join(['./vjepa', *sys.argv[1:]])} --record bags  # keeps all topics"))
    return table(rows)


def has_no_plan(run: CameraRun) -> bool:
    """Return whether the planner refused every latent that it answered."""
    commands = number_in(run.nodes, "vjepa_planner", "commands")
    return commands > 0 and number_in(run.nodes, "vjepa_planner", "refused_latents") == commands


def refuse_no_plan(run: CameraRun) -> None:
    """Raise a VjepaError if no frame led to a plan; the planner's node has logged the reason."""
    if has_no_plan(run):
        raise VjepaError(
            f"{' then '.join(run.drivers)} made no plan from any frame; a camera alone has no joint states and no "
            "target: choose a planner that needs none, such as bc with --bc-bundle bc-latents, or give the --domain of "
            "an arm that publishes its joint states"
        )
