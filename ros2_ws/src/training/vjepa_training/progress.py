"""Show the progress of long work: a bar at the foot of a terminal, plain lines in a pipe or a file."""

import os
import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from vjepa_training.fields import Field, bar, fitted

REFRESH_S = 0.1
LINE_S = 2.0
"""Shortest time between two plain lines, seconds, except for the last line."""
TENTHS = 10


def terminal() -> Console | None:
    """Return a console for standard error if that is a terminal that can move its cursor, else None.

    The console has its own file descriptor and reaches the terminal even while descriptor 2 is redirected.
    """
    if not sys.stderr.isatty():
        return None
    file = os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding)
    console = Console(file=file, force_terminal=True, highlight=False)
    if console.is_interactive:
        return console
    file.close()
    return None


class Progress:
    """The progress of one phase of known or unknown length, as a context.

    On a terminal it draws a bar and removes it at the end; text printed meanwhile appears above it. Elsewhere it writes
    a plain line to standard error at each tenth of the work, at most one every `LINE_S`, and one at the end.

    Attributes:
        done: units done so far.
        total: all units; None while unknown.
    """

    def __init__(self, what: str, unit: str, total: int | None = None, console: Console | None = None):
        """Prepare the progress, without drawing it.

        Args:
            what: the phase, such as `encoding`.
            unit: the unit counted, such as `frames`.
            total: number of units, if known.
            console: the terminal to draw on; by default standard error, if that is a terminal.
        """
        self.done, self.total = 0, total
        self._what, self._unit = what, unit
        self._own = terminal() if console is None else None
        console = console or self._own
        self._began_s = self._shown_s = time.monotonic()
        self._tenths = 0
        self._live = None
        if console is not None:
            above = sys.stdout.isatty()
            self._live = Live(
                console=console, auto_refresh=False, transient=True, redirect_stdout=above, redirect_stderr=False
            )

    def __enter__(self) -> Self:
        return self.start()

    def start(self) -> Self:
        """Start to draw, and return this object."""
        if self._live:
            self._live.start()
            self._draw("")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(completed=kind is None)

    def stop(self, completed: bool = True) -> None:
        """Stop drawing; `completed` is false after a failure."""
        if self._live:
            self._live.stop()
        elif completed and self.done:
            self._write("")
        if self._own:
            self._own.file.close()

    def advance(self, count: int = 1, figures: str = "") -> None:
        """Count `count` more units as done."""
        self.move_to(self.done + count, figures=figures)

    def move_to(self, done: int, total: int | None = None, figures: str = "") -> None:
        """Set the number of units that are done.

        Args:
            done: units done since the beginning.
            total: all units, if known by now.
            figures: text to show behind them, such as a loss.
        """
        self.done, self.total = done, self.total if total is None else total
        now = time.monotonic()
        if self._live:
            if now - self._shown_s >= REFRESH_S:
                self._shown_s = now
                self._draw(figures)
        elif self.total and done < self.total and now - self._shown_s >= LINE_S:
            tenths = TENTHS * done // self.total
            if tenths > self._tenths:
                self._tenths, self._shown_s = tenths, now
                self._write(figures)

    def _draw(self, figures: str) -> None:
        """Draw the bar over the whole width of the terminal."""
        assert self._live is not None
        elapsed_s = time.monotonic() - self._began_s
        fields = [
            Field(self._what),
            Field(self._count(), rank=1),
            Field(figures, rank=2),
            Field(f"{elapsed_s:.0f} s", 4),
        ]
        if self.total and self.done:
            fields.append(Field(f"{elapsed_s * (self.total - self.done) / self.done:.0f} s left", rank=3))
        if self.total:
            fields.insert(1, Field(bar(self.done / self.total), rank=4))
        shown = [field for field in fields if field.text]
        self._live.update(Text(fitted(shown, self._live.console.width), no_wrap=True), refresh=True)

    def _count(self) -> str:
        of = f" of {self.total}" if self.total else ""
        return f"{self.done}{of} {self._unit}"

    def _write(self, figures: str) -> None:
        """Write a plain line."""
        text = f"{self._what}: {self._count()}, {time.monotonic() - self._began_s:.1f} s"
        print(", ".join(filter(None, (text, figures))), file=sys.stderr, flush=True)
