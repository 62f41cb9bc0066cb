"""ROS domains: each stack takes one of its own, and says in a file which, so that other commands find it.

A domain is held by an exclusive lock on its file; the lock ends with the process, however it ends.
"""

import contextlib
import fcntl
import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from vjepa_interfaces.errors import VjepaError

FIRST_DOMAIN, LAST_DOMAIN = 1, 101
"""Those taken by themselves. Above 101 a domain's ports lie in Linux' ephemeral range."""
MAX_DOMAIN = 232
"""Above it a domain's ports would not be ports (DDSI-RTPS 9.6.1.1)."""
PARTICIPANTS = 10
LOCK_TIMEOUT_S = 1.0


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"vjepa-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _in_use(domain: int) -> bool:
    """Say whether one of the first participants of a domain listens for discovery (DDSI-RTPS 9.6.1.1).

    The first may have left while others are still there, such as the nodes of a `vjepa run` that was killed.
    """
    for participant in range(PARTICIPANTS):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", 7410 + 250 * domain + 2 * participant))
            except OSError:
                return True
    return False


def _lock(file, patience_s: float) -> bool:
    """Lock a domain's file, or return False; `running_stacks` may hold it for an instant, hence the patience."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)


@contextlib.contextmanager
def hold_domain(domain: int | None, about: dict[str, Any]) -> Iterator[int]:
    """Hold a ROS domain while the context lasts, and leave `about` to be read by `running_stacks`.

    Args:
        domain: the domain to take, which nodes of others may use as well; None takes one that nobody uses.
        about: what the stack is, as JSON values.

    Raises:
        VjepaError: there is no such domain, another stack of this user holds it, or none is free.
    """
    if domain is not None and not 0 <= domain <= MAX_DOMAIN:
        raise VjepaError(f"ROS domain {domain} does not exist; expected 0 to {MAX_DOMAIN}")
    with contextlib.ExitStack() as held:
        taken, file = _take(domain, held)
        file.truncate(0)
        file.write(json.dumps({"domain": taken, "pid": os.getpid(), **about}))
        file.flush()
        try:
            yield taken
        finally:
            file.truncate(0)


def _take(domain: int | None, held: contextlib.ExitStack) -> tuple[int, IO[str]]:
    """Return the domain and its locked file, which `held` closes."""
    for candidate in [domain] if domain is not None else range(FIRST_DOMAIN, LAST_DOMAIN + 1):
        file = open(_folder() / f"domain-{candidate}.json", "a+", encoding="utf-8")  # noqa: SIM115 (see held)
        if _lock(file, LOCK_TIMEOUT_S if domain is not None else 0.0) and (
            domain is not None or not _in_use(candidate)
        ):
            held.enter_context(file)
            return candidate, file
        file.close()
    if domain is not None:
        raise VjepaError(f"ROS domain {domain} is held by another vjepa run; take another or stop that one")
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
