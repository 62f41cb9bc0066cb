"""The one reader of JSON files: a name that stands twice in an object is refused, of which Python keeps the last."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vjepa_interfaces.files import write_atomically


def parse_json(text: str) -> Any:
    """Return the values in a JSON `text`.

    Raises:
        ValueError: it is no JSON, or a name stands twice in the same object; the message has the name.
        RecursionError: it is nested too deeply.
    """
    return json.loads(text, object_pairs_hook=_each_once)


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
