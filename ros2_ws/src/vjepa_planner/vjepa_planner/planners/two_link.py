"""The geometry of a planar arm of two links, for the scripted experts.

At shoulder angle 0 the upper link points along x. At wrist angle 0 the lower link points along the upper. Both turn
counter clockwise. The arithmetic is Python's float64, so a result depends on the arguments alone.
"""

import math
from dataclasses import dataclass

from vjepa_planner.contract import Observation, require_in_range

JOINT_NAMES = ("shoulder", "wrist")
"""The joints of dm_control's reacher."""

Pair = tuple[float, float]
"""Two numbers: for the joints (shoulder, wrist), or a point (x, y)."""


@dataclass(frozen=True)
class TwoLinkArm:
    """An arm whose shoulder, at the origin, turns freely and whose wrist is limited.

    The defaults are dm_control's reacher: 0.12 m from shoulder to wrist, 0.12 m from wrist to the centre of the
    fingertip (`suite/reacher.xml`).

    Attributes:
        upper_length: shoulder to wrist, m.
        lower_length: wrist to fingertip, m.
        wrist_limit: largest absolute wrist angle, rad, at most pi.
    """

    upper_length: float = 0.12
    lower_length: float = 0.12
    wrist_limit: float = math.radians(160)

    def __post_init__(self) -> None:
        lengths = {"upper_length": self.upper_length, "lower_length": self.lower_length}
        require_in_range("two-link arm", lengths, 1e-3, 1e3)
        require_in_range("two-link arm", {"wrist_limit": self.wrist_limit}, 0.0, math.pi)

    def fingertip(self, shoulder: float, wrist: float) -> Pair:
        """Return x and y of the fingertip in m at joint angles in rad (forward kinematics)."""
        return (
            self.upper_length * math.cos(shoulder) + self.lower_length * math.cos(shoulder + wrist),
            self.upper_length * math.sin(shoulder) + self.lower_length * math.sin(shoulder + wrist),
        )

    def angles_to(self, x: float, y: float) -> list[Pair]:
        """Return the two pairs (shoulder, wrist) in rad that put the fingertip at (x, y) in m, one for each elbow.

        It applies the law of cosines. The wrist is within its limit and the shoulder within [-pi, pi]. For a point out
        of reach, the fingertip points at it from as near as possible. Both pairs are equal for an outstretched arm.
        """
        a, b = self.upper_length, self.lower_length
        cosine = (x * x + y * y - a * a - b * b) / (2.0 * a * b)
        bend = math.acos(min(1.0, max(math.cos(self.wrist_limit), cosine)))
        pairs = []
        for wrist in (bend, -bend):
            shoulder = math.atan2(y, x) - math.atan2(b * math.sin(wrist), a + b * math.cos(wrist))
            pairs.append((wrapped(shoulder), wrist))
        return pairs


def wrapped(angle: float) -> float:
    """Return the angle in [-pi, pi] that equals `angle` up to full turns, both in rad."""
    return math.remainder(angle, 2.0 * math.pi)


def scripted_inputs(observation: Observation) -> tuple[Pair, Pair, Pair]:
    """Return joint positions (rad), joint velocities (rad/s) and the target's x and y (m) as Python floats.

    The observation must have passed the checks of a planner for two joints that needs joint state and target.
    """
    position, velocity, target = observation.joint_position, observation.joint_velocity, observation.target
    assert position is not None
    assert velocity is not None
    assert target is not None
    return (
        (float(position[0]), float(position[1])),
        (float(velocity[0]), float(velocity[1])),
        (float(target[0]), float(target[1])),
    )
