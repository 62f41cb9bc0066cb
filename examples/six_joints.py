"""Record demonstrations of an arm of six joints, as bags, and write its model: see docs/another-arm.md.

The arm is the Jaco of dm_control with a torque motor on each joint, as the stand-in for a real arm requires. It holds
itself against gravity, as arms in torque mode do, so the efforts only move it. The controller knows where the target
is. It is resolved-rate control of the hand (Whitney 1969) by damped least squares (Wampler 1986), and of the pose in
the null space (Liégeois 1977). Keyframes of the model are first poses, each a seed of the stand-in; demonstration i
begins in number i.

    ./vjepa --exec python examples/six_joints.py --out jaco --episodes 50
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from demonstrate import RATE_HZ, record

from sim_bridge.arm_stand_in import ArmStandIn, ArmStandInParameters, JointReading
from sim_bridge.gl import choose_gl_backend

JOINTS = [f"joint_{number}" for number in range(1, 7)]
LIMITS = np.array([30.5, 30.5, 30.5, 6.8, 6.8, 6.8])
"""Peak torques of the arm's large and small actuators, N·m."""
SPEEDS, DAMPING = np.array([0.6, 0.6, 0.6, 0.8, 0.8, 0.8]), np.array([40.0, 40.0, 40.0, 20.0, 20.0, 20.0])
"""Largest requested speeds, rad/s, and damping, N·m·s/rad."""
HOME = np.radians([275.1, 167.5, 57.2, 241.0, 82.7, 75.1])
SPREAD = 0.4
"""Spread of a pose around HOME, rad."""
TARGET, NEAR = (0.2, -0.5, 0.1), 0.05
"""Middle of the target, and distance of a hand that has reached it, m. The radii are 4 cm and, of the hand, 1.5 cm."""
POSES, SECONDS = 200, 5.0


def write_model(folder: Path) -> Path:
    """Write the arm, its table, target, camera and motors, without keyframes, and return the file."""
    from dm_control import mjcf
    from dm_control.entities.manipulators.kinova import assets_path

    root = mjcf.from_path(str(Path(assets_path.KINOVA_ROOT, "jaco_arm.xml")))
    for body in root.find_all("body"):
        body.gravcomp = 1.0
    for name, grey in ("dark_gray", 0.5), ("light_gray", 0.9):
        root.find("material", name).rgba = [grey, grey, grey, 1]
    hand = root.find("body", "b_6")
    hand.add("geom", type="capsule", fromto=[0, 0, 0, 0.05, 0, -0.12], size=[0.015], rgba=[0.1, 0.4, 0.9, 1], mass=0.1)
    hand.add("site", name="hand", pos=[0.05, 0, -0.12])
    world, seen = root.worldbody, {"contype": 0, "conaffinity": 0}
    sky = {"rgb1": [0.4, 0.6, 0.8], "rgb2": [0.4, 0.6, 0.8], "width": 8, "height": 48}
    root.asset.add("texture", name="sky", type="skybox", builtin="flat", **sky)
    world.add("light", pos=[0, -1, 3], dir=[0, 0.2, -1])
    world.add("geom", type="box", size=[0.8, 0.8, 0.02], pos=[0, -0.3, -0.02], rgba=[0.8, 0.75, 0.6, 1])
    world.add("geom", name="target", type="sphere", size=[0.04], pos=TARGET, rgba=[0.9, 0.1, 0.1, 1], **seen)
    world.add("camera", name="front", pos=[1.1, -1.2, 0.8], xyaxes=[0.67, 0.74, 0, -0.31, 0.28, 0.91], fovy=50)
    for joint, limit in zip(JOINTS, LIMITS, strict=True):
        root.actuator.add("motor", joint=joint, gear=[limit], ctrllimited=True, ctrlrange=[-1, 1])
    mjcf.export_with_assets(root, str(folder), "arm.xml")
    return folder / "arm.xml"


def distance(arm: ArmStandIn) -> float:
    """Return the distance from the hand to the target's middle, m."""
    return float(np.linalg.norm(arm.place("site", "hand") - arm.place("geom", "target")))


class Demonstrator:
    """A controller with its own model of the arm."""

    def __init__(self, file: Path):
        import mujoco

        self._mujoco, self._model = mujoco, mujoco.MjModel.from_xml_path(str(file))
        self._data = mujoco.MjData(self._model)

    def hand(self, q: np.ndarray) -> np.ndarray:
        """Return the place of the hand, (3,) m, at joint angles (6,) rad."""
        self._data.qpos[:] = q
        self._mujoco.mj_fwdPosition(self._model, self._data)
        return self._data.site("hand").xpos.copy()

    def pose(self, random: np.random.Generator) -> np.ndarray:
        """Return joint angles (6,) rad, around HOME, without contacts and with the hand above the table."""
        while True:
            q = HOME + random.uniform(-SPREAD, SPREAD, len(JOINTS))
            if self.hand(q)[2] > 0.15 and not self._data.ncon:
                return q

    def towards_target(self, reading: JointReading) -> np.ndarray:
        """Return torques, (6,) N·m, that bring the hand to the target."""
        away = np.array(TARGET) - self.hand(reading.position)
        j = np.zeros((3, len(JOINTS)))
        self._mujoco.mj_jacSite(self._model, self._data, j, None, self._model.site("hand").id)
        inverse = j.T @ np.linalg.inv(j @ j.T + 0.003 * np.eye(3))
        # Three of six degrees of freedom do not move the hand. They lead home, so the arm always ends in one pose.
        wanted = 3.0 * inverse @ away + (np.eye(6) - inverse @ j) @ (HOME - reading.position)
        wanted *= min(1.0, 1.0 / np.max(np.abs(wanted) / SPEEDS))
        return np.clip(DAMPING * (wanted - reading.velocity), -LIMITS, LIMITS)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the model and record the demonstrations."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the model and the bags")
    parser.add_argument("--episodes", type=int, default=50, help="demonstrations (default %(default)s)")
    arguments = parser.parse_args(argv)
    choose_gl_backend()
    file = write_model(arguments.out / "model")
    demonstrator, random = Demonstrator(file), np.random.default_rng(0)
    poses = [" ".join(map(str, demonstrator.pose(random))) for _ in range(POSES)]
    keys = "".join(f'<key qpos="{pose}"/>' for pose in poses)
    file.write_text(file.read_text().replace("</mujoco>", f"<keyframe>{keys}</keyframe></mujoco>"))
    with ArmStandIn(ArmStandInParameters(model=str(file), rate_hz=float(RATE_HZ)), clock=lambda: 0.0) as arm:
        for number in range(arguments.episodes):
            arm.begin(number)
            bag = arguments.out / "bags" / f"demonstration_{number:02}"
            bag.parent.mkdir(parents=True, exist_ok=True)
            away = record(arm, demonstrator.towards_target, lambda _: distance(arm), NEAR, bag, number, SECONDS)
            print(f"demonstration {number + 1} of {arguments.episodes}: the hand ended {away * 1e3:.0f} mm away")


if __name__ == "__main__":
    main()
