"""Record fifty demonstrations of an arm, in bags as another recorder writes them: see docs/demonstrations.md.

The arm is the stand-in for a real one. Its controller is no planner of this project, but resolved-rate control of the
fingertip (Whitney 1969) with damping in the joints, at 100 Hz. It knows where the target is, as a demonstrator sees it.
The camera gives 30 frames a second. Each demonstration is one bag.

    ./vjepa --exec python examples/demonstrate.py --out bags --episodes 50
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from sim_bridge.arm_stand_in import ArmStandIn, ArmStandInParameters, JointReading
from sim_bridge.gl import choose_gl_backend

STORE = get_typestore(Stores.ROS2_JAZZY)
TIME, HEADER, IMAGE, JOINT_STATE = (
    STORE.types[name]
    for name in (
        "builtin_interfaces/msg/Time",
        "std_msgs/msg/Header",
        "sensor_msgs/msg/Image",
        "sensor_msgs/msg/JointState",
    )
)
RATE_HZ, CAMERA_HZ, SECONDS = 100, 30, 4.0
LINKS = 0.12, 0.12
LIMIT = 0.05
"""Torque limit of each joint, N·m."""
NEAR = 0.06
"""Distance of the fingertip to the target's middle, m: the radii of target and finger."""
START_NS = 1_760_000_000 * 10**9


def fingertip(q: np.ndarray) -> np.ndarray:
    """Return the place of the fingertip, (2,) m, at joint angles (2,) rad."""
    angles = q[0], q[0] + q[1]
    return sum(length * np.array([np.cos(a), np.sin(a)]) for length, a in zip(LINKS, angles, strict=True))


def jacobian(q: np.ndarray) -> np.ndarray:
    """Return the derivative of the fingertip's place by the joint angles, (2, 2) m/rad."""
    a, b = q[0], q[0] + q[1]
    far = LINKS[1] * np.array([-np.sin(b), np.cos(b)])
    return np.stack([LINKS[0] * np.array([-np.sin(a), np.cos(a)]) + far, far], axis=1)


def towards(target: np.ndarray, q: np.ndarray, velocity: np.ndarray) -> np.ndarray:
    """Return torques, (2,) N·m, that bring the fingertip to the target."""
    j = jacobian(q)
    wanted = j.T @ np.linalg.solve(j @ j.T + 1e-3 * np.eye(2), 3.0 * (target - fingertip(q)))
    return np.clip(0.03 * (np.clip(wanted, -4.0, 4.0) - velocity), -LIMIT, LIMIT)


def to_pose(pose: np.ndarray, q: np.ndarray, velocity: np.ndarray) -> np.ndarray:
    """Return torques, (2,) N·m, that bring the joints to a pose."""
    return np.clip(0.1 * (pose - q) - 0.03 * velocity, -LIMIT, LIMIT)


def header(stamp_ns: int):
    """Return a header with a stamp."""
    return HEADER(TIME(*divmod(stamp_ns, 10**9)), "")


def record(
    arm: ArmStandIn,
    control: Callable[[JointReading], np.ndarray],
    away: Callable[[JointReading], float],
    near: float,
    folder: Path,
    number: int,
    seconds: float,
) -> float:
    """Let a controller drive the arm, record demonstration `number`, and return the final distance `away`, m.

    The bag's mark is `outcome=success` if that distance is less than `near`, as a demonstrator would state it.
    """
    joints = list(arm.limits.joint_names)
    start_ns = START_NS + number * 60 * 10**9
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        states = bag.add_connection("/joint_states", JOINT_STATE.__msgtype__, typestore=STORE)
        images = bag.add_connection("/camera/image_raw", IMAGE.__msgtype__, typestore=STORE)
        effort, frames = np.zeros(len(joints)), 0
        for step in range(int(seconds * RATE_HZ)):
            arm.command(effort)
            reading = arm.advance()
            now = start_ns + step * 10**9 // RATE_HZ
            # A driver has its own order of joints, and a joint that is not the arm's.
            message = JOINT_STATE(
                header(now),
                ["gripper", *reversed(joints)],
                np.array([0.0, *reading.position[::-1]]),
                np.array([0.0, *reading.velocity[::-1]]),
                np.array([0.0, *reading.effort[::-1]]),
            )
            bag.write(states, now + 1_000_000, STORE.serialize_cdr(message, JOINT_STATE.__msgtype__))
            if step * CAMERA_HZ >= frames * RATE_HZ:
                picture = arm.render()
                height, width, _ = picture.shape
                message = IMAGE(header(now), height, width, "rgb8", 0, 3 * width, picture.reshape(-1))
                bag.write(images, now + 5_000_000, STORE.serialize_cdr(message, IMAGE.__msgtype__))
                frames += 1
            effort = control(reading)
        bag.set_custom_data("outcome", "success" if away(reading) < near else "failure")
    return away(reading)


def main(argv: Sequence[str] | None = None) -> None:
    """Record the demonstrations."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the bags")
    parser.add_argument("--episodes", type=int, default=50, help="demonstrations (default %(default)s)")
    arguments = parser.parse_args(argv)
    folder, count = arguments.out, arguments.episodes
    choose_gl_backend()
    random = np.random.default_rng(0)
    arm = ArmStandIn(ArmStandInParameters(rate_hz=float(RATE_HZ)), clock=lambda: 0.0)
    target = arm.place("geom", "target")[:2]
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pose = np.array([random.uniform(-np.pi, np.pi), random.uniform(-2.0, 2.0)])
        reading = arm.advance()
        for _ in range(400):  # Between two demonstrations a person moves the arm elsewhere.
            arm.command(to_pose(pose, reading.position, reading.velocity))
            reading = arm.advance()
        away = record(
            arm,
            lambda reading: towards(target, reading.position, reading.velocity),
            lambda reading: float(np.linalg.norm(target - fingertip(reading.position))),
            NEAR,
            folder / f"demonstration_{number:02}",
            number,
            SECONDS,
        )
        print(f"demonstration {number + 1} of {count}: the fingertip ended {away * 1e3:.0f} mm from the target")
    arm.close()


if __name__ == "__main__":
    main()
