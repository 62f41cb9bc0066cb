"""A stand-in for a real arm, without ROS: the reacher moves on at a rate of its own, whatever is commanded or not."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike

from sim_bridge.env import SimConfig, SimEnv
from vjepa_interfaces.parameters import Range


@dataclass(frozen=True)
class ArmStandInParameters:
    """Parameters of `arm_stand_in`.

    Attributes:
        seed: of the pose that the arm begins in and of where the target lies.
        rate_hz: joint states a second, each after a step of the physics.
        camera_rate_hz: frames a second.
        image_size: width and height of a frame, pixels.
        command_timeout_s: without a command for longer, the motors are off: the timeout that an arm must have itself.
    """

    seed: Annotated[int, Range(low=0)] = 0
    rate_hz: Annotated[float, Range(above=0.0)] = 100.0
    camera_rate_hz: Annotated[float, Range(above=0.0)] = 50.0
    image_size: Annotated[tuple[int, ...], Range(low=1)] = (64, 64)
    command_timeout_s: Annotated[float, Range(above=0.0)] = 0.1


@dataclass(frozen=True)
class JointReading:
    """What an arm's encoders say: position (n,) rad, velocity (n,) rad/s, and the effort (n,) N·m that led there."""

    position: np.ndarray
    velocity: np.ndarray
    effort: np.ndarray


class ArmStandIn(SimEnv):
    """The reacher and its target, with motors that obey the last command until it is too old. It has no episodes.

    `limits` says the joints and the largest effort, `render` gives the camera's view.
    """

    def __init__(self, parameters: ArmStandInParameters, clock: Callable[[], float] = time.monotonic):
        """Compile the model and take the first pose.

        Args:
            parameters: see there.
            clock: seconds of a steady clock.
        """
        width, height = parameters.image_size
        super().__init__(SimConfig(seed=parameters.seed, image_size=(width, height)))
        self.reset(0)
        self._physics.model.opt.timestep = 1.0 / parameters.rate_hz
        self._timeout_s = parameters.command_timeout_s
        self._clock = clock
        self._command, self._commanded_s = np.zeros(len(self.limits.joint_names)), -math.inf

    def command(self, effort: ArrayLike) -> None:
        """Obey efforts (n,) in N·m from the next step on, clamped to what the motors can.

        Raises:
            CommandRefusedError: they are not finite or not n; what was commanded before stays.
        """
        self._command, _ = self.limits.checked(None, effort)
        self._commanded_s = self._clock()

    def advance(self) -> JointReading:
        """Let 1 / `rate_hz` seconds pass."""
        late = self._clock() - self._commanded_s > self._timeout_s
        control, applied = self._motors.to_control(np.zeros_like(self._command) if late else self._command)
        self._physics.set_control(control)
        self._physics.step()
        return JointReading(self._motors.position(), self._motors.velocity(), applied)
