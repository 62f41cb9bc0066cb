"""The configuration of the simulation and the parameters of its node, without ROS and without the physics."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from sim_bridge.camera_view import DM_CONTROL, refuse_unknown_rendering
from sim_bridge.looks import NOMINAL, Look
from vjepa_interfaces.effort import EffortLimit
from vjepa_interfaces.errors import VjepaError, unknown_name
from vjepa_interfaces.parameters import Range, as_base, check_ranges, read_node_parameters

MIN_RATE_HZ, MAX_RATE_HZ = 1.0, 1000.0
MAX_SEED = 2**31 - 1
"""Episode i uses seed + i, and dm_control's random states take at most 32 bits."""
COMMAND_INPUTS = ("joint_command", "effort_array")


@dataclass(frozen=True)
class SimConfig:
    """The configuration of a simulation.

    Attributes:
        task: dm_control task, such as `reacher-easy`.
        seed: seed of the first episode; episode i starts from seed + i.
        image_size: width and height of the camera image, pixels.
        episode_steps: control steps until an episode's last step.
        effort_limit: largest absolute torque of a command, N·m, one number or one for each joint; 0 for the task's
            strongest motor (0.05 for the reacher).
        rate_hz: control steps per second of simulated time, 1 to 1000; 0 for the task's own (50 for the reacher).
        render: `dm_control`, `exact` or `plain`: nearly as dm_control renders, exactly so, or without shadows.
        look: visual distraction: a name, a level and whether it moves, such as `camera:hard:moving`.
        backgrounds: folder of pictures and videos for looks with another background; empty to draw them.
        randomize_camera: draw the camera's pose and field of view anew each episode.
        randomize_appearance: draw colours and lights anew each episode.
        randomize_target_size: draw the target's radius anew each episode; the reward follows it.
    """

    task: str = "reacher-easy"
    seed: Annotated[int, Range(low=0, high=MAX_SEED)] = 0
    image_size: Annotated[tuple[int, int], Range(low=1)] = (64, 64)
    episode_steps: Annotated[int, Range(low=1)] = 1000
    effort_limit: Annotated[EffortLimit, Range(low=0.0)] = 0.0
    rate_hz: Annotated[float, Range(low=0.0, high=MAX_RATE_HZ)] = 0.0
    render: str = DM_CONTROL
    look: str = NOMINAL
    backgrounds: str = ""
    randomize_camera: bool = False
    randomize_appearance: bool = False
    randomize_target_size: bool = False

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            VjepaError: a simulation cannot have one of the values.
        """
        if not (self.rate_hz == 0 or MIN_RATE_HZ <= self.rate_hz <= MAX_RATE_HZ):
            raise VjepaError(
                f"rate_hz is {self.rate_hz}; expected {MIN_RATE_HZ:g} to {MAX_RATE_HZ:g}, or 0 for the task's own"
            )
        check_ranges(self)
        refuse_unknown_rendering(self.render)
        Look.of(self.look)


@dataclass(frozen=True)
class SimParameters(SimConfig):
    """Parameters of `sim_bridge`.

    Attributes:
        episodes: episodes to run, after which the arm stays at its last frame; 0 for no end.
        lockstep: step only for the command that answers the latest frame.
        lockstep_retry_s: seconds after which an unanswered frame is published again.
        playback_speed: seconds of simulated time per second of real time, if the loop keeps up; not in lockstep.
        command_input: `joint_command` or `effort_array`; the latter not in lockstep.
        command_timeout_s: in real time, seconds without a command after which torque is zero.
        publish_clock: publish `/clock`, unless another node does already.
        trace: publish on the topic `trace` when each frame passed the parts of this node.
    """

    episodes: Annotated[int, Range(low=0)] = 0
    lockstep: bool = False
    lockstep_retry_s: Annotated[float, Range(above=0.0)] = 1.0
    playback_speed: Annotated[float, Range(above=0.0, high=100.0)] = 1.0
    command_input: str = "joint_command"
    command_timeout_s: Annotated[float, Range(above=0.0)] = 0.2
    publish_clock: bool = True
    trace: bool = False

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            VjepaError: a simulation cannot have one of the values, or the input cannot drive it.
        """
        super().__post_init__()
        if self.command_input not in COMMAND_INPUTS:
            raise unknown_name("command_input", self.command_input, COMMAND_INPUTS)
        if self.lockstep and self.command_input == "effort_array":
            raise VjepaError(
                "messages of command_input 'effort_array' have no stamp, which lockstep needs; use joint_command"
            )


def sim_config(parameters: Mapping[str, Any], **changes: Any) -> SimConfig:
    """Return the configuration of the simulation in the node `sim_bridge`.

    Args:
        parameters: the node's parameters by name, flat, as in parameter files.
        changes: other values for fields of `SimConfig`.

    Raises:
        VjepaError: a parameter is unknown or of a wrong type, or a simulation cannot have its value.
    """
    return as_base(SimConfig, read_node_parameters(SimParameters, parameters, "sim_bridge"), **changes)
