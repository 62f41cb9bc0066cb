"""Progress: a bar on a terminal, plain lines elsewhere."""

import io

import pytest
from rich.console import Console

from vjepa_training import progress as module
from vjepa_training.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_in_a_pipe_there_is_a_line_a_tenth_and_one_at_the_end(clock, capsys):
    with Progress("encoding", "frames", 100) as bar:
        for done in range(1, 101):
            clock[0] += 1.0
            bar.move_to(done, figures="loss 0.5" if done == 20 else "")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "encoding: 10 of 100 frames, 10.0 s"
    assert lines[1] == "encoding: 20 of 100 frames, 20.0 s, loss 0.5"
    assert lines[-1] == "encoding: 100 of 100 frames, 100.0 s"
    assert len(lines) == 10


def test_in_a_pipe_a_short_phase_has_one_line(clock, capsys):
    with Progress("encoding", "frames") as bar:
        bar.advance(7)
    assert capsys.readouterr().err == "encoding: 7 frames, 0.0 s\n"


def test_in_a_pipe_a_phase_that_failed_has_no_last_line(capsys):
    bar = Progress("encoding", "frames", 100)
    bar.advance(7)
    bar.stop(completed=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("width", [60, 80, 140])
def test_on_a_terminal_a_bar_fits_and_is_wiped_out(width, clock, capsys):
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    with Progress("encoding", "frames", 100, console) as bar:
        clock[0] += 1.0
        bar.move_to(40, figures="loss 0.5")
        drawn = console.file.getvalue().splitlines()[-1].rpartition("\x1b[2K")[2]
        assert drawn.startswith("encoding   ")
        assert "40 of 100 frames   loss 0.5" in drawn
        assert len(drawn) <= width
        assert ("█" in drawn) == (width > 60)
        assert "2 s left" in drawn
    assert console.file.getvalue().endswith("\x1b[2K")
    assert capsys.readouterr() == ("", "")
