"""Joining several topics by stamp, as their messages come: a row is complete when each topic has given its value."""

from collections.abc import Iterable
from typing import Any


class Rows:
    """Rows of values by stamp, from topics whose stamps come in order and may be repeated.

    A row without the value of a topic is dropped when that topic gives a later stamp. Only a restarted source goes back
    in time; the waiting rows from before it are then dropped.
    """

    def __init__(self, names: Iterable[str]):
        self._names = tuple(names)
        self._waiting: dict[int, dict[str, Any]] = {}
        self._newest = dict.fromkeys(self._names, 0)

    def add(self, stamp_ns: int, name: str, value: Any) -> list[tuple[int, dict[str, Any]]]:
        """Add the value of a topic, and return the completed rows.

        Args:
            stamp_ns: stamp of the value, nanoseconds above 0.
            name: the topic's name in the rows.
            value: any object.

        Returns:
            Stamp and values by topic name of each completed row, the earliest first.
        """
        if stamp_ns < self._newest[name]:
            self._waiting.clear()
            self._newest = dict.fromkeys(self._names, stamp_ns)
        self._newest[name] = stamp_ns
        self._waiting.setdefault(stamp_ns, {})[name] = value
        whole = []
        while self._waiting:
            first = min(self._waiting)
            row = self._waiting[first]
            missing = [name for name in self._names if name not in row]
            if any(self._newest[name] <= first for name in missing):
                break
            del self._waiting[first]
            if not missing:
                whole.append((first, row))
        return whole
