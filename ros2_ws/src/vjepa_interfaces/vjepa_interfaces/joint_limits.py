"""Limits of position and velocity for an arm that is driven by effort: braking before the end of travel.

Source: the soft joint limits of ros_control's `joint_limits_interface` (EffortJointSoftLimitsHandle) and of a URDF's
`safety_controller`. A joint may move towards an end of its travel at `k_position` times the remaining way, at most at
its velocity limit. Above that speed the allowed effort falls by `k_velocity` for each rad/s, through zero to full
effort against the motion.
"""

import numpy as np

from vjepa_interfaces.guard_parameters import GuardParameters


class SoftJointLimits:
    """The band of efforts that keeps every joint within its travel and its velocity."""

    def __init__(self, parameters: GuardParameters):
        """Take the limits of parameters that `guard_parameters.checked` has returned."""
        self._effort = np.array(parameters.effort_limits)
        self._lower, self._upper = np.array(parameters.position_lower), np.array(parameters.position_upper)
        self._velocity = np.array(parameters.velocity_limits)
        self._k_position, self._k_velocity = np.array(parameters.k_position), np.array(parameters.k_velocity)
        self._has_ends = np.isfinite(self._lower) | np.isfinite(self._upper)

    def knows(self, position: np.ndarray) -> bool:
        """Return whether the position (n,) rad of every joint with an end of travel is finite."""
        return bool(np.all(np.isfinite(position) | ~self._has_ends))

    def band(self, position: np.ndarray, velocity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the least and the most allowed effort, each (n,) N·m.

        Beyond an end of travel the band allows only efforts that lead back.

        Args:
            position: (n,) rad; a joint without ends of travel needs none.
            velocity: (n,) rad/s.
        """
        position = np.where(self._has_ends, position, 0.0)
        with np.errstate(over="ignore"):
            slowest = self._speed(self._lower - position)
            fastest = self._speed(self._upper - position)
            least = self._k_velocity * (slowest - velocity)
            most = self._k_velocity * (fastest - velocity)
        return np.clip(least, -self._effort, self._effort), np.clip(most, -self._effort, self._effort)

    def _speed(self, way: np.ndarray) -> np.ndarray:
        """Return the allowed velocity towards an end at the distance `way` rad, of either sign."""
        return np.clip(self._k_position * way, -self._velocity, self._velocity)
