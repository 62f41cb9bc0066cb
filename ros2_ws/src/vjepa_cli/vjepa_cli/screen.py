"""A block of lines at the foot of a terminal, which is redrawn in place below all other output."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from vjepa_bringup.interrupts import postponed
from vjepa_interfaces.environment import environment_of
from vjepa_training.progress import terminal

STDERR = 2
LAST_LINES_S = 1.0
"""The wait, after the block is gone, for output of processes that still run."""
PLAIN_WIDTH = 80


class Screen:
    """A block of lines at the foot of standard error's terminal; a context.

    While it lasts, output of this process and its children to standard error, also from C libraries, appears above the
    block. If standard error is no terminal, there is no block, and only `note` writes lines.
    """

    def __init__(self, console: Console | None = None):
        """Prepare the block.

        Args:
            console: terminal to draw on, while standard error stays unchanged; None for standard error's own terminal.
        """
        self._own = terminal() if console is None else None
        self._console = console or self._own
        self._live = Live(
            console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._context = contextlib.ExitStack()

    @property
    def width(self) -> int:
        """Columns of a line of the block."""
        return self._console.width if self._console else PLAIN_WIDTH

    def __enter__(self) -> Self:
        if self._console:
            self._live.start()
            self._context.callback(self._live.stop)
        if self._own:
            self._context.enter_context(_errors_above(self._own))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with postponed():
            self._context.close()
            if self._own:
                self._own.file.close()

    def show(self, *lines: str) -> None:
        """Draw the block. A line that is too wide is wrapped between words."""
        if self._console:
            with postponed():  # An interruption between two writes would leave the block in pieces.
                self._live.update(Text("\n".join(lines)), refresh=True)

    def note(self, line: str) -> None:
        """Write a plain line if there is no block."""
        if not self._console:
            print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _errors_above(console: Console) -> Iterator[None]:
    """Have `console`, whose file is another descriptor, print all output to file descriptor 2."""
    kept = os.dup(STDERR)
    reading, writing = os.pipe()
    os.dup2(writing, STDERR)
    os.close(writing)
    relay = threading.Thread(target=_relay, args=(reading, console), daemon=True)
    relay.start()
    # A node now writes into a pipe, for which it would omit its colours.
    colours = {} if console.no_color else {"RCUTILS_COLORIZED_OUTPUT": "1"}
    try:
        with environment_of(colours):
            yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, STDERR)
        os.close(kept)
        relay.join(LAST_LINES_S)


def _relay(reading: int, console: Console) -> None:
    """Print every line from a pipe until all of its writers have closed it."""
    with open(reading, encoding="utf-8", errors="replace") as lines, contextlib.suppress(ValueError, OSError):
        for line in lines:
            console.print(Text.from_ansi(line.rstrip("\n")), soft_wrap=True)
