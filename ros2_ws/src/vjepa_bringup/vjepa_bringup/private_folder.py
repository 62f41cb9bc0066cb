"""Folders that only this user can enter, for files with which commands find running stacks.

Anybody can create a folder of any name in the temporary folder, with links in it. So a folder must be a real one,
belong to this user and be closed to others. A file in it must be a regular one of this user with a single name. Links
are never followed.
"""

import contextlib
import os
import pwd
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from vjepa_interfaces.errors import VjepaError

OTHERS = 0o077
"""The permissions of all users but the owner."""
SESSIONS = Path("/run/user")
"""Systemd's runtime folders of users that are logged in, for a shell without the variable."""
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # A FIFO must not block a command.


class PrivateFolder:
    """An opened folder that only this user can enter. It opens files in this folder even if its path changes.

    Attributes:
        path: path of the folder, for messages.
    """

    def __init__(self, path: Path, uid: int, create: bool):
        """Open the folder at `path`; create it if it is missing and `create` is true.

        If others can enter the user's folder, it is closed to them, with a line on standard error.

        Raises:
            FileNotFoundError: the folder is missing, and `create` is false.
            VjepaError: the path is a link, not a folder, or another user's, or it cannot be created.
        """
        self.path, self._uid = path, uid
        try:
            if create:
                with contextlib.suppress(FileExistsError):
                    path.mkdir(0o700)
            self._descriptor = os.open(path, _FOLDER_FLAGS)
        except FileNotFoundError:
            if create:
                raise VjepaError(f"{path} cannot be made: no folder {path.parent}; {_ELSEWHERE}") from None
            raise
        except OSError as error:
            fault = _fault(path, uid, "folder") or f"{path} cannot be used: {error.strerror}"
            raise VjepaError(f"{fault}; {_ELSEWHERE}") from None
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def _check(self) -> None:
        found = os.fstat(self._descriptor)
        if found.st_uid != self._uid:
            raise VjepaError(f"{self.path} belongs to {_owner(found.st_uid)}, not to you; {_ELSEWHERE}")
        if (mode := stat.S_IMODE(found.st_mode)) & OTHERS:
            try:
                os.fchmod(self._descriptor, 0o700)
            except OSError as error:
                raise VjepaError(
                    f"{self.path} is open to other users (mode {mode:o}) and cannot be closed to them: "
                    f"{error.strerror}; {_ELSEWHERE}"
                ) from None
            print(
                f"vjepa: {self.path} was open to other users (mode {mode:o}); now only you can open it", file=sys.stderr
            )

    def names(self) -> list[str]:
        """Return the names of the files in it, sorted."""
        return sorted(os.listdir(self._descriptor))

    def open(self, name: str, create: bool = False) -> IO[str]:
        """Open a file to read and write; create it if it is missing and `create` is true.

        Raises:
            FileNotFoundError: the file is missing, and `create` is false.
            VjepaError: the file is a link, not a regular file, or another user's, or it has a second name.
        """
        path = self.path / name
        try:
            descriptor = os.open(
                name, os.O_RDWR | _FILE_FLAGS | (os.O_CREAT if create else 0), 0o600, dir_fd=self._descriptor
            )
        except FileNotFoundError:
            raise
        except OSError as error:
            fault = _fault(path, self._uid, "file") or f"{path} cannot be opened: {error.strerror}"
            raise VjepaError(f"{fault}; remove it") from None
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            fault = "is no regular file"
        elif found.st_uid != self._uid:
            fault = f"belongs to {_owner(found.st_uid)}, not to you"
        elif found.st_nlink > 1:
            fault = f"has {found.st_nlink} names, of which one was expected"
        else:
            return os.fdopen(descriptor, "r+", encoding="utf-8", errors="replace")
        os.close(descriptor)
        raise VjepaError(f"{path} {fault}; remove it")

    def close(self) -> None:
        """Close the folder; files that were opened in it stay open."""
        os.close(self._descriptor)

    def __enter__(self) -> "PrivateFolder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_ELSEWHERE = "have it removed, or name a folder of your own that is closed to others in XDG_RUNTIME_DIR"


def own_folder(uid: int | None = None) -> PrivateFolder:
    """Return a user's folder, created if missing, in the session's runtime folder or else in the temporary folder.

    Args:
        uid: the user; None for the user of this process.

    Raises:
        VjepaError: no folder is this user's alone; the message names the folder, its owner and a solution.
    """
    uid = os.getuid() if uid is None else uid
    *_, last = places = _places(uid)
    for place in places:
        try:
            return PrivateFolder(place, uid, create=True)
        except VjepaError:
            if place is last:
                raise
    raise AssertionError  # The last place has returned or raised.


def own_folders(uid: int | None = None) -> Iterator[PrivateFolder]:
    """Yield each existing folder, opened, that may contain files of this user's stacks.

    A service has no session, so the file of its stack is in another folder than the file of a user's shell.

    Raises:
        VjepaError: there is only one possible folder, and it is not this user's alone.
    """
    uid = os.getuid() if uid is None else uid
    places = _places(uid)
    for place in places:
        try:
            folder = PrivateFolder(place, uid, create=False)
        except FileNotFoundError:
            continue
        except VjepaError:
            if len(places) == 1:
                raise
            continue  # `own_folder` writes nothing there, or has raised this error.
        with folder:
            yield folder


def _places(uid: int) -> list[Path]:
    """Return possible folders of a user, best first: in the session's runtime folder, then in the temporary one.

    Raises:
        VjepaError: there is no possible folder.
    """
    runtimes = [Path(name) for name in (os.environ.get("XDG_RUNTIME_DIR"), SESSIONS / str(uid)) if name]
    places = [runtime / "vjepa" for runtime in runtimes if _is_private(runtime, uid)][:1]
    with contextlib.suppress(OSError):  # Perhaps no temporary folder is writable.
        places.append(Path(tempfile.gettempdir()) / f"vjepa-{uid}")
    if not places:
        raise VjepaError(
            "no temporary folder can be written; name one in TMPDIR, or a folder of your own in XDG_RUNTIME_DIR"
        )
    return places


def _is_private(runtime: Path, uid: int) -> bool:
    """Return whether a runtime folder fulfils its specification. After `su`, the variable names another user's."""
    try:
        found = runtime.stat()
    except OSError:
        return False
    return runtime.is_absolute() and found.st_uid == uid and not stat.S_IMODE(found.st_mode) & OTHERS


def _fault(path: Path, uid: int, expected: str) -> str:
    """Return why a path could not be opened as the `expected` kind; empty if the reason is unknown."""
    try:
        found = path.lstat()
    except OSError:
        return ""
    owner = _owner(found.st_uid)
    if stat.S_ISLNK(found.st_mode):
        return f"{path} is a symbolic link and belongs to {owner}; expected a {expected} of yours"
    if expected == "folder" and not stat.S_ISDIR(found.st_mode):
        return f"{path} is no folder and belongs to {owner}; expected a folder of yours"
    return f"{path} belongs to {owner}, not to you" if found.st_uid != uid else ""


def _owner(uid: int) -> str:
    """Return a user's name and id."""
    try:
        return f"user {pwd.getpwuid(uid).pw_name} (id {uid})"
    except KeyError:
        return f"the user with id {uid}"
