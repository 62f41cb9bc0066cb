"""Figures of a training are put into words that need no explanation."""

from vjepa_training.trainers.training_words import against_constant, end_of_round, open_loop_line


def test_an_error_is_compared_with_that_of_a_constant():
    assert against_constant(0.0765, 0.7915) == "0.0765, 90 % below a constant's 0.7915"
    assert against_constant(0.9304, 0.8587) == "worse than a constant: 0.9304 against 0.8587"
    assert against_constant(float("nan"), 0.8587).startswith("worse than a constant")


def test_a_round_that_stopped_early_tells_why():
    entries = [{"validation": 0.5}, {"validation": 0.25}] + [{"validation": 0.3}] * 14
    assert end_of_round(entries, 400, 12) == "stopped at epoch 16 of 400: no better for 12; validation 0.2500"
    assert end_of_round(entries, 16, 12) == "all 16 epochs; validation 0.2500"


def test_an_open_loop_error_stands_beside_that_of_no_change():
    line = open_loop_line({"steps": 10, "state": 0.12, "no_change_state": 0.9, "metres": 0.01, "no_change_metres": 0.2})
    assert line == (
        "10 steps ahead it is off by 0.12 standard deviations (0.9 if nothing changed), 0.01 m (0.2 if nothing changed)"
    )
