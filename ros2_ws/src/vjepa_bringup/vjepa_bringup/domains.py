"""ROS domains. Each stack takes a domain of its own and writes a file about it, so that other commands find the stack.

An exclusive lock on the file holds the domain. The lock ends with the process in every case.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from vjepa_bringup.discovery import DISCOVERIES, LOCAL
from vjepa_bringup.private_folder import PrivateFolder, own_folder, own_folders
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.json_text import parse_json
from vjepa_interfaces.parameters import read_parameters

FIRST_DOMAIN, LAST_DOMAIN = 1, 101
"""The domains that are taken automatically. Above 101, a domain's ports are in Linux' ephemeral range."""
MAX_DOMAIN = 232
"""The largest domain: above it, a domain's port numbers are not valid (DDSI-RTPS 9.6.1.1)."""
PARTICIPANTS = 10
LOCK_TIMEOUT_S = 1.0

_FILE = re.compile(r"domain-(\d{1,3})\.json")
_NAMESPACE = re.compile(r"/?([A-Za-z_]\w*(/[A-Za-z_]\w*)*/?)?", re.ASCII)
_MAX_PID = 2**22
_MAX_TEXT, _MAX_BYTES = 255, 4096


@dataclass(frozen=True)
class RunningStack:
    """The content of a stack's file. Other fields are ignored.

    Attributes:
        domain: ROS domain of the stack.
        pid: id of the process that holds the domain.
        namespace: ROS namespace of the stack.
        planner: the requested planner, or a label for another command in the stack's place.
        discovery: launch argument with which commands find the stack's nodes.
    """

    domain: int
    pid: int
    namespace: str = ""
    planner: str = ""
    discovery: str = LOCAL

    def __post_init__(self) -> None:
        if not 0 <= self.domain <= MAX_DOMAIN:
            raise VjepaError(f"ROS domain {self.domain} does not exist; expected 0 to {MAX_DOMAIN}")
        if not 0 < self.pid <= _MAX_PID:
            raise VjepaError(f"pid is {self.pid}; expected 1 to {_MAX_PID}")
        if not _NAMESPACE.fullmatch(self.namespace) or len(self.namespace) > _MAX_TEXT:
            raise VjepaError(f"{self.namespace[:_MAX_TEXT]!r} is not a ROS namespace, such as left_arm")
        if not self.planner.isprintable() or len(self.planner) > _MAX_TEXT:
            raise VjepaError(f"planner is not a printable name of at most {_MAX_TEXT} characters")
        if self.discovery not in DISCOVERIES:
            raise VjepaError(f"discovery is {self.discovery[:_MAX_TEXT]!r}; expected one of: {', '.join(DISCOVERIES)}")


_FIELDS = {field.name for field in dataclasses.fields(RunningStack)}


def in_use(domain: int) -> bool:
    """Return whether one of the first participants of a domain listens for discovery (DDSI-RTPS 9.6.1.1).

    The first participant may have ended before the others, such as the nodes of a killed `vjepa run`.
    """
    for participant in range(PARTICIPANTS):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", 7410 + 250 * domain + 2 * participant))
            except OSError:
                return True
    return False


def lock(file: IO[str], patience_s: float) -> bool:
    """Lock a stack's file and return True, or return False after `patience_s`: `running_stacks` may hold it briefly."""
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
def hold_domain(domain: int | None, about: dict[str, Any], uid: int | None = None) -> Iterator[int]:
    """Hold a ROS domain during the context, and write `about` for `running_stacks`.

    Args:
        domain: the domain to take, which other nodes may use too; None for a domain without nodes.
        about: fields of `RunningStack`.
        uid: owner of the folder and files; None for the user of this process.

    Raises:
        VjepaError: the domain does not exist or another stack of this user holds it, no domain is free, or
            the file's folder is not private.
    """
    if domain is not None and not 0 <= domain <= MAX_DOMAIN:
        raise VjepaError(f"ROS domain {domain} does not exist; expected 0 to {MAX_DOMAIN}")
    with contextlib.ExitStack() as held:
        taken, file = _take(domain, held, uid)
        stack = RunningStack(domain=taken, pid=os.getpid(), **about)
        file.truncate(0)
        file.write(json.dumps(dataclasses.asdict(stack)))
        file.flush()
        try:
            yield taken
        finally:
            file.truncate(0)


def _take(domain: int | None, held: contextlib.ExitStack, uid: int | None) -> tuple[int, IO[str]]:
    """Take a domain, and return it with its locked file, which `held` closes."""
    with own_folder(uid) as folder:
        for candidate in [domain] if domain is not None else range(FIRST_DOMAIN, LAST_DOMAIN + 1):
            file = folder.open(_file_name(candidate), create=True)
            if lock(file, LOCK_TIMEOUT_S if domain is not None else 0.0) and not (
                _is_held_elsewhere(candidate, folder, uid) or (domain is None and in_use(candidate))
            ):
                held.enter_context(file)
                return candidate, file
            file.close()
    if domain is not None:
        raise VjepaError(f"ROS domain {domain} is held by another vjepa run; choose another domain, or stop that run")
    raise VjepaError(f"all ROS domains from {FIRST_DOMAIN} to {LAST_DOMAIN} are taken; give one with --domain")


def _is_held_elsewhere(domain: int, here: PrivateFolder, uid: int | None) -> bool:
    """Return whether a stack of this user without a session, or in another session, holds a domain."""
    for folder in own_folders(uid):
        if folder.path != here.path:
            with contextlib.suppress(FileNotFoundError), folder.open(_file_name(domain)) as file:
                if _is_locked(file):
                    return True
    return False


def _is_locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def _file_name(domain: int) -> str:
    return f"domain-{domain}.json"


def running_stacks(uid: int | None = None) -> list[RunningStack]:
    """Return the running stacks of this user, sorted by domain.

    A damaged file is left out, with a line on standard error.

    Raises:
        VjepaError: the folder of the files is not this user's alone.
    """
    stacks = []
    for folder in own_folders(uid):
        for name in filter(_FILE.fullmatch, folder.names()):
            try:
                stacks += _read(folder, name)
            except VjepaError as error:
                print(f"vjepa: {folder.path / name} is left out: {error}", file=sys.stderr)
    return sorted(stacks, key=lambda stack: stack.domain)


def _read(folder: PrivateFolder, name: str) -> list[RunningStack]:
    """Return the stack of a file, if it runs and has written the file, else an empty list."""
    with contextlib.suppress(FileNotFoundError), folder.open(name) as file:
        if not _is_locked(file) or not (text := file.read(_MAX_BYTES + 1)):
            return []
        try:
            found = parse_json(text if len(text) <= _MAX_BYTES else "")
        except ValueError as error:
            raise VjepaError(f"expected a JSON object of at most {_MAX_BYTES} characters") from error
        stack = read_parameters(RunningStack, {key: found[key] for key in _FIELDS & found.keys()}, "field")
        if _file_name(stack.domain) != name:
            raise VjepaError(f"it names domain {stack.domain}")
        return [stack]
    return []
