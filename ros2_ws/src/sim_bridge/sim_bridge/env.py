"""The simulated arm without ROS: a dm_control task that takes joint efforts and returns stamped steps and frames."""

import math
from dataclasses import dataclass

import numpy as np

from sim_bridge.backgrounds import Pictures
from sim_bridge.camera_view import CameraView
from sim_bridge.looks import Look, Looks
from sim_bridge.motors import Motors
from sim_bridge.randomize import Randomizer, randomize_target_size
from sim_bridge.scene import Scene
from sim_bridge.sim_parameters import SimConfig
from sim_bridge.tasks import task_named
from vjepa_interfaces.effort import EffortLimits
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.messages import FIRST, LAST, MID
from vjepa_interfaces.stamps import FIRST_STAMP_NS, RESET_ADVANCE_NS


@dataclass(frozen=True)
class SimStep:
    """The simulation at one stamp.

    Attributes:
        stamp_ns: simulated time, nanoseconds.
        episode: number of the episode, from 0.
        reward: reward of the transition to this step; 0 at FIRST.
        discount: 1, or 0 if the task itself ended the episode.
        step_type: FIRST, MID or LAST.
        joint_position: (n,) rad, in the order of the environment's joint names.
        joint_velocity: (n,) rad/s.
        joint_effort: (n,) N·m, applied during the transition to this step; zeros at FIRST.
        target: (3,) m, world frame.
        fingertip: (3,) m, world frame.
    """

    stamp_ns: int
    episode: int
    reward: float
    discount: float
    step_type: int
    joint_position: np.ndarray
    joint_velocity: np.ndarray
    joint_effort: np.ndarray
    target: np.ndarray
    fingertip: np.ndarray


class SimEnv:
    """A dm_control task with unchanged physics, rewards and initial states, bit for bit.

    Episode i starts as `suite.load(domain, task, task_kwargs={"random": seed + i}).reset()` does.

    Attributes:
        config: the given configuration.
        limits: the joints and the largest effort of a command for each, N·m.
        control_period_ns: simulated time of one step, nanoseconds.
    """

    def __init__(self, config: SimConfig):
        """Compile the task's model.

        Raises:
            VjepaError: the task does not exist, the effort limit is out of range, or there is no OpenGL backend.
        """
        self.config = config
        self._task = task_named(config.task)
        self._env = self._task.load(config.seed)
        self._physics = self._env.physics
        if config.rate_hz:
            self._set_rate(config.rate_hz)
        self._motors = Motors(self._physics)
        self.limits = self._effort_limits()
        self.control_period_ns = round(self._env.control_timestep() * 1e9)
        self._camera_id = self._physics.model.name2id(self._task.camera, "camera")
        self._randomizer = Randomizer(
            self._physics.model.ptr, self._camera_id, config.randomize_camera, config.randomize_appearance
        )
        self._view = CameraView(self._physics, self._camera_id, config.image_size, config.render)
        upright = self._task.plane != (0, 1)
        scene = Scene(self._physics, self._task.domain, self._view, self._camera_id, upright)
        self._looks = Looks(Look.of(config.look), scene, Pictures(config.backgrounds))
        self._episode = -1
        self._steps_left = 0
        self._stamp_ns = 0

    def _set_rate(self, rate_hz: float) -> None:
        """Set the control step to 1 / `rate_hz` seconds, in steps of physics no longer than the task's own."""
        period_s = 1.0 / rate_hz
        steps = max(1, math.ceil(period_s / self._physics.timestep() - 1e-6))
        self._physics.model.opt.timestep = period_s / steps
        self._env._n_sub_steps = steps  # Only the loader of a task gives dm_control this number.

    @property
    def control_period_s(self) -> float:
        """Simulated time of one step, seconds."""
        return self.control_period_ns * 1e-9

    @property
    def focal_length_px(self) -> float:
        """The camera's focal length in this episode, pixels, equal along both axes."""
        field_of_view = math.radians(self._physics.model.cam_fovy[self._camera_id])
        return self.config.image_size[1] / 2 / math.tan(field_of_view / 2)

    @property
    def target_size(self) -> float:
        """The target's radius in this episode, m; NaN for a task without a target to reach."""
        if self._task.target_radius is None:
            return math.nan
        return float(self._physics.model.geom_size[self._target_geom(), 0])

    def reset(self, episode: int | None = None) -> SimStep:
        """Begin an episode, even during another one, and return its FIRST step.

        Args:
            episode: number of the episode, from 0; None for the next one. Stamps advance in any case.
        """
        self._stamp_ns = FIRST_STAMP_NS if self._episode < 0 else self._stamp_ns + RESET_ADVANCE_NS
        self._episode = self._episode + 1 if episode is None else episode
        self._steps_left = self.config.episode_steps
        seed = self.config.seed + self._episode
        self._env.task.random.seed(seed)
        self._randomizer.draw(seed)
        self._env.reset()
        if self.config.randomize_target_size:  # The task sets the size at its reset.
            randomize_target_size(self._physics.model.ptr, self._target_geom(), seed)
        self._looks.begin(seed)
        return self._step(0.0, 1.0, FIRST, np.zeros(len(self.limits.joint_names)))

    def step(self, effort: np.ndarray) -> SimStep:
        """Apply efforts for one control period and return the next step.

        Args:
            effort: (n,) N·m, from `limits.effort_of` or `limits.checked`; clamped to the limit of each motor.

        Raises:
            VjepaError: no episode has begun, or the last one is over; `reset` begins one.
        """
        if self._steps_left == 0:
            raise VjepaError(
                "no episode has begun; call reset() first"
                if self._episode < 0
                else f"episode {self._episode} is over; call reset() to begin the next"
            )
        control, applied = self._motors.to_control(effort)
        timestep = self._env.step(control)
        self._stamp_ns += self.control_period_ns
        self._steps_left -= 1
        self._looks.advance()
        if self._steps_left == 0:  # As at dm_control's time limit, the discount remains 1.
            return self._step(timestep.reward, 1.0, LAST, applied)
        if timestep.last():
            self._steps_left = 0
            return self._step(timestep.reward, timestep.discount, LAST, applied)
        return self._step(timestep.reward, timestep.discount, MID, applied)

    def render(self) -> np.ndarray:
        """Return a frame of the present state: (height, width, 3) uint8 RGB, contiguous, a new array.

        The OpenGL context belongs to the thread of the first call. Call `render` and `close` from that thread alone.
        The first call takes some 0.2 s to start the renderer; it may come before the first `reset`.

        Raises:
            ForkedError: this process was forked after its parent had rendered.
            VjepaError: another thread called it, `MUJOCO_GL` disables rendering, or its backend does not work.
        """
        self._looks.apply()
        return self._looks.on_frame(self._view.render())

    def close(self) -> None:
        """Free the renderer and the physics. A second call does nothing; no other method works afterwards."""
        self._view.close()
        self._physics.free()

    def __enter__(self) -> "SimEnv":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _target_geom(self) -> int:
        if self._task.target_radius is None:
            raise VjepaError(
                f"{self.config.task} has no target, so its size cannot be drawn; leave randomize_target_size out"
            )
        return self._physics.model.name2id(self._task.target.name, "geom")

    def _effort_limits(self) -> EffortLimits:
        """Return the configured limits; a motor below the limit of its joint gives what it can."""
        own, asked = float(self._motors.limits.max()), self.config.effort_limit
        limits = EffortLimits.of(self._motors.names, own if asked == 0 else asked)
        if max(limits.limits) > own:
            raise VjepaError(
                f"effort_limit is {limits.limits_text} N·m; {self.config.task} takes above 0 and at most {own:g} N·m"
            )
        return limits

    def _step(self, reward: float, discount: float, step_type: int, applied: np.ndarray) -> SimStep:
        return SimStep(
            stamp_ns=self._stamp_ns,
            episode=self._episode,
            reward=float(reward),
            discount=float(discount),
            step_type=step_type,
            joint_position=self._motors.position(),
            joint_velocity=self._motors.velocity(),
            joint_effort=applied,
            target=self._task.target.position(self._physics),
            fingertip=self._task.fingertip.position(self._physics),
        )
