"""Each stack has a domain of its own, and says where it is for as long as it runs."""

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from vjepa_bringup import domains
from vjepa_bringup.domains import LAST_DOMAIN, MAX_DOMAIN, RunningStack, hold_domain, running_stacks
from vjepa_interfaces.errors import VjepaError


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Locks of this test's own, and the last domains, which stacks that run here come to last."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(domains, "FIRST_DOMAIN", 80)


def listen(domain: int, participant: int = 0) -> socket.socket:
    """Listen where a participant of a domain does."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(("127.0.0.1", 7410 + 250 * domain + 2 * participant))
    return listener


def domain_file(tmp_path: Path, domain: int) -> Path:
    return tmp_path / "vjepa" / f"domain-{domain}.json"


def test_stacks_take_different_domains_and_are_listed_while_they_run():
    assert running_stacks() == []
    with hold_domain(None, {"namespace": "left"}) as left, hold_domain(None, {"namespace": "right"}) as right:
        assert left < right
        expected = [RunningStack(d, os.getpid(), namespace=n) for d, n in ((left, "left"), (right, "right"))]
        assert running_stacks() == expected
    assert running_stacks() == []


def test_a_domain_is_free_again_after_a_stack_that_failed():
    with contextlib.suppress(ZeroDivisionError), hold_domain(None, {}) as first:
        raise ZeroDivisionError
    with hold_domain(first, {}):
        pass


def test_a_domain_that_is_held_is_refused_naming_it():
    with hold_domain(None, {}) as taken, pytest.raises(VjepaError, match=f"domain {taken} is held by another"):
        hold_domain(taken, {}).__enter__()


@pytest.mark.parametrize("domain", [-1, 233, 100_000])
def test_a_domain_that_does_not_exist_is_refused(domain):
    with pytest.raises(VjepaError, match=f"domain {domain} does not exist; expected 0 to 232"):
        hold_domain(domain, {}).__enter__()


@pytest.mark.parametrize("participant", [0, 3])
def test_a_domain_that_others_use_is_not_taken_unless_asked_for(participant, monkeypatch):
    with hold_domain(None, {}) as free:
        pass
    with contextlib.closing(listen(free, participant)):
        with hold_domain(None, {}) as other:
            assert other != free
        with hold_domain(free, {}) as asked_for:
            assert asked_for == free
    monkeypatch.setattr(domains, "in_use", lambda domain: True)
    with pytest.raises(VjepaError, match=f"to {LAST_DOMAIN} are taken"):
        hold_domain(None, {}).__enter__()


def test_a_domain_is_taken_although_somebody_is_just_looking(tmp_path):
    with hold_domain(None, {}) as domain:
        pass
    with open(domain_file(tmp_path, domain)) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        threading.Timer(0.1, lambda: fcntl.flock(file, fcntl.LOCK_UN)).start()
        with hold_domain(domain, {}) as taken:
            assert taken == domain


def test_a_stack_whose_process_was_killed_is_not_listed_and_its_domain_is_free(tmp_path):
    code = (
        "import sys\n"
        "from vjepa_bringup.domains import hold_domain\n"
        "with hold_domain(None, {}) as domain: print(domain, flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with child:
        domain = int(child.stdout.readline())
        assert [stack.pid for stack in running_stacks()] == [child.pid]
        child.kill()
    assert domain_file(tmp_path, domain).read_text() != "", "it had no time to clear it"
    assert running_stacks() == []
    with hold_domain(domain, {}):
        assert [stack.pid for stack in running_stacks()] == [os.getpid()]


# What a file may say, and what becomes of the rest.


def left_behind(tmp_path: Path, stack: contextlib.ExitStack, content: object, domain: int = 90) -> Path:
    """Write and lock a domain's file as a stack does that runs."""
    path = domain_file(tmp_path, domain)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    file = stack.enter_context(path.open())
    fcntl.flock(file, fcntl.LOCK_EX)
    return path


def test_of_a_stacks_file_its_fields_alone_are_taken(tmp_path):
    with contextlib.ExitStack() as stack:
        foreign = {"environment": {"PYTHONPATH": "/tmp/theirs"}, "PYTHONPATH": "/tmp/theirs"}
        left_behind(tmp_path, stack, {"domain": 90, "pid": 7, "discovery": "subnet", **foreign})
        assert running_stacks() == [RunningStack(90, 7, discovery="subnet")]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"domain": 90, "pid": "7"}, "field 'pid'"),
        ({"domain": 90, "pid": 0}, "pid is 0"),
        ({"domain": 90}, "'pid' is missing"),
        ({"domain": True, "pid": 7}, "field 'domain'"),
        ({"domain": MAX_DOMAIN + 1, "pid": 7}, "does not exist; expected 0 to 232"),
        ({"domain": 91, "pid": 7}, "it names domain 91"),
        ({"domain": 90, "pid": 7, "namespace": "left\x1b[2J"}, "not a ROS namespace"),
        ({"domain": 90, "pid": 7, "namespace": "a" * 256}, "not a ROS namespace"),
        ({"domain": 90, "pid": 7, "planner": "\x1b]0;title\x07"}, "not a printable name"),
        (
            {"domain": 90, "pid": 7, "discovery": "ROS_DOMAIN_ID=1"},
            "discovery is 'ROS_DOMAIN_ID=1'; expected one of: localhost",
        ),
        ({"domain": 90, "pid": 7, "discovery": {"PYTHONPATH": "x"}}, "field 'discovery'"),
        ([90, 7], "expected a JSON object"),
        ("[" * 3000, "expected a JSON object"),
        ('{"domain": 90, "pid": 7}' + " " * 4096, "of at most 4096 characters"),
    ],
)
def test_a_file_that_no_stack_writes_is_left_out_with_the_reason_and_the_others_stay(content, reason, tmp_path, capsys):
    with contextlib.ExitStack() as stack:
        path = left_behind(tmp_path, stack, content)
        with hold_domain(None, {}) as held:
            assert [one.domain for one in running_stacks()] == [held]
    said = capsys.readouterr().err
    assert said.startswith(f"vjepa: {path} is left out: ")
    assert reason in said
    assert "\x1b" not in said


def test_a_file_that_its_stack_has_not_written_yet_is_no_stack(tmp_path, capsys):
    with contextlib.ExitStack() as stack:
        left_behind(tmp_path, stack, "")
        assert running_stacks() == []
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("about", [{"discovery": "everywhere"}, {"namespace": "left arm"}, {"planner": "\n"}])
def test_a_stack_leaves_nothing_that_could_not_be_read(about):
    with pytest.raises(VjepaError), hold_domain(None, about):
        pass
    assert running_stacks() == []


def test_a_link_in_the_place_of_a_domains_file_is_refused_and_what_it_leads_to_is_left_alone(tmp_path, capsys):
    mine = tmp_path / "mine"
    mine.write_text("precious")
    link = domain_file(tmp_path, 90)
    link.parent.mkdir(mode=0o700)
    link.symlink_to(mine)
    with pytest.raises(VjepaError, match=f"{link} is a symbolic link and belongs to .*; remove it"):
        hold_domain(90, {}).__enter__()
    assert running_stacks() == []
    assert f"{link} is left out: " in capsys.readouterr().err
    assert mine.read_text() == "precious"


def test_a_stack_without_a_session_is_found_from_one_and_keeps_its_domain(tmp_path, monkeypatch):
    """As one that a service of the system started, seen from a user's shell."""
    session = tmp_path / "session"
    session.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "none"))
    with hold_domain(90, {}):
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(session))
        assert [stack.domain for stack in running_stacks()] == [90]
        with pytest.raises(VjepaError, match="domain 90 is held by another"):
            hold_domain(90, {}).__enter__()
        with hold_domain(91, {}):
            assert [stack.domain for stack in running_stacks()] == [90, 91]
            assert (session / "vjepa" / "domain-91.json").exists()
