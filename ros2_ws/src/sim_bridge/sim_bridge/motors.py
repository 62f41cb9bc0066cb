"""The motors of a MuJoCo model, which measure and drive an arm."""

from typing import Any

import numpy as np

from vjepa_interfaces.errors import VjepaError


class Motors:
    """The n motors of a model, in the order of its actuators: their readings and their efforts.

    A motor on a joint has the joint's name, and reads its position and velocity. A motor on another transmission, such
    as point_mass's tendons, has its own name. It reads the transmission's length and velocity, divided by the gear. A
    motor's effort is its control times its gear: N·m on hinges, N on slides.

    Attributes:
        names: one name per motor.
        limits: (n,) the largest effort of each motor, N·m.
    """

    def __init__(self, physics: Any) -> None:
        """Read the motors of `physics`.

        Raises:
            VjepaError: an actuator is not a plain motor with limited control, has no name, or shares a joint.
        """
        import mujoco

        model = physics.model
        self._data = physics.data
        self._gear = model.actuator_gear[:, 0].copy()
        self._on_joint = model.actuator_trntype == mujoco.mjtTrn.mjTRN_JOINT
        joint = np.where(self._on_joint, model.actuator_trnid[:, 0], 0)
        self.names = tuple(
            model.id2name(int(joint[i]), "joint") if self._on_joint[i] else model.id2name(i, "actuator")
            for i in range(model.nu)
        )
        self._refuse_others(model, joint)
        self._low, self._high = _control_range(model, self._on_joint, joint, self._gear)
        self.limits = np.abs(self._gear) * np.maximum(np.abs(self._low), np.abs(self._high))
        self._qpos, self._qvel = model.jnt_qposadr[joint], model.jnt_dofadr[joint]

    def _refuse_others(self, model: Any, joint: np.ndarray) -> None:
        """Raise VjepaError unless the model has actuators, and each is a plain motor with a unique name."""
        advice = "a plain motor: <motor joint= gear= ctrlrange=/>, with a control range"
        if not model.nu:
            raise VjepaError(f"it has no actuators; give each joint of the arm {advice}")
        for i, name in enumerate(self.names):
            called = f"actuator '{model.id2name(i, 'actuator') or i}'"
            if objection := _objection(model, i):
                raise VjepaError(f"{called} {objection}; expected {advice}")
            if not name:
                raise VjepaError(f"{called} moves a joint without a name; give the joint a name")
            if name in self.names[:i]:
                raise VjepaError(f"{called} is a second motor of '{name}'; leave one motor for each joint")

    def position(self) -> np.ndarray:
        """Return the motors' positions, (n,) rad (m on slides)."""
        return np.where(self._on_joint, self._data.qpos[self._qpos], self._data.actuator_length / self._gear)

    def velocity(self) -> np.ndarray:
        """Return the motors' velocities, (n,) rad/s (m/s on slides)."""
        return np.where(self._on_joint, self._data.qvel[self._qvel], self._data.actuator_velocity / self._gear)

    def to_control(self, effort: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the controls for an `effort`, and the effort that the motors apply.

        Args:
            effort: (n,) N·m.

        Returns:
            Controls (n,) within the model's range, and applied efforts (n,) in N·m, which the limits may reduce.
        """
        asked = effort / self._gear
        control = np.clip(asked, self._low, self._high)
        return control, np.where(control == asked, effort, control * self._gear)


def _objection(model: Any, i: int) -> str:
    """Return why actuator `i` is not a plain motor with limited control; empty if it is one."""
    import mujoco

    # A numpy integer equals no member of MuJoCo's enumerations, so both become Python integers.
    plain = int(model.actuator_biastype[i]) == int(mujoco.mjtBias.mjBIAS_NONE)
    stiffness, damping = model.actuator_biasprm[i, 1:3]
    if not plain and stiffness:
        return "is a position servo"
    if not plain and damping:
        return "is a velocity servo"
    is_motor = (
        plain
        and int(model.actuator_gaintype[i]) == int(mujoco.mjtGain.mjGAIN_FIXED)
        and model.actuator_gainprm[i, 0] == 1
        and int(model.actuator_dyntype[i]) == int(mujoco.mjtDyn.mjDYN_NONE)
        and model.actuator_gear[i, 0] != 0
    )
    if not is_motor:
        return "is not a motor"
    limited = model.actuator_ctrllimited[i] or model.actuator_forcelimited[i]
    if int(model.actuator_trntype[i]) == int(mujoco.mjtTrn.mjTRN_JOINT):
        joint = model.actuator_trnid[i, 0]
        if int(model.jnt_type[joint]) not in map(int, (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE)):
            return "moves a joint that is neither a hinge nor a slide"
        limited = limited or model.jnt_actfrclimited[joint]
    return "" if limited else "is a motor without limited control"


def _control_range(
    model: Any, on_joint: np.ndarray, joint: np.ndarray, gear: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest and the largest control (n,) that the limits of each motor and its joint allow."""
    low, high = np.full(model.nu, -np.inf), np.full(model.nu, np.inf)
    of_joint = np.sort(model.jnt_actfrcrange[joint] / gear[:, None], axis=1)
    for limited, bounds in (
        (model.actuator_ctrllimited, model.actuator_ctrlrange),
        (model.actuator_forcelimited, model.actuator_forcerange),
        (model.jnt_actfrclimited[joint] * on_joint, of_joint),
    ):
        low = np.where(limited, np.maximum(low, bounds[:, 0]), low)
        high = np.where(limited, np.minimum(high, bounds[:, 1]), high)
    return low, high
