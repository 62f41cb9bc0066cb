"""Interruption: SIGINT, SIGTERM and SIGHUP become one KeyboardInterrupt, raised only where it does no harm."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """How often this process was interrupted since `interruptible` began, and where that may be felt.

    A handler that raises anywhere can undo no clean-up safely: the exception may fall between two statements. So it
    raises once at most, and only inside `let_in`; everything else runs to its end, and may look at `count`.

    Attributes:
        count: interruptions so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._open = False

    @contextlib.contextmanager
    def let_in(self) -> Iterator[None]:
        """Let the first interruption raise KeyboardInterrupt in the context: at once, where it came before.

        Raises:
            KeyboardInterrupt: as said.
        """
        self._open = True
        try:
            if self.count:
                raise KeyboardInterrupt
            yield
        finally:
            self._open = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Take a signal, as Python calls its handlers."""
        self.count += 1
        if self._open and self.count == 1:
            raise KeyboardInterrupt


@contextlib.contextmanager
def interruptible() -> Iterator[Interrupts]:
    """Take SIGINT, SIGTERM and SIGHUP while the context lasts; for the main thread.

    SIGINT is taken even where a shell has a job in the background ignore it, or `kill -INT` would do nothing there;
    SIGHUP is left ignored where it is, for that is what `nohup` asks for.
    """
    interrupts = Interrupts()
    under_nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    taken = [number for number in NUMBERS if not (under_nohup and number == signal.SIGHUP)]
    previous = {number: signal.signal(number, interrupts.handle) for number in taken}
    try:
        yield interrupts
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def postponed() -> Iterator[None]:
    """Call what handles these signals only when the context has ended, as long as that takes.

    For calls into libraries that call Python back: an exception of a handler would come out of them as another one, or
    not at all. Other threads than the main one never run a handler, and nothing is done there.
    """
    arrived = []
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: handler for number in NUMBERS if callable(handler := signal.getsignal(number))}
    for number in handlers:
        signal.signal(number, lambda *signalled: arrived.append(signalled))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number, frame in arrived:
            handlers[number](number, frame)
