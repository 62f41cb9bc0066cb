"""Whether a candidate is better than an incumbent, paired over seeds."""

import pytest

from vjepa_interfaces.errors import VjepaError
from vjepa_training.evaluation.comparison import SAME, compare, require_held_out


def result(*returns: float, **changed):
    alike = dict.fromkeys(SAME, "the same")
    return {**alike, "episodes": len(returns), "returns": list(returns), **changed}


def test_the_difference_is_the_mean_over_seeds_and_better_only_above_nought():
    assert compare(result(1, 2, 6), result(2, 4, 6)).difference == pytest.approx(1.0)
    assert compare(result(1, 2, 6), result(2, 4, 6)).better
    assert not compare(result(2, 4, 6), result(1, 2, 6)).better
    assert not compare(result(2, 4, 6), result(6, 4, 2)).better, "as good is not better"


def test_pairing_takes_out_what_seeds_differ_in():
    hard_and_easy = [0.0, 50.0, 100.0, 150.0, 200.0]
    comparison = compare(result(*hard_and_easy), result(*(value + 3 for value in hard_and_easy)))
    assert comparison.interval_95 == pytest.approx((3, 3))


def test_the_interval_holds_the_difference_and_is_wider_where_seeds_disagree():
    comparison = compare(result(0, 0, 0, 0, 0, 0), result(5, 5, 5, -1, 5, 5))
    low, high = comparison.interval_95
    assert comparison.difference == pytest.approx(4.0)
    assert low < 4 <= high
    assert high - low > 1


@pytest.mark.parametrize("name", SAME)
def test_results_of_other_episodes_are_not_compared(name):
    with pytest.raises(VjepaError, match=f"cannot be paired: .*{name} .*; evaluate both on equal episodes"):
        compare(result(1, 2), result(1, 2, **{name: "another"}))


def test_no_candidate_is_better_than_returns_that_are_not_numbers():
    assert not compare(result(float("nan")), result(1)).better


@pytest.mark.parametrize("seed", [95, 100, 109])
@pytest.mark.parametrize(
    "source", [{"seed": 100, "episodes": 10}, {"recorded_with": {"seed": "100"}, "episodes": 10}], ids=["sim", "bag"]
)
def test_seeds_that_the_data_has_are_not_held_out(source, seed):
    with pytest.raises(VjepaError, match="choose seeds outside 100 to 109"):
        require_held_out([{"command": "of a test"}, source], seed, 6)


@pytest.mark.parametrize("seed", [94, 110])
def test_seeds_beside_those_of_the_data_are_held_out(seed):
    require_held_out([{"seed": 100, "episodes": 10}, {"recorded_with": {}, "episodes": 10}], seed, 6)
