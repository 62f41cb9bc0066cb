"""Files of settings: a name that stands twice is refused, and nothing of the file is dropped unread."""

import pytest
import yaml

from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.yaml_file import YamlDuplicateError, parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "name", "lines"),
    [
        ("a:\n  x: 1\nb: 2\na:\n  y: 2\n", "a", "1 and 4"),
        ("a:\n  x: 1\n  x: 1\n", "x", "2 and 3"),
        ("- {a: 1, a: 2}\n", "a", "1 and 1"),
        ('a: 1\n"a": 2\n', "a", "1 and 2"),
        ("1: a\n0x1: b\n", "1", "1 and 2"),
        ("a:\n  <<: {x: 1}\n  <<: {y: 2}\n", "<<", "2 and 3"),
    ],
)
def test_a_name_that_stands_twice_is_refused_with_both_lines(tmp_path, text, name, lines):
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(VjepaError, match=f"settings of mine .*settings.yaml .*'{name}' stands twice, in lines {lines}"):
        read_yaml(file, "settings of mine")


def test_the_same_name_in_different_mappings_is_no_repetition():
    assert parse_yaml("a: {x: 1}\nb: {x: 2}\nc: [{x: 3}, {x: 4}]\n") == {
        "a": {"x": 1},
        "b": {"x": 2},
        "c": [{"x": 3}, {"x": 4}],
    }


def test_an_explicit_value_still_overrides_a_merged_one():
    assert parse_yaml("a: {<<: {x: 1, y: 2}, x: 3}\n") == {"a": {"x": 3, "y": 2}}


def test_a_name_may_stand_twice_in_no_file_of_another_program_either():
    with pytest.raises(YamlDuplicateError, match="'a' stands twice, in lines 1 and 2"):
        parse_yaml("a: 1\na: 2\n", aliases=True)


def test_a_mapping_that_is_merged_into_two_others_repeats_no_name():
    text = "a: &a {<<: {x: 1}, x: 2}\nb: {<<: *a, x: 3}\nc: {d: {<<: *a}}\n"
    assert parse_yaml(text, aliases=True) == {"a": {"x": 2}, "b": {"x": 3}, "c": {"d": {"x": 2}}}


@pytest.mark.parametrize("text", ["a: !!timestamp x", "a: !!bool x", "a: !!int x"])
def test_a_value_that_is_not_what_its_tag_says_is_refused_in_words(text):
    with pytest.raises(yaml.YAMLError):
        parse_yaml(text)
