"""The one reader and writer of JSON objects, in files and in messages, from people unknown.

A name that stands twice in an object is refused: Python keeps the last one.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.files import write_atomically

MAX_BYTES = 16 * 1024 * 1024
"""Of a file: the description of a dataset made of ten thousand bags has fewer."""


def parse_json(text: str) -> dict[str, Any]:
    """Return the object in a JSON `text`.

    Raises:
        ValueError: it is no JSON, no object, nested too deeply, or a name stands twice in the same object; the message
            has the name.
    """
    try:
        found = json.loads(text, object_pairs_hook=_each_once)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError(f"it holds a {type(found).__name__}; expected a JSON object")
    return found


def read_json(path: Path | str, error: type[VjepaError] = VjepaError, remedy: str = "") -> dict[str, Any]:
    """Return the object in the JSON file `path`, which is in UTF-8.

    Args:
        path: of the file.
        error: the kind of error that is raised.
        remedy: what to do about a file that is refused, for the end of the message.

    Raises:
        VjepaError: of the kind `error`: no such file, one of more than `MAX_BYTES`, or one that `parse_json` refuses.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError(f"it is too large; expected at most {MAX_BYTES} bytes")
        return parse_json(content.decode("utf-8"))
    except (OSError, ValueError) as reason:
        raise error(f"{path} is not readable JSON: {reason}{remedy and f'; {remedy}'}") from reason


def write_json(path: Path | str, content: Mapping[str, Any]) -> None:
    """Write `content` as a JSON file, indented and with its names in order, whole or not at all."""
    write_atomically(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"'{name}' stands twice in the same object; keep the right one")
        found[name] = value
    return found
