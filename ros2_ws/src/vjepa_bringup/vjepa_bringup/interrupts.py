"""Interruption: SIGINT, SIGTERM and SIGHUP become one KeyboardInterrupt, raised only where it is safe."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Counts interruptions since `interruptible` began, and raises the first one at a safe place.

    An exception from a handler may arrive between two statements of a clean-up. So the handler raises at most once, and
    only inside `let_in`. All other code runs to its end, and may check `count`.

    Attributes:
        count: number of interruptions so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._open = False

    @contextlib.contextmanager
    def let_in(self) -> Iterator[None]:
        """Let the first interruption raise KeyboardInterrupt in the context, or at once if it came before.

        Raises:
            KeyboardInterrupt: the process was interrupted.
        """
        self._open = True
        try:
            if self.count:
                raise KeyboardInterrupt
            yield
        finally:
            self._open = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal. Python calls this method with the signal's number and the frame."""
        self.count += 1
        if self._open and self.count == 1:
            raise KeyboardInterrupt


@contextlib.contextmanager
def interruptible() -> Iterator[Interrupts]:
    """Handle SIGINT, SIGTERM and SIGHUP during the context. Only the main thread may call it.

    A shell lets background jobs ignore SIGINT. It is handled even then, so that `kill -INT` works. If SIGHUP is
    ignored, it remains ignored, as `nohup` requires.
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
    """Delay the handlers of these signals until the context has ended.

    It is for libraries that call Python back: they may replace or lose an exception of a handler. Only the main thread
    runs handlers, so the function does nothing in other threads.
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
