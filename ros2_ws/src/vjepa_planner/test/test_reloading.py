"""Planners loaded anew with other options: off the path of the latents, and refused with the reason."""

import threading

import pytest

from vjepa_interfaces.errors import VjepaError
from vjepa_planner import reloading
from vjepa_planner.contract import PlannerContext
from vjepa_planner.reloading import LOADING, Reloader

CONTEXT = PlannerContext(action_size=2, control_period_s=0.02, device="cpu")


@pytest.fixture
def reloader():
    reloader = Reloader()
    yield reloader
    reloader.close()


def loaded(reloader: Reloader) -> None:
    """Wait until nothing is loading any more."""
    done = threading.Event()
    reloader._pool.submit(done.set)  # One thread, one thing after another.
    assert done.wait(60)


def test_nothing_is_ready_where_nothing_was_begun(reloader):
    assert reloader.ready("random") is None
    assert reloader.status() == {}


def test_a_planner_is_not_ready_while_it_loads_and_has_its_new_options_then(reloader, monkeypatch):
    real, gate = reloading.load_planner, threading.Event()

    def slow(*arguments):
        assert gate.wait(60)
        return real(*arguments)

    monkeypatch.setattr(reloading, "load_planner", slow)
    reloader.begin("expert-p", {"gain": 3.0}, CONTEXT)
    with pytest.raises(VjepaError, match="planner 'expert-p' is being loaded"):
        reloader.ready("expert-p")
    assert reloader.status() == {"expert-p": LOADING}
    gate.set()
    loaded(reloader)
    assert reloader.status() == {"expert-p": "loaded"}
    assert reloader.ready("expert-p").config.gain == 3.0
    reloader.taken("expert-p")
    assert reloader.ready("expert-p") is None


def test_one_that_does_not_load_is_refused_with_the_reason_until_it_is_begun_anew(reloader):
    reloader.begin("bc", {"bundle": "/nowhere"}, CONTEXT)
    loaded(reloader)
    for _ in range(2):
        with pytest.raises(VjepaError, match="no bundle at '/nowhere'"):
            reloader.ready("bc")
    assert "/nowhere" in reloader.status()["bc"]
    reloader.begin("bc", {"gain": 1.0}, CONTEXT)
    loaded(reloader)
    with pytest.raises(VjepaError, match="gain"):
        reloader.ready("bc")


def test_the_newest_options_count(reloader):
    for gain in (1.0, 2.0):
        reloader.begin("expert-p", {"gain": gain}, CONTEXT)
    loaded(reloader)
    assert reloader.ready("expert-p").config.gain == 2.0
