"""Which planners may drive, and why others may not; with new options they load off the path of the latents."""

import threading

import pytest

from vjepa_interfaces.errors import VjepaError
from vjepa_planner import planner_pool
from vjepa_planner.contract import PlannerContext
from vjepa_planner.planner_pool import LOADING, PlannerPool

CONTEXT = PlannerContext(action_size=2, control_period_s=0.02)


@pytest.fixture
def pool():
    pool = PlannerPool()
    pool.load("expert-p", {"gain": 1.0}, CONTEXT)
    with pytest.raises(VjepaError, match="no bundle at '/nowhere'"):
        pool.load("bc", {"bundle": "/nowhere"}, CONTEXT)
    yield pool
    pool.close()


def wait_for_reload(pool: PlannerPool) -> None:
    """Wait until nothing is loading any more."""
    done = threading.Event()
    pool._thread.submit(done.set)  # One thread, one thing after another.
    assert done.wait(60)


def gain_of(pool: PlannerPool) -> float:
    return pool.loaded["expert-p"].config.gain


def test_a_planner_that_is_not_loaded_is_refused_with_the_reason(pool):
    pool.check("expert-p", None)
    with pytest.raises(VjepaError, match=r"unknown planner 'teleport'.*expert-p"):
        pool.check("teleport", None)
    with pytest.raises(VjepaError, match=r"'bc' is not ready: .*/nowhere"):
        pool.check("bc", None)


def test_a_planner_of_another_encoder_is_refused(pool):
    pool.loaded["expert-p"].encoder_fingerprint = "mine"
    pool.check("expert-p", {"fingerprint": "mine"})
    with pytest.raises(VjepaError, match="expects latents of encoder mine"):
        pool.check("expert-p", {"fingerprint": "other"})


def test_new_options_count_once_they_are_loaded_and_the_planner_is_renewed(pool, monkeypatch):
    assert not pool.renew("expert-p")
    real, gate = planner_pool.load_planner, threading.Event()

    def slow(*arguments):
        assert gate.wait(60)
        return real(*arguments)

    monkeypatch.setattr(planner_pool, "load_planner", slow)
    pool.reload("expert-p", {"gain": 3.0}, CONTEXT)
    for refuses in (pool.renew, lambda name: pool.check(name, None)):
        with pytest.raises(VjepaError, match="planner 'expert-p' is being loaded"):
            refuses("expert-p")
    assert pool.status()["new options: expert-p"] == LOADING
    gate.set()
    wait_for_reload(pool)
    assert pool.status()["new options: expert-p"] == "loaded"
    assert gain_of(pool) == 1.0
    assert pool.renew("expert-p")
    assert gain_of(pool) == 3.0
    assert not pool.renew("expert-p"), "it is in use"


def test_new_options_that_do_not_load_are_refused_with_the_reason_until_there_are_others(pool):
    pool.reload("expert-p", {"gain": "much"}, CONTEXT)
    wait_for_reload(pool)
    for _ in range(2):
        with pytest.raises(VjepaError, match="gain"):
            pool.renew("expert-p")
    assert "gain" in pool.status()["new options: expert-p"]
    assert pool.failures()[0].startswith("planner 'expert-p' did not load with its new options: ")
    for gain in (2.0, 4.0):
        pool.reload("expert-p", {"gain": gain}, CONTEXT)
    wait_for_reload(pool)
    assert pool.renew("expert-p")
    assert gain_of(pool) == 4.0, "the newest options count"


def test_options_are_checked_for_planners_that_are_loaded(pool):
    with pytest.raises(VjepaError, match="gain"):
        pool.check_options("expert-p", {"gain": "much"})
    pool.check_options("bc", {"gain": "much"})


def test_its_status_names_every_planner_and_once_closed_it_has_none(pool):
    assert pool.status()["ready"] == "expert-p"
    assert "/nowhere" in pool.status()["not ready: bc"]
    pool.close()
    assert pool.loaded == pool.unready == {}
