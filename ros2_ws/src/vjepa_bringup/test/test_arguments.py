"""Types of command-line arguments."""

import argparse

import pytest

from vjepa_bringup import arguments as types


@pytest.mark.parametrize(
    ("divisor", "text", "value"), [(None, "12000", 12000), ("100", "12000", 120), ("1000", "60", 12)]
)
def test_tests_may_run_long_commands_on_less(monkeypatch, divisor, text, value):
    monkeypatch.delenv(types.TEST_DIVISOR, raising=False)
    if divisor:
        monkeypatch.setenv(types.TEST_DIVISOR, divisor)
    assert types.amount(text) == value


def test_what_is_little_stays_what_it_is(monkeypatch):
    monkeypatch.setenv(types.TEST_DIVISOR, "1000")
    assert types.amount("3") == 3


@pytest.mark.parametrize("text", ["0", "-1", "many"])
def test_an_amount_is_at_least_one(text):
    with pytest.raises(argparse.ArgumentTypeError):
        types.amount(text)
