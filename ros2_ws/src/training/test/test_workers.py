"""Work is done in several processes, each unit once, whatever happens to a process."""

import importlib
import os
from functools import partial
from pathlib import Path

import pytest

from vjepa_interfaces.errors import VjepaError
from vjepa_perception.encoder import EncoderConfig
from vjepa_training import workers as module
from vjepa_training.workers import default_workers, run_workers


@pytest.fixture
def works(monkeypatch):
    """The module `works`, at a path where processes find it too."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    return importlib.import_module("works")


def results(work, units, workers):
    """Return the result of each unit; none may come twice."""
    found = {}

    def on_result(unit, result):
        assert unit not in found
        found[unit] = result

    run_workers(work, units, workers, on_result, "try again")
    return found


def test_every_unit_is_done_once_and_they_are_divided_evenly(works):
    assert results(works.square, [3, 4, 5], 2) == {3: (0, 9), 4: (1, 16), 5: (0, 25)}
    assert results(works.square, [], 2) == {}


def test_a_worker_that_dies_is_replaced_by_one_that_does_the_rest(works, tmp_path):
    assert results(partial(works.die_once_at, 2, Path(tmp_path)), [1, 2, 3], 1) == {1: (0, 1), 2: (0, 4), 3: (0, 9)}
    assert (tmp_path / "died").exists()


@pytest.mark.slow
def test_a_worker_that_dies_while_it_sends_is_replaced_too(works, tmp_path):
    assert results(partial(works.die_once_while_sending, tmp_path), [1, 2], 1) == {1: 1, 2: 4}


def test_a_worker_that_dies_again_and_again_or_fails_is_named(works, monkeypatch):
    monkeypatch.setattr(module, "MAX_RESTARTS", 1)
    with pytest.raises(VjepaError, match=r"^worker 0 died 2 times, at last with exit status 7; try again$"):
        results(works.die, [1], 1)
    with pytest.raises(VjepaError, match=r"(?s)^worker 0 failed: Traceback.*ValueError: units \(1, 2\)"):
        results(works.fail, [1, 2], 1)


@pytest.mark.parametrize(
    ("threads", "gib_free", "expected"), [(1, 100, 8), (3, 100, 2), (0, 100, 1), (1, 3.5, 3), (1, 0, 1)]
)
def test_there_is_a_worker_for_each_core_as_threads_and_memory_allow(
    tiny_encoder, monkeypatch, threads, gib_free, expected
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.setattr("vjepa_perception.encoder.free_bytes", lambda device: int(gib_free * 2**30))
    assert default_workers(EncoderConfig(str(tiny_encoder), "cpu", clip_frames=4, grid=2, threads=threads)) == expected
    assert default_workers(None) == 8
