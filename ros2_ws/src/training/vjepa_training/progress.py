"""Progress of work that takes long: a bar at the foot of a terminal, plain lines in a pipe or a file."""

import os
import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

REFRESH_S = 0.1
LINE_S = 2.0
"""Shortest time between two plain lines, but for the last one."""
TENTHS = 10


def terminal() -> Console | None:
    """Return a console for standard error where that is a terminal that can move its cursor, else None.

    The console has a file descriptor of its own and reaches the terminal also while descriptor 2 is redirected.
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
    """The progress of one phase of known or unknown length; a context.

    On a terminal it draws a bar, which it removes at the end; what is printed meanwhile appears above it. Elsewhere it
    writes a plain line to standard error at each tenth of the way, at most one every `LINE_S`, and one at the end.

    Attributes:
        done: units done so far.
        total: units in all; None while that is not known.
    """

    def __init__(self, what: str, unit: str, total: int | None = None, console: Console | None = None):
        """Begin.

        Args:
            what: the phase, such as `encoding`.
            unit: what is counted, such as `frames`.
            total: how many of them there are, where that is known.
            console: the terminal to draw on; by default standard error, where that is one.
        """
        self.done, self.total = 0, total
        self._what, self._unit = what, unit
        self._own = terminal() if console is None else None
        console = console or self._own
        self._began_s = self._shown_s = time.monotonic()
        self._tenths = 0
        self._bar = None
        if console is not None:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[unit]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[figures]}"),
            )
            self._bar = Bar(
                *columns,
                console=console,
                transient=True,
                auto_refresh=False,
                redirect_stdout=sys.stdout.isatty(),
                redirect_stderr=False,
            )
            self._task = self._bar.add_task(what, total=total, unit=unit, figures="")

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        elif kind is None and self.done:
            self._write("")
        if self._own:
            self._own.file.close()

    def advance(self, count: int = 1, figures: str = "") -> None:
        """Count `count` more units as done."""
        self.move_to(self.done + count, figures=figures)

    def move_to(self, done: int, total: int | None = None, figures: str = "") -> None:
        """Count `done` units as done.

        Args:
            done: units, from the beginning.
            total: units in all, where that is known by now.
            figures: what to show behind them, such as a loss.
        """
        self.done, self.total = done, self.total if total is None else total
        now = time.monotonic()
        if self._bar:
            self._bar.update(self._task, completed=done, total=self.total, figures=figures)
            if now - self._shown_s >= REFRESH_S:
                self._shown_s = now
                self._bar.refresh()
        elif self.total and done < self.total and now - self._shown_s >= LINE_S:
            tenths = TENTHS * done // self.total
            if tenths > self._tenths:
                self._tenths, self._shown_s = tenths, now
                self._write(figures)

    def _write(self, figures: str) -> None:
        """Write a plain line."""
        of = f" of {self.total}" if self.total else ""
        took = f"{time.monotonic() - self._began_s:.1f} s"
        text = f"{self._what}: {self.done}{of} {self._unit}, {took}"
        print(", ".join(filter(None, (text, figures))), file=sys.stderr, flush=True)
