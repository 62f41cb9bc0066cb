"""Each stack has a domain of its own, and says where it is for as long as it runs."""

import contextlib
import fcntl
import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from vjepa_bringup import domains
from vjepa_bringup.domains import LAST_DOMAIN, hold_domain, running_stacks
from vjepa_interfaces.errors import VjepaError


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Locks of this test's own, and the last domains, which stacks that run here come to last."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(domains, "FIRST_DOMAIN", 80)


def listen(domain: int, participant: int = 0) -> socket.socket:
    """Listen where a participant of a domain does."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(("127.0.0.1", 7410 + 250 * domain + 2 * participant))
    return listener


def domain_file(tmp_path: Path, domain: int) -> Path:
    return tmp_path / f"vjepa-{os.getuid()}" / f"domain-{domain}.json"


def test_stacks_take_different_domains_and_are_listed_while_they_run():
    assert running_stacks() == []
    with hold_domain(None, {"namespace": "left"}) as left, hold_domain(None, {"namespace": "right"}) as right:
        assert left < right
        expected = [{"domain": d, "pid": os.getpid(), "namespace": n} for d, n in ((left, "left"), (right, "right"))]
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
    monkeypatch.setattr(domains, "_in_use", lambda domain: True)
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
        "import os, sys, tempfile; tempfile.tempdir = sys.argv[1]\n"
        "from vjepa_bringup.domains import hold_domain\n"
        "with hold_domain(None, {}) as domain: print(domain, flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        domain = int(child.stdout.readline())
        assert [stack["pid"] for stack in running_stacks()] == [child.pid]
        child.kill()
    assert domain_file(tmp_path, domain).read_text() != "", "it had no time to clear it"
    assert running_stacks() == []
    with hold_domain(domain, {}):
        assert [stack["pid"] for stack in running_stacks()] == [os.getpid()]
