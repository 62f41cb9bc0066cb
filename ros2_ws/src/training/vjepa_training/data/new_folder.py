"""Create a folder completely or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vjepa_training.data.dataset import DatasetError


@contextmanager
def new_folder(folder: Path | str) -> Iterator[Path]:
    """Yield an unused path beside `folder`; at the end of the block, it is renamed to `folder`.

    A block that fails or is interrupted leaves nothing.

    Raises:
        DatasetError: `folder` exists or cannot be written.
    """
    folder = Path(folder).expanduser()
    if folder.exists() or folder.is_symlink():
        raise DatasetError(f"{folder} exists already; choose another folder, or delete it first")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            making = Path(temporary) / folder.name
            yield making
            os.rename(making, folder)
    except OSError as error:
        raise DatasetError(f"{folder} cannot be written: {error}; check its free space and its permissions") from error
