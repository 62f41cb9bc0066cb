"""What reaches the joints: sane commands as they are, too large ones clamped, senseless ones never."""

import math

import pytest
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import SetBool, Trigger

from vjepa_interfaces import topics

pytestmark = pytest.mark.faults

JOINTS = ["shoulder", "wrist"]


class BareSim:
    """A stack without its planner: the test answers frames itself."""

    def __init__(self, stack, command_topic=topics.JOINT_COMMAND):
        self.stack = stack
        self.joints = stack.tap(topics.JOINT_STATES)
        self.timesteps = stack.tap(topics.TIMESTEP)
        self.commands = stack.publisher(command_topic)
        stack.wait_for(lambda: self.joints.stamps and self.timesteps.stamps, "the first frame")

    def send(self, effort, names=JOINTS, stamp=None):
        message = JointState(name=list(names), effort=[float(value) for value in effort])
        self.commands.publish(self.stack.stamped(message, self.joints.stamps[-1] if stamp is None else stamp))

    def next_effort(self, last=None):
        """Wait for a step after stamp `last` (default: the latest seen) and return the effort applied in it."""
        last = self.joints.stamps[-1] if last is None else last
        self.stack.wait_for(lambda: self.joints.stamps[-1] > last, "the next step")
        self.stack.wait_for(lambda: self.timesteps.stamps[-1] == self.joints.stamps[-1], "its timestep")
        return list(self.joints.messages[-1].effort)

    def count(self, name, expected):
        self.stack.wait_for_value("sim_bridge", name, lambda value: value >= expected)


@pytest.fixture
def bare_sim(start_stack, monkeypatch):
    """Return a function that starts perception and sim alone, with the test in the planner's place."""
    import vjepa_bringup.run_graph as run_graph
    from vjepa_bringup.graph import build_graph

    def without_planner(options):
        nodes = []
        for node in build_graph(options):
            if node.name == "stack_manager":
                node.parameters["managed_nodes"] = ["vjepa_perception", "sim_bridge"]
            if node.name not in ("vjepa_planner", "episode_recorder"):
                nodes.append(node)
        return nodes

    monkeypatch.setattr(run_graph, "build_graph", without_planner)

    def start(command_topic=topics.JOINT_COMMAND, **options):
        return BareSim(start_stack(**options), command_topic)

    return start


def test_lockstep_steps_only_for_a_sane_command_with_the_latest_stamp(bare_sim):
    sim = bare_sim(lockstep=True, episode_steps=50)
    sim.send([0.01, -0.02])
    assert sim.next_effort() == [0.01, -0.02]
    sim.send([1.0, -1.0])
    assert sim.next_effort() == [0.05, -0.05]
    sim.count("clamped_commands", 1)

    stamps = len(set(sim.timesteps.stamps))
    sim.send([math.nan, 0.0])
    sim.send([math.inf, 0.0])
    sim.send([0.01])
    sim.send([0.01, 0.01, 0.01])
    sim.send([0.01, 0.01], names=["shoulder", "elbow"])
    sim.send([0.01, 0.01], names=[])
    sim.send([0.01, 0.01], stamp=sim.timesteps.stamps[0])
    sim.send([0.0, 0.0], stamp=0)
    sim.count("refused_commands", 6)
    sim.count("old_commands", 2)
    assert len(set(sim.timesteps.stamps)) == stamps, "none of them stepped the simulation"

    sim.send([0.02, 0.03], names=["wrist", "shoulder"])
    assert sim.next_effort() == [0.03, 0.02]


def test_the_command_that_answers_a_last_frame_is_not_applied(bare_sim):
    sim = bare_sim(lockstep=True, episode_steps=1)
    sim.send([0.01, 0.01])
    assert sim.next_effort() == [0.01, 0.01]
    sim.send([0.04, 0.04])
    assert sim.next_effort() == [0.0, 0.0], "the next frame is the FIRST of a new episode"
    assert sim.timesteps.messages[-1].vector.z == 0.0


@pytest.mark.real_time
def test_silence_in_real_time_means_zero_torque(bare_sim):
    sim = bare_sim(episode_steps=100_000)
    sim.send([0.01, 0.01])
    sim.stack.wait_for(lambda: list(sim.joints.messages[-1].effort) == [0.01, 0.01], "the torque to be applied")
    sim.stack.wait_for(lambda: list(sim.joints.messages[-1].effort) == [0.0, 0.0], "zero torque after the silence")
    efforts = [tuple(m.effort) for m in sim.joints.messages]
    held = efforts.count((0.01, 0.01))
    assert held <= 0.2 / 0.02 + 3, "the last command is held for command_timeout_s, then no longer"
    sim.count("timeout_steps", 1)


@pytest.mark.real_time
def test_the_beginning_of_an_episode_is_no_silence_in_real_time(bare_sim, tmp_path):
    file = tmp_path / "patient.yaml"
    file.write_text("sim_bridge: {ros__parameters: {command_timeout_s: 5.0}}\n")
    sim = bare_sim(episode_steps=4, params_file=str(file))
    episodes = 0
    while episodes < 8:
        if sim.timesteps.messages[-1].vector.z != 0.0:
            sim.send([0.01, 0.01])
            sim.next_effort()
        else:
            assert sim.next_effort() == [0.0, 0.0], "nothing is held from the episode before"
            episodes += 1
    sim.stack.wait_for_value("sim_bridge", "steps", lambda steps: steps >= 4 * 6)
    assert sim.stack.monitor.value("sim_bridge", "timeout_steps") == 0


def test_zeros_of_a_deactivation_stop_the_arm_in_real_time(bare_sim):
    sim = bare_sim(episode_steps=100_000)
    sim.send([0.01, 0.01])
    sim.stack.wait_for(lambda: list(sim.joints.messages[-1].effort) == [0.01, 0.01], "the torque to be applied")
    sim.send([0.0, 0.0], stamp=0)
    sim.stack.wait_for(lambda: list(sim.joints.messages[-1].effort) == [0.0, 0.0], "zero torque")


def test_an_effort_array_drives_the_arm_as_a_ros2_control_controller_takes_it(bare_sim, tmp_path):
    file = tmp_path / "array.yaml"
    file.write_text("sim_bridge: {ros__parameters: {command_input: effort_array}}\n")
    sim = bare_sim(topics.EFFORT_ARRAY, params_file=str(file), episode_steps=100_000)

    def applied(expected):
        sim.commands.publish(Float64MultiArray(data=[0.02, -0.01]))
        return list(sim.joints.messages[-1].effort) == expected

    sim.stack.wait_for(lambda: applied([0.02, -0.01]), "the array's torque")


def test_a_second_command_publisher_is_reported(bare_sim):
    sim = bare_sim(lockstep=True, episode_steps=50)
    sim.stack.publisher(topics.JOINT_COMMAND)
    sim.stack.wait_for(
        lambda: "2 publishers" in sim.stack.message_of("sim_bridge"), "a warning about the second publisher"
    )


def test_pause_holds_the_simulation_and_reset_begins_the_next_episode(bare_sim):
    sim = bare_sim(lockstep=True, episode_steps=50)
    assert sim.stack.call(SetBool, "sim_bridge/set_paused", SetBool.Request(data=True)).success
    held = sim.joints.stamps[-1]
    sim.send([0.01, 0.01])
    sim.count("commands", 1)
    assert sim.joints.stamps[-1] == held, "a paused simulation does not step"
    assert sim.stack.call(SetBool, "sim_bridge/set_paused", SetBool.Request(data=False)).success
    assert sim.next_effort(held) == [0.01, 0.01]

    last = sim.joints.stamps[-1]
    assert sim.stack.call(Trigger, "sim_bridge/reset", Trigger.Request()).success
    assert sim.next_effort(last) == [0.0, 0.0]
    assert sim.timesteps.messages[-1].vector.z == 0.0
    assert sim.timesteps.stamps[-1] == last + 1_000_000_000
