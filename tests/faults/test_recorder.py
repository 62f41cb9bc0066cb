"""A recorder that is killed, and one whose disk is full: the loop goes on, and what was written is there."""

import shutil
import subprocess
import time
from pathlib import Path

import pytest
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool

from vjepa_bags.bag_repair import repair_bag
from vjepa_bringup.supervisor import Supervisor
from vjepa_interfaces import topics
from vjepa_interfaces.managed_node import qos_profile
from vjepa_interfaces.stamps import to_nanoseconds

pytestmark = pytest.mark.faults

DISK_KIB = 4096
"""Room for what some two hundred steps give, at 64 x 64 pixels."""
LOST_S = 1.0
DIAGNOSTICS_S = 1.0


class Frames:
    """The frames that the stack published, and when the test saw each."""

    def __init__(self, stack):
        self.seen: dict[int, float] = {}
        stack.node.create_subscription(Image, topics.IMAGE.name, self._see, qos_profile(topics.IMAGE, 1000))

    def _see(self, message) -> None:
        self.seen.setdefault(to_nanoseconds(message.header.stamp), time.monotonic())


def stamps_in(bag: Path) -> list[int]:
    """The stamps of the frames in a bag, as others read it."""
    with AnyReader([bag], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
        connections = [c for c in reader.connections if c.topic == "/" + topics.IMAGE.name]
        messages = [reader.deserialize(data, c.msgtype) for c, _, data in reader.messages(connections)]
    return [to_nanoseconds(message.header.stamp) for message in messages]


def stamps_saved_from(bag: Path, repaired: Path) -> list[int]:
    """The same of a bag that may have been cut inside a flush: it is then repaired, and that is read."""
    try:
        return stamps_in(bag)
    except Exception:  # rosbags raises many kinds
        repair_bag(bag, repaired)
        return stamps_in(repaired)


@pytest.mark.slow
def test_a_killed_recorder_loses_the_last_second_at_most_and_records_again(lockstep_stack, tmp_path):
    bags = tmp_path / "bags"
    stack = lockstep_stack(planner="expert", record=True, bag_dir=str(bags), episode_steps=100_000)
    frames = Frames(stack)
    stack.wait_for_steps(1)

    def due(began_s: float, killed_s: float) -> set[int]:
        """The frames that a recorder which recorded between the two times must have saved."""
        return {stamp for stamp, seen_s in frames.seen.items() if began_s + LOST_S < seen_s < killed_s - LOST_S}

    for kill in range(3):
        bag = max(bags.iterdir())
        began_s = time.monotonic()
        stack.wait_for(lambda began_s=began_s: len(due(began_s, time.monotonic())) > 20, "seconds of recording")
        killed_s = time.monotonic()
        stack.kill("episode_recorder")
        recorded = stamps_saved_from(bag, tmp_path / f"repaired{kill}")
        assert due(began_s, killed_s) <= set(recorded)
        seen = len(frames.seen)
        stack.wait_for(lambda seen=seen: len(frames.seen) > seen + 5, "steps without a recorder", 10.0)
        stack.wait_for(lambda bag=bag: max(bags.iterdir()) != bag, "another bag")
    stack.wait_for(lambda: stack.monitor.is_active(1.0), "the whole stack to be active again", 30.0)


@pytest.fixture
def small_disk(tmp_path, monkeypatch):
    """A disk of the recorder's own, in memory, in a mount namespace; where that is not allowed, a limit on its files.

    Returns:
        Its folder, and a function that gives the same folder as the recorder with a process id sees it.
    """
    disk = tmp_path / "disk"
    disk.mkdir()
    mounts = subprocess.run(["unshare", "-Urm", "mount", "-t", "tmpfs", "none", disk], check=False).returncode == 0
    mounted = f'mount -t tmpfs -o size={DISK_KIB}k none "{disk}" && exec "$@"'
    limited = f'ulimit -f {2 * DISK_KIB} && exec "$@"'
    wrapped = ["unshare", "-Urm", "sh", "-c", mounted, "sh"] if mounts else ["sh", "-c", limited, "sh"]
    plain = Supervisor._command
    monkeypatch.setattr(
        Supervisor,
        "_command",
        lambda self, node: [*(wrapped if node.name == "episode_recorder" else []), *plain(self, node)],
    )
    return disk, lambda pid: Path(f"/proc/{pid}/root{disk}") if mounts else disk


def test_a_full_disk_ends_the_recording_and_nothing_else(lockstep_stack, tmp_path, small_disk, wait_said):
    disk, seen_by = small_disk
    stack = lockstep_stack(planner="expert", record=True, bag_dir=str(disk), episode_steps=100_000)
    frames = Frames(stack)
    stack.wait_for_steps(1)
    stack.wait_for(lambda: "could not be written" in stack.message_of("episode_recorder"), "a full disk")
    said_s = time.monotonic()
    stack.wait_for_steps(20)

    (bag,) = seen_by(stack.supervisor.pids()["episode_recorder"]).iterdir()
    recorded = stamps_in(shutil.copytree(bag, tmp_path / "copy"))
    assert recorded == [stamp for stamp in sorted(frames.seen) if stamp <= recorded[-1]], "every frame up to the last"
    assert said_s - frames.seen[recorded[-1]] < LOST_S + DIAGNOSTICS_S

    shutil.rmtree(bag)
    assert stack.call(SetBool, "episode_recorder/record", SetBool.Request(data=True)).success
    wait_said(stack, "episode_recorder", "recording")
    stack.wait_for_steps(20)
    assert stack.supervisor.restarts() == {}
