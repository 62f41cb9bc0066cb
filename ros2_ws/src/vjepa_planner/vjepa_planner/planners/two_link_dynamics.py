"""The dynamics of a planar arm of two links, for the scripted expert: from accelerations to torques.

Angles are as in `two_link`. There is no gravity, because the arm moves in a horizontal plane.
"""

import math
from dataclasses import dataclass

from vjepa_interfaces.errors import VjepaError
from vjepa_planner.contract import require_in_range
from vjepa_planner.planners.two_link import Pair


@dataclass(frozen=True)
class TwoLinkDynamics:
    """Inertia and friction of the arm. The defaults are dm_control's reacher (`suite/reacher.xml`).

    The mass matrix at wrist angle w is `[[s + 2 c cos w, l + c cos w], [l + c cos w, l]]` with the inertias below
    (Spong, Hutchinson and Vidyasagar, Robot Modeling and Control, 2006, chapter 7).

    Attributes:
        shoulder_inertia: s, inertia of the whole arm about the shoulder with the wrist at a right angle, kg m².
        wrist_inertia: l, inertia of the lower link about the wrist, kg m².
        coupling_inertia: c, mass of the lower link times length of the upper times distance from wrist to the lower
            link's centre of mass, kg m².
        damping: friction of each joint, N·m per rad/s.
    """

    shoulder_inertia: float = 9.758e-4
    wrist_inertia: float = 1.887e-4
    coupling_inertia: float = 2.739e-4
    damping: float = 0.01

    def __post_init__(self) -> None:
        inertias = {name: getattr(self, name) for name in ("shoulder_inertia", "wrist_inertia")}
        require_in_range("two-link arm", inertias, 1e-9, 1e6)
        rest = {"coupling_inertia": self.coupling_inertia, "damping": self.damping}
        require_in_range("two-link arm", rest, 0.0, 1e6)
        if self.wrist_inertia * (self.shoulder_inertia - self.wrist_inertia) <= self.coupling_inertia**2:
            raise VjepaError(
                f"two-link arm: shoulder_inertia {self.shoulder_inertia}, wrist_inertia "
                f"{self.wrist_inertia} and coupling_inertia {self.coupling_inertia} are impossible together; expected "
                "wrist_inertia * (shoulder_inertia - wrist_inertia) above coupling_inertia squared"
            )

    def torques(self, wrist: float, velocity: Pair, acceleration: Pair, period_s: float) -> Pair:
        """Return the torques of both joints in N·m for an acceleration during one control period.

        Friction uses the velocity at the end of the period, as in a simulation that integrates it implicitly.

        Args:
            wrist: wrist angle, rad.
            velocity: velocities of both joints, rad/s.
            acceleration: accelerations of both joints, rad/s².
            period_s: duration of the torques, seconds.
        """
        turning = self.coupling_inertia * math.cos(wrist)
        whirling = self.coupling_inertia * math.sin(wrist)
        across = self.wrist_inertia + turning
        friction = [self.damping * (v + period_s * a) for v, a in zip(velocity, acceleration, strict=True)]
        return (
            (self.shoulder_inertia + 2.0 * turning) * acceleration[0]
            + across * acceleration[1]
            - whirling * velocity[1] * (2.0 * velocity[0] + velocity[1])
            + friction[0],
            across * acceleration[0] + self.wrist_inertia * acceleration[1] + whirling * velocity[0] ** 2 + friction[1],
        )
