"""The steps of docs/real-arm.md on a stand-in for the arm, in real processes: what moves it, and what stops it.

Joint states and frames of the stand-in have clocks of their own, as those of a real arm do: no stamp is shared.
"""

from time import monotonic as now

import numpy as np
import pytest
import yaml
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from vjepa_interfaces import topics
from vjepa_interfaces.bundle import find_bundle
from vjepa_interfaces.messages import latent_of
from vjepa_planner.contract import Observation, PlannerContext
from vjepa_planner.registry import load_planner

LIMITS, SLEW_RATES, DAMPING = np.array([0.03, 0.02]), np.array([0.5, 0.4]), np.array([0.005, 0.005])
COMMAND_TIMEOUT_S = 0.2
ARMS_OWN_TIMEOUT_S = 0.1
MAX_AGE_NS = 100_000_000
SLACK_S = 0.25
"""Of a busy machine."""

PARAMETERS = {
    "vjepa_planner": {"planners": ["bc"], "bc.bundle": "bc-small", "joint_state_max_age_s": MAX_AGE_NS * 1e-9},
    "effort_guard": {
        "effort_limits": LIMITS.tolist(),
        "slew_rates": SLEW_RATES.tolist(),
        "on_timeout": "damp",
        "damping": DAMPING.tolist(),
        "command_timeout_s": COMMAND_TIMEOUT_S,
    },
}


class Rehearsal:
    """A stack with a guard as for a real arm, the stand-in in a process of its own, and a hand on the switch."""

    def __init__(self, stack, commands, hand):
        self.stack, self.hand = stack, hand
        self.joints, self.latents, self.commands = (
            stack.tap(topic) for topic in (topics.JOINT_STATES, topics.LATENT, topics.JOINT_COMMAND)
        )
        self.outputs: list[tuple[float, np.ndarray]] = []
        self.commanded_s = 0.0
        node = stack.node
        node.create_subscription(Float64MultiArray, topics.EFFORT_ARRAY.name, self._on_output, 1000)
        node.create_subscription(JointState, topics.JOINT_COMMAND.name, self._on_command, 1000)
        self.arm = commands.start("node", "arm_stand_in", ROS_DOMAIN_ID=str(stack.domain))
        stack.wait_for(lambda: self.commands.messages and self.outputs, "the planner and the guard")

    def _on_output(self, message):
        self.outputs.append((now(), np.array(message.data)))

    def _on_command(self, message):
        self.commanded_s = now()

    @property
    def torque(self) -> np.ndarray:
        """What the arm's motors did last, N·m."""
        return np.array(self.joints.messages[-1].effort) if self.joints.messages else np.zeros(2)

    def end_dry_run(self):
        assert self.stack.set_parameter("effort_guard", "dry_run", False).successful

    def diagnostics(self) -> dict[str, str]:
        return self.stack.monitor.diagnostics.get("effort_guard", ("", "", {}))[2]

    @property
    def follows_in_a_dry_run(self) -> bool:
        said = self.diagnostics()
        return said.get("dry_run") == "True" and int(said.get("commands", "0")) > 0

    def drive(self):
        """Press until there is torque at the arm."""
        self.hand.press_until(lambda _: self.torque.any(), "torque at the arm")

    def wait_for_rest(self) -> float:
        """Wait until the motors are off, and return when that was seen."""
        self.stack.wait_for(lambda: not self.torque.any(), "motors off")
        return now()


@pytest.fixture
def rehearse(start_stack, commands, hand_of, tmp_path):
    def start() -> Rehearsal:
        file = tmp_path / "arm.yaml"
        file.write_text(yaml.safe_dump({name: {"ros__parameters": values} for name, values in PARAMETERS.items()}))
        stack = start_stack(source="camera", planner="bc", guard=True, params_file=str(file))
        return Rehearsal(stack, commands, hand_of(stack))

    return start


def test_a_latent_is_joined_with_the_newest_joint_state_before_its_frame_and_never_one_after(rehearse):
    arm = rehearse()
    arm.end_dry_run()
    arm.drive()
    first = len(arm.commands.messages)
    arm.stack.wait_for(lambda: len(arm.commands.messages) > first + 100, "100 commands")
    joints, latents = arm.joints.by_stamp(), arm.latents.by_stamp()
    stamps = np.array(sorted(joints))
    assert not joints.keys() & latents.keys(), "nothing is in step"
    planner = load_planner("bc", {"bundle": find_bundle("bc-small")}, PlannerContext(2, 0.02))
    planner.reset(0)

    def effort(stamp_ns: int, joint_stamp_ns: int) -> np.ndarray:
        state, latent = joints[joint_stamp_ns], latent_of(latents[stamp_ns])
        position, velocity = np.array(state.position), np.array(state.velocity)
        return 0.05 * planner.plan(Observation(stamp_ns, latent, position, velocity), None).action

    newest, told_apart, compared = 0, 0, 0
    for stamp_ns, command in arm.commands.by_stamp().items():
        before = stamps[(stamps <= stamp_ns) & (stamps >= stamp_ns - MAX_AGE_NS)][::-1]
        after = stamps[stamps > stamp_ns]
        if stamp_ns not in latents or not len(before) or not len(after) or not any(command.effort):
            continue
        sent = np.array(command.effort)
        close = [np.abs(effort(stamp_ns, joint_ns) - sent).max() < 1e-7 for joint_ns in before]
        assert any(close), f"the command at {stamp_ns} is of no joint state before it"
        compared += 1
        newest += close[0]
        told_apart += np.abs(effort(stamp_ns, after[0]) - sent).max() > 1e-7
    assert compared > 50
    assert newest > 0.9 * compared, "but for those that were still on their way"
    assert told_apart > 2, "the next one, nearer or not, would have given another torque"


@pytest.mark.real_time
def test_the_whole_guide_on_the_stand_in(rehearse):
    arm = rehearse()
    stack = arm.stack
    # Step 3: a dry run, also with the switch held.
    stack.wait_for(lambda: arm.follows_in_a_dry_run, "commands at the guard")
    arm.hand.press()
    stack.wait_for(
        lambda: any(float(t) for t in arm.diagnostics().get("computed_efforts", "0").split(", ")), "a torque"
    )
    assert arm.diagnostics()["output_efforts"] == "0.0000, 0.0000"
    assert int(arm.diagnostics()["refused_commands"]) < 0.2 * int(arm.diagnostics()["commands"])
    assert not any(effort.any() for _, effort in arm.outputs), "zeros arrive at the controller, and nothing else"

    # Step 5: with the switch released the dry run ends; the arm moves once it is held.
    arm.hand.hold(False)
    stack.wait_for(lambda: arm.diagnostics()["enabled"] == "False", "the switch to be released")
    arm.end_dry_run()
    count = len(arm.outputs)
    stack.wait_for(lambda: len(arm.outputs) > count + 20, "more of the guard's torques")
    assert not any(effort.any() for _, effort in arm.outputs)
    pose = np.array(arm.joints.messages[-1].position)
    arm.hand.press_until(
        lambda _: np.abs(np.array(arm.joints.messages[-1].position) - pose).max() > 0.05, "the arm to move"
    )
    efforts = np.array([effort for _, effort in arm.outputs])
    assert (np.abs(efforts) <= LIMITS).all()
    steps, towards_zero = np.abs(np.diff(efforts, axis=0)), (efforts[1:] == 0).all(axis=1)
    assert (steps[~towards_zero] <= SLEW_RATES / 100.0 + 1e-12).all(), "slew"

    # Letting go stops it.
    arm.drive()
    released_s = arm.hand.hold(False)
    assert arm.wait_for_rest() - released_s < SLACK_S
    arm.drive()

    # A guard that was killed sends nothing more: the arm's own timeout stops it. A new one begins with a dry run.
    stack.kill("effort_guard")
    killed_s = now()
    assert arm.wait_for_rest() - killed_s < ARMS_OWN_TIMEOUT_S + SLACK_S
    count = len(arm.outputs)
    stack.wait_for(lambda: len(arm.outputs) > count + 20, "a guard that was started again")
    assert not any(effort.any() for _, effort in arm.outputs[count:])
    stack.wait_for(lambda: arm.follows_in_a_dry_run, "commands at the new guard: without one it would only damp")
    arm.end_dry_run()
    arm.drive()

    # A planner that was killed: at once no torque, then damping while there is something to damp.
    stack.kill("vjepa_planner")
    # By the stamps, which are of one clock: a test that is late itself still has old states to read.
    silence_ns = int((COMMAND_TIMEOUT_S + SLACK_S) * 1e9)

    def damped() -> list:
        begin_ns = arm.commands.stamps[-1] + silence_ns
        return [s for stamp, s in zip(arm.joints.stamps, arm.joints.messages, strict=True) if stamp > begin_ns]

    stack.wait_for(lambda: len(damped()) > 30, "silence")
    silent_s = arm.commanded_s
    ended = [at for at, effort in arm.outputs if at > silent_s and not effort.any()]
    assert ended, "no torque at once"
    assert ended[0] - silent_s < COMMAND_TIMEOUT_S + SLACK_S
    states = damped()
    efforts, velocities = (np.array([getattr(state, name) for state in states]) for name in ("effort", "velocity"))
    assert (np.abs(efforts) <= LIMITS).all()
    # The guard damps by a state that is some periods old, on a busy machine ten, and the wrist turns round sooner.
    powers = [efforts[10:] * velocities[10 - late : len(states) - late] for late in range(11)]
    assert (np.min(powers, axis=0) <= 1e-6).all(), "whatever torque there is takes energy out"
    assert arm.arm.poll() is None
    arm.arm.terminate()
    assert arm.arm.wait(10.0) == 0
