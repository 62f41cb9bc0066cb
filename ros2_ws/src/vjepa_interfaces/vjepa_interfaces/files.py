"""The one writer of files: a file is there whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; the file that the block writes there replaces `path` at the block's end.

    The folder is made if necessary. A block that fails or is interrupted leaves `path` unchanged, and no other file.
    The temporary name has the suffix of `path` and is unique to the process. A link, a pipe and a device, such as
    `/dev/stdout`, cannot be replaced: the block gets `path` itself.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() or (path.exists() and not path.is_file()):
        yield path
        return
    temporary = path.with_name(f".{secrets.token_hex(8)}-{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path | str, content: bytes | str, durable: bool = False) -> None:
    """Write `content` to `path` through `atomic_file`; text is encoded in UTF-8.

    Args:
        path: the file.
        content: the content of the whole file.
        durable: whether the content must survive a power cut. This waits for the disk.
    """
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        if durable:
            file.flush()
            os.fsync(file.fileno())
