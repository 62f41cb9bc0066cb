"""The one reader and writer of JSON objects, in files and in messages of unknown origin.

A name that occurs twice in an object is refused, because Python would keep only the last one.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.files import write_atomically

MAX_BYTES = 16 * 1024 * 1024
"""The most bytes of a file; the description of a dataset made from ten thousand bags has fewer."""


def parse_json(text: str) -> dict[str, Any]:
    """Return the object in a JSON `text`.

    Raises:
        ValueError: the text is no JSON, no object, nested too deeply, or a name occurs twice in the same object. The
            message has the name.
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
        path: the file.
        error: the class of the error that is raised.
        remedy: what to do about a refused file, for the end of the message.

    Raises:
        VjepaError: of the class `error`: the file is missing, is larger than `MAX_BYTES`, or `parse_json` refuses it.
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
    """Write `content` as a JSON file, indented and with sorted names, whole or not at all."""
    write_atomically(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"'{name}' stands twice in the same object; keep the right one")
        found[name] = value
    return found
