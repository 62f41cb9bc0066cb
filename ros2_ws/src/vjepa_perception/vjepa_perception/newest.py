"""A worker that processes only the newest item: no ROS, no torch."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class NewestWorker(Generic[Item]):
    """A thread that processes one item at a time. An idle worker starts at once; a busy one takes the newest item next.

    So a slow worker skips items, and never works on a queue of old ones.
    """

    def __init__(self, process: Callable[[Item], None], name: str) -> None:
        """Start the thread.

        Args:
            process: called in the thread for each item; it must not raise.
            name: name of the thread.
        """
        self._process = process
        self._changed = threading.Condition()
        self._newest: list[Item] = []
        self._is_open = True
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def offer(self, item: Item) -> bool:
        """Let the worker process `item` next, and return whether it replaces an item that still waited."""
        with self._changed:
            replaces = bool(self._newest)
            self._newest = [item]
            self._changed.notify()
        return replaces

    def close(self) -> None:
        """Wait until the item in progress is finished, and end the thread; an item that still waits is dropped."""
        with self._changed:
            self._is_open = False
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._newest or not self._is_open)
                if not self._is_open:
                    return
                item = self._newest.pop()
            self._process(item)
