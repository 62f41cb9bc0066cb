"""ROS domains: each stack takes one of its own, and says in a file which, so that other commands find it.

A domain is held by an exclusive lock on its file; the lock ends with the process, however it ends.
"""

import contextlib
import fcntl
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vjepa_interfaces.errors import VjepaError

FIRST_DOMAIN, LAST_DOMAIN = 1, 101
"""Above 101 a domain's ports lie in Linux' ephemeral range."""


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"vjepa-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _discovery_port_taken(domain: int) -> bool:
    """Say whether somebody's first participant of a domain already listens (DDSI-RTPS 9.6.1.1: 7410 + 250 d)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", 7410 + 250 * domain))
        except OSError:
            return True
    return False


@contextlib.contextmanager
def hold_domain(domain: int | None, about: dict[str, Any]) -> Iterator[int]:
    """Hold a ROS domain while the context lasts, and leave `about` to be read by `running_stacks`.

    Args:
        domain: the domain to take, which others may share; None takes a free one.
        about: what the stack is, as JSON values.

    Raises:
        VjepaError: no domain is free.
    """
    candidates = [domain] if domain is not None else range(FIRST_DOMAIN, LAST_DOMAIN + 1)
    for candidate in candidates:
        file = open(_folder() / f"domain-{candidate}.json", "a+", encoding="utf-8")  # noqa: SIM115 (held by the lock)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            if domain is not None:
                raise VjepaError(
                    f"ROS domain {domain} is held by another vjepa run; take another or stop that one"
                ) from None
            continue
        if domain is None and _discovery_port_taken(candidate):
            file.close()
            continue
        with file:
            file.truncate(0)
            file.write(json.dumps({"domain": candidate, "pid": os.getpid(), **about}))
            file.flush()
            try:
                yield candidate
            finally:
                file.truncate(0)
        return
    raise VjepaError(f"all ROS domains from {FIRST_DOMAIN} to {LAST_DOMAIN} are taken; give one with --domain")


def running_stacks() -> list[dict[str, Any]]:
    """Return what `hold_domain` was told about each stack that is running now, by domain."""
    stacks = []
    for path in sorted(_folder().glob("domain-*.json")):
        with open(path, encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                with contextlib.suppress(ValueError):
                    stacks.append(json.loads(file.read()))
    return sorted(stacks, key=lambda stack: stack["domain"])
