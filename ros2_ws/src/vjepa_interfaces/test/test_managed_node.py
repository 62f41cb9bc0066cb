"""The base class of nodes: what its processes print, and what a destroyed one leaves."""

import gc
import signal
import subprocess
import sys
import warnings
from dataclasses import dataclass

import rclpy

from vjepa_interfaces.managed_node import ManagedNode, ignore_lost_responses

LOST = "failed to send response (timeout): client will not receive response, at rmw_response.cpp:153"


def test_a_response_that_nobody_waits_for_any_more_is_no_warning():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.warn(LOST, RuntimeWarning, stacklevel=1)
        ignore_lost_responses()
        warnings.warn(LOST, RuntimeWarning, stacklevel=1)
        warnings.warn("another one", RuntimeWarning, stacklevel=1)
    assert [str(warning.message) for warning in caught] == [LOST, "another one"]


STARTED = """
import signal, sys
print("importing", flush=True)
sys.stdin.readline()
from vjepa_interfaces.managed_node import hold_signals
print(hold_signals().recv(1)[0] == signal.SIGINT)
"""


def test_an_interrupt_during_imports_reaches_the_node_after_them_and_is_no_traceback():
    node = subprocess.Popen(
        ["env", "--block-signal=INT", sys.executable, "-P", "-c", STARTED],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert node.stdout is not None
    assert node.stdout.readline() == "importing\n"
    node.send_signal(signal.SIGINT)
    assert node.communicate("go on\n", timeout=60) == ("True\n", "")


@dataclass(frozen=True)
class NoParameters:
    """No parameters."""


class Idle(ManagedNode):
    """A node that does nothing."""

    Parameters = NoParameters

    def setup(self) -> None: ...

    def diagnose(self):
        return b"\0", "idle", {}


def test_a_destroyed_node_leaves_no_participant_in_its_process(participants):
    before = participants()
    gc.disable()
    rclpy.init()
    try:
        node = Idle("idle")
        assert node.trigger_configure().name == "SUCCESS", node.last_error
        assert participants() == before + 1
        node.destroy_node()
        assert participants() == before
    finally:
        rclpy.try_shutdown()
        gc.enable()
