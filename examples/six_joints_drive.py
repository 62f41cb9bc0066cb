"""Measure how near a policy brings the arm of six joints to its target, from poses without a demonstration.

Everything runs in this process, and simulated time waits for the policy, so the result does not depend on the machine.
An arm without a driver and the demonstrator itself start from the same poses, for comparison.

    ./vjepa --exec python examples/six_joints_drive.py --model jaco/model/arm.xml --policy mine/jaco --json driven.json
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from demonstrate import CAMERA_HZ, RATE_HZ
from six_joints import JOINTS, LIMITS, NEAR, POSES, SECONDS, Demonstrator, distance

from sim_bridge.arm_stand_in import ArmStandIn, ArmStandInParameters, JointReading
from sim_bridge.gl import choose_gl_backend
from vjepa_bringup.graph import versions
from vjepa_cli.result_files import write_result
from vjepa_interfaces.bundle import find_bundle, read_bundle
from vjepa_interfaces.errors import VjepaError
from vjepa_perception.clip import ClipBuffer
from vjepa_perception.encoder import EncoderConfig, load_encoder
from vjepa_planner.contract import Observation, PlannerContext
from vjepa_planner.registry import load_planner
from vjepa_training.evaluation.score import wilson_interval

Control = Callable[[JointReading, ArmStandIn], np.ndarray]


class Driver:
    """A policy with its encoder: acts on each frame, and holds the torques until the next frame."""

    def __init__(self, bundle: str, encoder: str):
        self._policy = load_planner("bc", {"bundle": bundle}, PlannerContext(len(JOINTS), 1 / CAMERA_HZ))
        self._encoder = load_encoder(EncoderConfig(find_bundle(encoder), "cpu", threads=1))
        self._policy.check_encoder(self._encoder.fingerprint)
        self._limit = np.array(read_bundle(bundle, "policy").config["arm"]["effort_limit"])

    def begin(self) -> Control:
        """Forget earlier frames, and return the controller of an episode."""
        clip, frames, steps, effort = ClipBuffer(self._encoder.clip_frames), 0, 0, np.zeros(len(JOINTS))
        self._policy.reset(0)

        def control(reading: JointReading, arm: ArmStandIn) -> np.ndarray:
            nonlocal frames, steps, effort
            if steps * CAMERA_HZ >= frames * RATE_HZ:
                frames += 1
                latent = self._encoder.encode([clip.push(frames, self._encoder.preprocess(arm.render()))])[0]
                action = self._policy.plan(Observation(frames, latent, reading.position, reading.velocity)).action
                effort = np.clip(self._limit * action, -LIMITS, LIMITS)
            steps += 1
            return effort

        return control


def drive(arm: ArmStandIn, control: Control, pose: int, seconds: float) -> float:
    """Drive the arm from a pose, and return the final distance of the hand to the target, m."""
    arm.begin(pose)
    effort = np.zeros(len(JOINTS))
    for _ in range(round(seconds * RATE_HZ)):
        arm.command(effort)
        effort = control(arm.advance(), arm)
    return distance(arm)


def summary(away: list[float]) -> dict:
    """Return the results of one driver."""
    near = int(sum(each < NEAR for each in away))
    return {
        "share_near": near / len(away),
        "interval_95": wilson_interval(near, len(away)),
        "median_m": float(np.median(away)),
        "distances_m": away,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Drive from every pose with each driver, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="arm.xml that six_joints.py has written")
    parser.add_argument("--policy", nargs="+", default=[], help="bundles of policies")
    parser.add_argument("--encoder", default="encoder-small", help="of the policies (default %(default)s)")
    parser.add_argument("--poses", type=int, default=20, help="the last of the model's, so many (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each drive (default %(default)s)")
    parser.add_argument("--json", help="write the results to this file")
    arguments = parser.parse_args(argv)
    choose_gl_backend()
    demonstrator, seeds = Demonstrator(arguments.model), range(POSES - arguments.poses, POSES)
    ways: dict[str, Callable[[], Control]] = {
        "nothing": lambda: lambda _, __: np.zeros(len(JOINTS)),
        "demonstrator": lambda: lambda reading, _: demonstrator.towards_target(reading),
    } | {bundle: Driver(bundle, arguments.encoder).begin for bundle in arguments.policy}
    found = {}
    with ArmStandIn(ArmStandInParameters(model=str(arguments.model), rate_hz=RATE_HZ), clock=lambda: 0.0) as arm:
        for name, begin in ways.items():
            found[name] = summary([drive(arm, begin(), pose, arguments.seconds) for pose in seeds])
            low, high = found[name]["interval_95"]
            print(
                f"{name}: within {NEAR * 100:g} cm from {found[name]['share_near']:.0%} of {len(seeds)} poses "
                f"(95 % interval {low:.0%} to {high:.0%}), median {found[name]['median_m'] * 1e3:.0f} mm"
            )
    if arguments.json:
        command = " ".join(["./vjepa --exec python examples/six_joints_drive.py", *(argv or sys.argv[1:])])
        content = {"near_m": NEAR, "seconds": arguments.seconds, "seeds": list(seeds), "encoder": arguments.encoder}
        write_result(arguments.json, content | {"driven": found, "command": command, "versions": versions()})


if __name__ == "__main__":
    try:
        main()
    except VjepaError as error:
        sys.exit(f"six_joints_drive.py: {error}")
