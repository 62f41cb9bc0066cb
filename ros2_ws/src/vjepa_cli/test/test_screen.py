"""The foot of a terminal: drawn in its place, below everything else; plain lines where there is no terminal."""

import io
import os
import pty
import re
import subprocess
import sys

import pytest
from rich.console import Console

from vjepa_cli.screen import Screen

CONTROL = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


def seen(written: str) -> list[str]:
    """Return the lines that a terminal shows after what was written to it; one that is high and wide enough."""
    lines, row, column = [""], 0, 0
    for amount, code, move, text in CONTROL.findall(written):
        if text:
            lines[row] = lines[row][:column].ljust(column) + text + lines[row][column + len(text) :]
            column += len(text)
        elif move == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif move == "\r":
            column = 0
        elif code == "A":
            row -= int(amount or 1)
        elif code == "K":
            assert amount == "2", "only whole lines are wiped out here"
            lines[row] = ""
    return [line.rstrip() for line in lines if line.strip()]


def console(width: int) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, highlight=False)


@pytest.mark.parametrize("width", [60, 80, 140])
def test_a_block_is_drawn_in_place_of_the_one_before_and_leaves_nothing(width):
    fake = console(width)
    with Screen(fake) as screen:
        assert screen.width == width
        screen.show("one", "two")
        assert seen(fake.file.getvalue()) == ["one", "two"]
        screen.show("three")
        assert seen(fake.file.getvalue()) == ["three"]
        screen.note("a line for pipes")
        fake.print("[WARN] a node")
        assert seen(fake.file.getvalue()) == ["[WARN] a node", "three"]
    assert seen(fake.file.getvalue()) == ["[WARN] a node"]


def test_markup_in_a_message_is_shown_as_it_is():
    fake = console(60)
    with Screen(fake) as screen:
        screen.show("[red]no colour[/red]")
        assert seen(fake.file.getvalue()) == ["[red]no colour[/red]"]


def test_elsewhere_than_on_a_terminal_there_are_plain_lines_alone(capsys):
    with Screen() as screen:
        screen.show("one")
        screen.note("two")
    assert capsys.readouterr() == ("", "two\n")


PROGRAM = """
import os, subprocess, sys
from vjepa_cli.screen import Screen
with Screen() as screen:
    screen.show("the block")
    subprocess.run([sys.executable, "-c", "import os; os.write(2, b'from a child ' + b'x' * 300 + bytes([10]))"])
    os.write(2, b"from a library\\n")
    print("from Python", file=sys.stderr)
    screen.show("the block, again")
    os.write(2, b"no end of line")
print("after it", file=sys.stderr)
"""


@pytest.mark.parametrize("variables", [{}, {"TERM": "dumb"}], ids=str)
def test_what_processes_write_appears_above_the_block_whole(variables):
    ours, theirs = pty.openpty()
    program = subprocess.Popen(
        [sys.executable, "-P", "-c", PROGRAM], stderr=theirs, env={**os.environ, "TERM": "xterm", **variables}
    )
    os.close(theirs)
    written = b""
    try:
        while piece := os.read(ours, 1 << 16):
            written += piece
    except OSError:  # The other end is closed.
        pass
    assert program.wait() == 0
    shown = seen(written.decode())
    if "TERM" in variables:
        assert b"\x1b" not in written
    order = [f"from a child {'x' * 300}", "from a library", "from Python", "no end of lineafter it"]
    assert shown == (order if "TERM" in variables else [*order[:3], "no end of line", "after it"])
    assert (b"the block, again" in written) == ("TERM" not in variables)
