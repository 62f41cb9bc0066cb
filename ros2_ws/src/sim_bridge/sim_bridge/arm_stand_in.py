"""A stand-in for a real arm, without ROS. It moves at its own rate, with or without commands."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike

from sim_bridge.arm_model import load_arm
from sim_bridge.camera_view import CameraView
from sim_bridge.sim_parameters import MAX_SEED
from sim_bridge.tasks import Place
from vjepa_interfaces.effort import EffortLimits
from vjepa_interfaces.errors import VjepaError, unknown_name
from vjepa_interfaces.parameters import Range, check_ranges


@dataclass(frozen=True)
class ArmStandInParameters:
    """Parameters of `arm_stand_in`.

    Attributes:
        model: path of an MJCF file with plain motors and a camera; empty for the reacher.
        camera: a camera of the model; empty for its first.
        seed: seed of the reacher's first pose and target; for a model, number of its keyframe, modulo their count.
        rate_hz: joint states a second, each after a step of the physics.
        camera_rate_hz: frames a second.
        image_size: width and height of a frame, pixels.
        command_timeout_s: the motors are off after this many seconds without a command, as in a real arm.
    """

    model: str = ""
    camera: str = ""
    seed: Annotated[int, Range(low=0, high=MAX_SEED)] = 0
    rate_hz: Annotated[float, Range(above=0.0)] = 100.0
    camera_rate_hz: Annotated[float, Range(above=0.0)] = 50.0
    image_size: Annotated[tuple[int, int], Range(low=1)] = (64, 64)
    command_timeout_s: Annotated[float, Range(above=0.0)] = 0.1

    def __post_init__(self) -> None:
        """Check the range of each number.

        Raises:
            ParameterError: a number is out of its range.
        """
        check_ranges(self)


@dataclass(frozen=True)
class JointReading:
    """A reading of an arm's encoders.

    Attributes:
        position: (n,) rad.
        velocity: (n,) rad/s.
        effort: (n,) N·m, applied before the reading.
    """

    position: np.ndarray
    velocity: np.ndarray
    effort: np.ndarray


class ArmStandIn:
    """An arm in MuJoCo whose motors apply the last command until it is too old. It has no episodes.

    Attributes:
        limits: the joints, and the largest effort of the motor of each, N·m.
    """

    def __init__(self, parameters: ArmStandInParameters, clock: Callable[[], float] = time.monotonic):
        """Compile the model and move the arm to its first pose.

        Args:
            parameters: the model, its camera and the rates.
            clock: returns the seconds of a steady clock.

        Raises:
            VjepaError: `load_arm` refuses the model or the camera, or this machine has no OpenGL backend.
        """
        width, height = parameters.image_size
        self._name = parameters.model or "the reacher"
        self._arm = load_arm(parameters.model, parameters.camera)
        self._physics, self._motors = self._arm.physics, self._arm.motors
        self.limits = EffortLimits.of(self._motors.names, self._motors.limits.tolist())
        self._view = CameraView(self._physics, self._arm.camera_id, (width, height))
        self._timeout_s = parameters.command_timeout_s
        self._clock = clock
        self.begin(parameters.seed)
        period_s = 1.0 / parameters.rate_hz
        self._substeps = max(1, math.ceil(period_s / self._physics.timestep() - 1e-6))
        self._physics.model.opt.timestep = period_s / self._substeps

    def begin(self, seed: int) -> None:
        """Move the arm to the pose of a seed, at rest and without a command."""
        self._arm.begin(seed)
        self._command, self._commanded_s = np.zeros(len(self.limits.joint_names)), -math.inf

    def command(self, effort: ArrayLike) -> None:
        """Apply efforts (n,) in N·m from the next step on, clamped to the limits of the motors.

        Raises:
            CommandRefusedError: the efforts are not finite or not of size n; the last command remains.
        """
        self._command, _ = self.limits.checked(None, effort)
        self._commanded_s = self._clock()

    def advance(self) -> JointReading:
        """Simulate 1 / `rate_hz` seconds, in steps no longer than the model's own, and return the joint reading.

        Raises:
            VjepaError: the physics became unstable.
        """
        from dm_control.rl.control import PhysicsError

        late = self._clock() - self._commanded_s > self._timeout_s
        control, applied = self._motors.to_control(np.zeros_like(self._command) if late else self._command)
        self._physics.set_control(control)
        try:
            self._physics.step(self._substeps)
        except PhysicsError as error:
            raise VjepaError(
                f"model {self._name} became unstable: {error}; give it a shorter <option timestep=/>, or its joints "
                "damping or armature"
            ) from error
        return JointReading(self._motors.position(), self._motors.velocity(), applied)

    def render(self) -> np.ndarray:
        """Return a frame of the present state, as `CameraView.render` does."""
        return self._view.render()

    def place(self, kind: str, name: str) -> np.ndarray:
        """Return the world position (3,) in m of a geom, site or body of the model. No topic contains it.

        Args:
            kind: `geom`, `site` or `body`.
            name: name of the geom, site or body.

        Raises:
            VjepaError: the model has no `kind` of that name.
        """
        model = self._physics.model
        count = {"geom": model.ngeom, "site": model.nsite, "body": model.nbody}[kind]
        names = [model.id2name(number, kind) for number in range(count)]
        if name not in names:
            raise unknown_name(kind, name, filter(None, names))
        return Place(kind, name).position(self._physics)

    def close(self) -> None:
        """Free the renderer and the physics. A second call does nothing; no other method works afterwards."""
        self._view.close()
        self._physics.free()

    def __enter__(self) -> "ArmStandIn":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
