"""Tables in Markdown and in terminals."""

import pytest

from vjepa_interfaces.tables import markdown_table, text_table

ROWS = [("name", "count"), ("a", "10"), ("longer", "")]


def test_a_markdown_table_has_its_first_row_as_head():
    assert markdown_table(ROWS) == "| name | count |\n| --- | --- |\n| a | 10 |\n| longer |  |"
    assert markdown_table([("name", "count")]) == "| name | count |\n| --- | --- |"


def test_an_aligned_markdown_table_is_read_as_text_too():
    assert markdown_table(ROWS, aligned=True).splitlines() == [
        "| name   | count |",
        "| ------ | ----- |",
        "| a      | 10    |",
        "| longer |       |",
    ]


def test_a_bar_in_a_cell_does_not_begin_another_cell():
    assert markdown_table([("a",), ("x|y",)]) == "| a |\n| --- |\n| x\\|y |"


def test_cells_of_a_text_table_are_below_each_other_and_no_line_ends_in_blanks():
    assert text_table(ROWS, indent="> ").splitlines() == ["> name    count", "> a       10", "> longer"]
    assert text_table(ROWS, right={1}).splitlines() == ["name    count", "a          10", "longer"]


@pytest.mark.parametrize("table", [markdown_table, text_table])
def test_a_row_with_too_few_cells_is_an_error(table):
    with pytest.raises(ValueError, match="zip"):
        table([("a", "b"), ("c",)])
