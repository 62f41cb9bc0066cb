"""Types of command-line arguments."""

import argparse

import pytest

from vjepa_cli import arguments as types


def test_a_number_is_what_was_typed_whatever_the_environment_holds(monkeypatch):
    monkeypatch.setenv("VJEPA_TEST_DIVISOR", "1000")
    assert types.positive("12000") == 12000


@pytest.mark.parametrize("text", ["0", "-1", "many"])
def test_a_positive_number_is_at_least_one(text):
    with pytest.raises(argparse.ArgumentTypeError):
        types.positive(text)
