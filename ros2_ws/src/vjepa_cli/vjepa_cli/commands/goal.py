"""`vjepa goal set`: give a running stack a goal, from a picture or from its camera's current view."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from rcl_interfaces.srv import GetParameters
from rclpy.parameter import parameter_value_to_python
from sensor_msgs.msg import Image
from tyro.conf import create_mutex_group

from vjepa_bringup.monitor import Monitor, text_in
from vjepa_cli.command_line import Action, option
from vjepa_cli.commands.graph import OfStack, joined_stack
from vjepa_interfaces import topics
from vjepa_interfaces.bundle import find_bundle
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.managed_node import qos_profile
from vjepa_interfaces.messages import fill_goal, latent_of
from vjepa_interfaces.stamps import set_stamp

LATENT_TIMEOUT_S = 10.0
ATTEMPTS, ATTEMPT_S = 20, 0.5
ENCODER_PARAMETERS = ("encoder", "device", "dtype", "clip_frames", "grid")


_WHICH = create_mutex_group(required=True)


@dataclass(frozen=True, kw_only=True)
class GoalCommand(OfStack):
    """Give a running stack a goal: the latent of a picture, or of its camera's current view.

    Attributes:
        image: a picture of the goal as the stack's camera would show it.
        live: take the camera's current view as the goal.
        encoder: encoder of the picture: bundle, folder or hub id.
    """

    image: Annotated[str | None, option(metavar="FILE", default=""), _WHICH] = None
    live: Annotated[bool, _WHICH] = False
    encoder: Annotated[str | None, option(default="the stack's own")] = None


def goal_set(arguments: GoalCommand) -> int:
    """Run `vjepa goal set`; return exit status 0 once the planner has taken the goal."""
    if arguments.live and arguments.encoder:
        raise VjepaError("--encoder is for --image; the stack encodes its present frame itself")
    picture = None
    if arguments.image:
        from vjepa_training.evaluation.goals import read_picture

        picture = read_picture(Path(arguments.image))
    with joined_stack(arguments) as monitor:
        latent, fingerprint = _live(monitor) if picture is None else _encoded(monitor, picture, arguments.encoder)
        values = _give(monitor, latent, fingerprint)
        print("goal: {} x {} latent of encoder {}".format(*latent.shape, fingerprint))
        if values["seeks_goal"] != "True":
            print(f"planner '{values['planner']}' drives and seeks no goal; a planner with the objective 'goal' does")
    return 0


def _live(monitor: Monitor) -> tuple[np.ndarray, str]:
    """Return the next latent of the stack, float32 of (rows, dimension), and its encoder's fingerprint."""
    latents: list[Image] = []
    subscription = monitor.node.create_subscription(
        Image, topics.LATENT.name, latents.append, qos_profile(topics.LATENT)
    )
    seen = monitor.wait_until(lambda: latents and monitor.encoder_info, LATENT_TIMEOUT_S)
    monitor.node.destroy_subscription(subscription)
    if not seen:
        raise VjepaError(f"no latent within {LATENT_TIMEOUT_S:.0f} s; check that the stack runs: vjepa status")
    return latent_of(latents[-1]), monitor.encoder_info["fingerprint"]


def _encoded(monitor: Monitor, picture: np.ndarray, encoder: str | None) -> tuple[np.ndarray, str]:
    """Return the latent of a picture by `encoder`, or else by the stack's encoder, and the encoder's fingerprint."""
    request = GetParameters.Request(names=list(ENCODER_PARAMETERS))
    response = monitor.call(GetParameters, "vjepa_perception/get_parameters", request)
    if response is None or len(response.values) != len(ENCODER_PARAMETERS):
        raise VjepaError("vjepa_perception does not answer; start a stack with ./vjepa run, or see ./vjepa status")
    values = dict(zip(ENCODER_PARAMETERS, map(parameter_value_to_python, response.values), strict=True))
    if monitor.wait_until(lambda: monitor.encoder_info, LATENT_TIMEOUT_S):
        values["dtype"] = monitor.encoder_info.get("dtype", values["dtype"])  # Of `auto`, the measured type.
    if encoder:
        values["encoder"] = find_bundle(encoder)
    from vjepa_training.evaluation.goals import picture_latent

    return picture_latent(picture, values)


def _give(monitor: Monitor, latent: np.ndarray, fingerprint: str) -> dict[str, str]:
    """Publish a goal, and return the values of the planner's diagnostics after it.

    Raises:
        VjepaError: the planner refuses the goal, with its reason, or does not answer.
    """
    message = Image()
    fill_goal(message, latent, fingerprint)
    stamp_ns = monitor.node.get_clock().now().nanoseconds
    set_stamp(message.header.stamp, stamp_ns)
    publisher = monitor.node.create_publisher(Image, topics.GOAL.name, qos_profile(topics.GOAL))
    refused = f"{stamp_ns}: "

    def value(key: str) -> str:
        return text_in(monitor.diagnostics, "vjepa_planner", key)

    def answered() -> bool:
        return value("goal") == str(stamp_ns) or value("refused_goal").startswith(refused)

    for _ in range(ATTEMPTS):  # A goal that is sent before the planner knows the publisher is lost.
        publisher.publish(message)
        if monitor.wait_until(answered, ATTEMPT_S):
            break
    else:
        raise VjepaError("vjepa_planner has not accepted the goal; check that it is active: vjepa status")
    if value("refused_goal").startswith(refused):
        raise VjepaError(value("refused_goal").removeprefix(refused))
    return monitor.diagnostics["vjepa_planner"][2]


ACTIONS = {"goal set": Action(goal_set)}
