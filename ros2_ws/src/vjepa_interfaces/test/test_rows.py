"""Values that belong to one stamp meet, whatever order their topics arrive in, and nothing waits for ever."""

import itertools

import pytest

from vjepa_interfaces.rows import Rows


def whole(rows: Rows, *values: tuple[int, str, str]) -> list[int]:
    """The stamps of the rows completed by giving `values`, having checked what is in them."""
    stamps = []
    for stamp, name, value in values:
        for done, row in rows.add(stamp, name, value):
            assert row == {"a": f"a{done}", "b": f"b{done}"}
            stamps.append(done)
    return stamps


def value(name: str, stamp: int) -> tuple[int, str, str]:
    return stamp, name, f"{name}{stamp}"


ORDERS = [order for order in itertools.permutations("aaabbb") if order.count("a") == 3]


@pytest.mark.parametrize("order", sorted(set(ORDERS)))
def test_rows_come_whole_and_in_order_however_the_topics_interleave(order):
    stamps = {"a": iter((1, 2, 3)), "b": iter((1, 2, 3))}
    assert whole(Rows("ab"), *(value(name, next(stamps[name])) for name in order)) == [1, 2, 3]


def test_a_row_that_lost_a_value_is_given_up_and_holds_nothing_up():
    rows = Rows("ab")
    assert whole(rows, value("a", 1), value("a", 2), value("b", 2)) == [2]
    assert whole(rows, value("a", 3), value("b", 3)) == [3]


def test_the_last_row_of_a_run_does_not_wait_for_one_that_lost_a_value():
    rows = Rows("ab")
    assert whole(rows, value("b", 1), value("b", 2), value("a", 2)) == [2]


def test_a_repeated_row_comes_again_for_the_reader_to_ignore_and_harms_no_other():
    rows = Rows("ab")
    assert whole(rows, value("a", 1), value("b", 1), value("a", 1), value("b", 1)) == [1, 1]
    assert whole(rows, value("a", 2), value("a", 2), value("b", 2)) == [2]
    assert whole(rows, value("b", 2), value("b", 3), value("a", 3)) == [3]


def test_a_source_that_starts_again_is_followed():
    rows = Rows("ab")
    assert whole(rows, value("a", 8), value("b", 8), value("a", 9)) == [8]
    assert whole(rows, value("a", 1), value("b", 1), value("b", 2), value("a", 2)) == [1, 2]


def test_what_waits_from_before_a_start_again_is_not_mixed_with_what_follows():
    rows = Rows("ab")
    assert whole(rows, value("a", 1), value("b", 1), value("b", 2), value("a", 2)) == [1, 2]
    assert whole(rows, (3, "a", "of the first life")) == []
    assert whole(rows, value("b", 1), value("a", 1), value("b", 2), value("a", 2)) == [1, 2]
    assert whole(rows, value("b", 3), value("a", 3)) == [3]
