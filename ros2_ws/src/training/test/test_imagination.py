"""What was imagined is compared with what happened so many steps later in the same episode."""

import numpy as np
import pytest

from sim_bridge.score import Episode
from vjepa_planner.contract import Imagined
from vjepa_training.evaluation.imagination import compare_with_what_happened
from vjepa_training.evaluation.score import PROTOCOLS, summarise

STEPS, PREDICTIONS, SPEED = 4, 3, 0.01
FRAMES = 41


def way(off_by: float = 0.0, frames: int = FRAMES):
    """An episode that nears its target evenly, imagined too near by `off_by` a prediction."""
    distances = [1.0 - SPEED * frame for frame in range(frames)]
    ahead = np.arange(PREDICTIONS + 1)
    return distances, [Imagined(now - (SPEED * STEPS + off_by) * ahead, STEPS) for now in distances[:-1]]


def test_a_right_model_is_off_by_nothing_and_no_change_by_the_way_made():
    found = compare_with_what_happened([way()])["ahead"]
    assert [entry["steps"] for entry in found] == [0, 4, 8, 12]
    for entry in found:
        assert entry["rmse"] == pytest.approx(0.0, abs=1e-12)
        assert entry["no_change_rmse"] == pytest.approx(SPEED * entry["steps"])
        assert entry["imagined"] == pytest.approx(entry["happened"])


def test_a_wrong_model_is_off_by_as_much_as_it_is_wrong():
    found = compare_with_what_happened([way(0.02)])["ahead"]
    for prediction, entry in enumerate(found):
        assert entry["rmse"] == pytest.approx(0.02 * prediction)
        assert entry["happened"] - entry["imagined"] == pytest.approx(0.02 * prediction)


def test_plans_that_the_end_overtakes_or_that_imagine_nothing_are_left_out():
    distances, plans = way()
    found = compare_with_what_happened([(distances, [*plans[:10], None, *plans[11:]]), way(frames=6)])["ahead"]
    assert [entry["count"] for entry in found] == [39 + 5, 36 + 2, 32, 28]
    assert all(entry["rmse"] == pytest.approx(0.0, abs=1e-12) for entry in found)


def test_the_middle_episode_is_not_carried_off_by_one_gone_wrong():
    last = compare_with_what_happened([way(0.3), way(0.01), way()])["ahead"][-1]
    assert last["median_rmse"] == pytest.approx(0.03)
    assert last["rmse"] == pytest.approx(np.sqrt((0.9**2 + 0.03**2) / 3))


def test_the_examples_are_the_middle_episode_and_the_one_most_off():
    middle, greatest = compare_with_what_happened([way(), way(0.3), way(0.01)])["examples"]
    assert (middle["which"], middle["episode"]) == ("middle", 2)
    assert (greatest["which"], greatest["episode"]) == ("greatest", 1)
    assert (middle["steps"], middle["every"]) == (4, 8)
    assert middle["happened"] == pytest.approx(way()[0][::4])
    assert middle["imagined"][1] == pytest.approx(0.92 - 0.05 * np.arange(4))
    assert len(middle["imagined"]) == 5


def test_an_only_episode_is_one_example():
    (example,) = compare_with_what_happened([way()])["examples"]
    assert example["which"] == "middle"


def test_a_result_has_it_where_something_was_imagined_and_only_there():
    distances, imagined = way()
    told = Episode(0.0, FRAMES - 1, False, False, True, distances=distances, imagined=list(imagined))
    silent = Episode(0.0, FRAMES - 1, False, False, True, distances=distances, imagined=[None] * (FRAMES - 1))
    assert summarise([told], PROTOCOLS["short"])["imagined"] == compare_with_what_happened([way()])
    assert "imagined" not in summarise([silent], PROTOCOLS["short"])
