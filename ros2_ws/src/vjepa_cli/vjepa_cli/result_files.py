"""Files of results: a long run first checks that it can write them, and each is written whole or not at all."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.files import write_atomically


def require_writable(path: str) -> None:
    """Make the folder of a future result, and check that the result can be written.

    Raises:
        VjepaError: nothing can be written to `path`. This check prevents the failure after hours of episodes.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VjepaError(f"cannot make the folder of {path}: {error.strerror}; choose another file") from error
    if target.is_dir() or not os.access(target if target.exists() else target.parent, os.W_OK):
        reason = "it is a folder" if target.is_dir() else "permission denied"
        raise VjepaError(f"cannot write {path}: {reason}; choose another file")


def write_result(path: str, result: Mapping[str, Any]) -> None:
    """Write a result whole or not at all; numbers that are not finite, which JSON lacks, become null."""
    write_atomically(path, json.dumps(_without_nan(result), indent=1, allow_nan=False) + "\n")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
