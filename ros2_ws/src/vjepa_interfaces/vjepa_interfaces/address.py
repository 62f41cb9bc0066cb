"""Camera sources that contain a password: read from a private place, and shown without the password.

Each maker of cameras puts user, password or token into another part of the address. So only the scheme and the host of
an address are shown. Pure Python: no ROS, no OpenCV.
"""

import os
import re
import stat
from pathlib import Path
from urllib.parse import unquote

from vjepa_interfaces.errors import VjepaError

HIDDEN = "***"
FROM_ENVIRONMENT, FROM_FILE = "env:", "@"
"""The beginning of a reference to a source: an environment variable, or a file."""
MAX_LENGTH = 4096

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*", re.ASCII)
_LOCAL = re.compile(r"file://(localhost)?/", re.ASCII | re.IGNORECASE)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(:\d*)?", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_PLAIN = re.compile(r"[^:@?&=]*")


def shown(source: str) -> str:
    """Return a source in the form that may be shown: scheme and host of an address, or its harmless part.

    A device, an existing file and a reference are shown unchanged; of a `file://` address the path is shown.
    """
    if is_local(source):
        return str(local_path(source))
    if is_reference(source):
        marker, name = _split(source)
        is_name = "://" not in name if marker == FROM_FILE else _VARIABLE.fullmatch(name)
        return source if is_name else marker + HIDDEN
    if is_device(source):
        return source
    scheme, separator, rest = source.partition("://")
    if separator:
        return f"{scheme}://{_host_of(rest)}" if _SCHEME.fullmatch(scheme) else HIDDEN
    plain = _PLAIN.match(source)
    if plain is None or plain.group() == source or _is_file(source):
        return source
    return HIDDEN if "@" in source else plain.group() + HIDDEN  # Such as rtsp:/ or no scheme at all.


def is_local(source: str) -> bool:
    """Return whether a source is the address of a file on this machine: `file:///PATH` or `file://localhost/PATH`."""
    return local_path(source) != Path(source)


def local_path(source: str) -> Path:
    """Return the path of a `file://` address on this machine, escapes such as %20 resolved, or of any other file."""
    found = _LOCAL.match(source)
    if found is None:
        return Path(source)
    path = source[found.end() - 1 :]
    return Path(path if _is_file(path) else unquote(path))


def is_device(source: str) -> bool:
    """Return whether a source is a V4L2 device: a number or a path in /dev."""
    return source.isdigit() or source.startswith("/dev/")


def _host_of(rest: str) -> str:
    """Return the host from the text after the scheme; hidden if it could be a user or a password."""
    authority = re.split(r"[/?#\\]", rest, maxsplit=1)[0]
    host = _HOST.fullmatch(authority.rpartition("@")[2])
    return host[1] if host and "@" not in rest[len(authority) :] else HIDDEN


def _is_file(source: str) -> bool:
    try:
        return Path(source).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):
        return False


def without_address(text: str, source: str) -> str:
    """Return another program's message about a source, or a note in its place if it repeats a hidden part."""
    scheme, _, rest = source.partition("://")
    harmless = {scheme, _host_of(rest)} if rest else set()
    parts = {part for part in re.split(r"[/?#&=:@;,\\]+", source) if part} - harmless
    parts |= {unquote(part) for part in parts}
    if shown(source) != source and any(part in text for part in {source, *parts}):
        return "its message repeats the address and is left out"
    return text


def is_reference(source: str) -> bool:
    """Return whether a source is a reference to the source."""
    return source.startswith((FROM_ENVIRONMENT, FROM_FILE))


def read_source(source: str) -> str:
    """Return the device, file or address that a source names: the source itself, unless it is a reference.

    Args:
        source: `env:NAME` for the content of the environment variable NAME, `@PATH` for the only line of a file.
            Anything else is returned unchanged.

    Raises:
        VjepaError: the variable or file does not exist, is empty, or has more than one line or 4096 characters. The
            message never contains the content.
    """
    if not is_reference(source):
        return source
    marker, name = _split(source)
    if not name:
        raise VjepaError(f"'{marker}' names nothing; expected env:NAME or @PATH, where the camera's source is found")
    if marker == FROM_FILE:
        where, text = f"file {shown(source)[1:]}", _line_of(name, shown(source)[1:])
    else:
        if not _VARIABLE.fullmatch(name):
            raise VjepaError(f"'{shown(source)}' names no environment variable; expected env:NAME, such as env:CAMERA")
        where, text = f"environment variable {name}", os.environ.get(name, "")
        if not text:
            raise VjepaError(
                f"environment variable {name}, which is to hold the camera's source, is not set where the node "
                f"`camera` was started; export {name} there, or name a file: @PATH"
            )
    found = text.strip()
    if not found or len(found) > MAX_LENGTH or not found.isprintable():
        raise VjepaError(f"{where} holds no source of a camera; expected one line of at most {MAX_LENGTH} characters")
    return found


def _split(source: str) -> tuple[str, str]:
    """Return a reference's marker, and the name after it."""
    marker = FROM_FILE if source.startswith(FROM_FILE) else FROM_ENVIRONMENT
    return marker, source.removeprefix(marker)


def _line_of(name: str, displayed: str) -> str:
    """Return the beginning of a file. A FIFO is refused: it may block its reader, and it gives its text only once."""
    try:
        descriptor = os.open(Path(name).expanduser(), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "no such name"
        raise VjepaError(
            f"file {displayed}, which is to hold the camera's source, cannot be read: {reason}; expected a file with "
            "the address in its only line, which the node `camera` may read"
        ) from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise VjepaError(f"file {displayed}, which is to hold the camera's source, is no regular file")
        return os.read(descriptor, MAX_LENGTH + 2).decode("utf-8", errors="replace")
    finally:
        os.close(descriptor)
