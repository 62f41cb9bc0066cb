"""Named values become a frozen dataclass, or are refused with a message that helps."""

import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import numpy as np
import pytest

from vjepa_interfaces.parameters import ParameterError, read_parameters


@dataclass(frozen=True)
class Config:
    gain: float = 1.0
    steps: int = 10
    name: str = "a"
    loud: bool = False
    limit: float | None = None
    old_limit: Optional[float] = None  # noqa: UP045 (the older notation is read as well)
    joints: tuple[str, ...] = ("shoulder", "wrist")
    size: tuple[int, int] = (64, 64)
    gains: tuple[float, ...] = ()
    folder: Path = Path("bags")
    made: str = field(default="here", init=False)


@dataclass(frozen=True)
class Needy:
    encoder: str
    grid: int = 4


def test_missing_values_keep_their_defaults():
    assert read_parameters(Config, {}) == Config()
    assert read_parameters(Config, {"steps": 3}) == Config(steps=3)


def test_an_int_is_taken_for_a_float_and_becomes_one():
    config = read_parameters(Config, {"gain": 2, "limit": 3, "old_limit": 4})
    assert (config.gain, config.limit, config.old_limit) == (2.0, 3.0, 4.0)
    assert {type(config.gain), type(config.limit), type(config.old_limit)} == {float}


def test_none_is_taken_where_the_type_allows_it():
    assert read_parameters(Config, {"limit": None, "old_limit": None}) == Config()
    with pytest.raises(ParameterError, match="'gain' is None; expected a value of type float"):
        read_parameters(Config, {"gain": None})


@pytest.mark.parametrize(
    "value", [[1.0, 2.0], (1, 2), np.array([1.0, 2.0]), array.array("d", [1.0, 2.0]), np.array([1, 2])]
)
def test_lists_and_arrays_become_tuples_of_plain_values(value):
    gains = read_parameters(Config, {"gains": value}).gains
    assert gains == (1.0, 2.0)
    assert [type(gain) for gain in gains] == [float, float]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("gain", "2", "float"),
        ("gain", True, "float"),
        ("steps", 1.0, "int"),
        ("steps", True, "int"),
        ("name", 3, "str"),
        ("loud", 1, "bool"),
        ("loud", "true", "bool"),
        ("limit", "none", "float or None"),
        ("old_limit", [], "float or None"),
        ("joints", "shoulder", "list of str, such as [name, name]"),
        ("size", 64, "list of 2 int, such as [64, 64]"),
        ("joints", ["shoulder", 1], "value 1 of parameter 'joints' is 1; expected a value of type str"),
        ("size", [64.0, 64], "value 0 of parameter 'size' is 64.0; expected a value of type int"),
        ("size", [64], "has 1 values; expected 2"),
        ("size", [64, 64, 3], "has 3 values; expected 2"),
    ],
)
def test_a_value_of_another_type_is_refused_naming_it(name, value, expected):
    with pytest.raises(ParameterError, match=f"parameter '{name}'") as refusal:
        read_parameters(Config, {name: value})
    assert expected in str(refusal.value)


def test_unknown_names_are_refused_with_the_valid_ones():
    with pytest.raises(ParameterError, match=r"unknown parameter: 'gian', 'made'; valid are: folder, gain, gains"):
        read_parameters(Config, {"gian": 1.0, "made": "there", "gain": 1.0})


def test_a_value_without_default_must_be_given():
    with pytest.raises(ParameterError, match="'encoder' is missing"):
        read_parameters(Needy, {"grid": 1})
    assert read_parameters(Needy, {"encoder": "small"}) == Needy("small")


def test_messages_say_whose_values_they_are():
    with pytest.raises(ParameterError, match=r"unknown option of planner 'cem': 'x'; valid are: encoder, grid"):
        read_parameters(Needy, {"x": 1}, "option", "planner 'cem'")
    with pytest.raises(ParameterError, match=r"option 'grid' of planner 'cem' is 'x'; expected a value of type int"):
        read_parameters(Needy, {"encoder": "small", "grid": "x"}, "option", "planner 'cem'")


def test_values_of_other_types_are_left_to_the_configuration():
    assert read_parameters(Config, {"folder": "elsewhere"}).folder == "elsewhere"
