"""Texts of the command line that stand for other values."""

import pytest

from vjepa_cli import arguments as types


def test_episodes_are_numbers_and_ranges():
    assert types.numbers("0-2,7") == (0, 1, 2, 7)


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (types.numbers, "3-1", "1 is out of range; expected 3 to"),
        (types.numbers, "many", "'many' is not a whole number"),
        (types.domain, "233", "233 is out of range; expected 0 to 232"),
        (types.seconds, "0", "'0' is not a number of seconds above 0"),
        (types.setting, "depth", "'depth' is not NAME=NUMBER"),
        (types.names, "a,,b", "'a,,b' is not a list of names"),
    ],
)
def test_a_text_that_stands_for_nothing_is_refused(parse, text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)
