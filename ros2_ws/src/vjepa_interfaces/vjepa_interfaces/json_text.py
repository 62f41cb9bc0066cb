"""The one reader of JSON files: a name that stands twice in an object is refused, of which Python keeps the last."""

import json
from typing import Any


def parse_json(text: str) -> Any:
    """Return the values in a JSON `text`.

    Raises:
        ValueError: it is no JSON, or a name stands twice in the same object; the message has the name.
        RecursionError: it is nested too deeply.
    """
    return json.loads(text, object_pairs_hook=_each_once)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"'{name}' stands twice in the same object; keep the right one")
        found[name] = value
    return found
