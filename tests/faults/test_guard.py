"""The guard alone, in a real process: what each fault does to the torque at the arm's side, and how soon."""

import os
import resource
import sys
from pathlib import Path

import pytest

from vjepa_interfaces.parameters import read_parameters

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks.guard import FAULTS, Fault, inflicted
from benchmarks.guard_rig import Rig
from tests.test_network import sockets_of

pytestmark = [pytest.mark.faults, pytest.mark.real_time]

SLACK_S = 0.1
"""Of a machine that other tests keep busy; the benchmark `guard` holds an idle one to the figures themselves."""
MAY_ASK = os.geteuid() == 0 or resource.getrlimit(resource.RLIMIT_RTPRIO)[0] > 0


@pytest.fixture(scope="module")
def rigs(tmp_path_factory):
    """Return a function that gives a rig for a fault; the last one is kept while the same is asked for."""
    kept: list[tuple[dict, Rig]] = []

    def end() -> None:
        for _, rig in kept:
            rig.__exit__(None, None, None)
        kept.clear()

    def rig_for(started: dict) -> Rig:
        if not kept or kept[0][0] != started or kept[0][1].guard.poll() is not None:
            end()
            kept.append((started, Rig(tmp_path_factory.mktemp("rig"), **started).__enter__()))
        return kept[0][1]

    yield rig_for
    end()


def param_of(fault: Fault):
    """Return a fault as a parameter; those of another priority than the default are `make test-all`'s."""
    return pytest.param(fault, id=fault.what, marks=[pytest.mark.slow] if "without a real-time" in fault.what else [])


@pytest.mark.parametrize("fault", map(param_of, FAULTS))
def test_a_fault_means_zero_torque_in_time_until_the_switch_is_released_and_pressed(rigs, fault):
    if "busy" in fault.what and not MAY_ASK:
        pytest.skip("this user may not ask for a real-time priority, without which the commander itself would starve")
    assert inflicted(fault, rigs(fault.rig)) <= fault.within_s + SLACK_S


@pytest.mark.parametrize("atomically", [True, False])
@pytest.mark.parametrize("refused", [{"rate_hz": 5.0}, {"effort_limits": [0.01, 0.01]}, {"use_sim_time": True}])
@pytest.mark.parametrize("first", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_request_that_is_refused_in_part_does_not_end_the_dry_run(rigs, refused, first, atomically):
    rig = rigs({})
    rig.set_parameters(dry_run=True)
    live = {"dry_run": False}
    asked = {**live, **refused} if first else {**refused, **live}
    assert not any(rig.set_parameters(atomically, **asked))
    assert rig.is_dry()
    rig.hand.send(rate_hz=20.0, values=(0,))
    rig.commander.send(rate_hz=50.0, values=(0.02, -0.01))
    rig.hand.send(rate_hz=20.0, values=(1,))
    rig.never_moves(0.3)
    rig.set_parameters(dry_run=False)


def test_no_memory_is_shared_with_another_process_which_could_be_stopped_with_a_lock_of_it(rigs):
    rig = rigs({})
    rig.hand.send(rate_hz=20.0, values=(0,))

    def shares(pid: int) -> bool:
        return "/fastrtps_" in Path(f"/proc/{pid}/maps").read_text()

    rig.wait(lambda: shares(rig.hand.process.pid), "the hand's process to share memory, as Fast DDS does by itself")
    assert not shares(rig.guard.pid)
    assert {one.address for one in sockets_of(rig.guard.pid)} == {"127.0.0.1"}, "as the stack's profile has it"


def test_simulated_time_is_refused_before_a_real_arm(tmp_path):
    from vjepa_interfaces.errors import VjepaError

    with pytest.raises(VjepaError, match="use_sim_time is true before a real arm"), Rig(tmp_path, use_sim_time=True):
        pass


def test_a_file_of_the_guards_own_parameters_can_be_loaded_again(rigs):
    rig = rigs({})
    assert rig.set_parameters(True, rate_hz=100.0, use_sim_time=False) == [True]
    assert rig.set_parameters(False, rate_hz=100.0, effort_limits=[0.05, 0.05], dry_run=False) == [True] * 3
    rig.driving()


def test_who_publishes_another_type_is_named(rigs):
    from std_msgs.msg import Bool

    rig = rigs({})
    publisher = rig.monitor.node.create_publisher(Bool, "effort_guard/enable", 1)
    try:
        rig.wait_for_message("/vjepa_cli publishes /effort_guard/enable as std_msgs/msg/Bool; expected sensor_msgs/msg")
    finally:
        rig.monitor.node.destroy_publisher(publisher)


def test_huge_messages_are_dropped_unread_and_named_and_torque_ends_at_once_when_the_switch_is_let_go(rigs):
    rig = rigs({})
    rig.driving()
    rig.joints.send(rate_hz=20.0, values=(0.0,) * 100_000)
    rig.wait_for_message("a message of")
    rig.driving()
    released = rig.hand.send(rate_hz=20.0, values=(0,))
    assert rig.zero_after(released) <= 0.02 + SLACK_S
    rig.joints.send(rate_hz=-1.0)
    assert int(rig.diagnostics()[1]["too_large_messages"]) > 0


def test_the_rig_reads_parameters_as_the_guard_does():
    from vjepa_interfaces.guard_parameters import GuardParameters, checked

    for fault in FAULTS:
        assert checked(read_parameters(GuardParameters, fault.parameters or {}))
