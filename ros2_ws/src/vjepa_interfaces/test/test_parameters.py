"""Named values become a frozen dataclass, or are refused with a message that helps."""

import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Optional

import numpy as np
import pytest

from vjepa_interfaces.parameters import (
    LIVE,
    ParameterError,
    Range,
    as_base,
    check_choices,
    check_ranges,
    descriptions,
    live_names,
    read_node_parameters,
    read_parameters,
)


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
class Other:
    fields: dict[str, int] = field(default_factory=dict)
    speed: Literal["fast", "slow"] = "fast"
    kind: Literal["fast", "slow"] | None = "fast"


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


def test_a_path_is_read_from_text_and_values_of_other_types_are_left_to_the_configuration():
    assert read_parameters(Config, {"folder": "elsewhere"}).folder == Path("elsewhere")
    with pytest.raises(ParameterError, match="'folder' is 3; expected a value of type Path"):
        read_parameters(Config, {"folder": 3})
    assert read_parameters(Other, {"fields": "anything"}).fields == "anything"


def test_a_value_that_is_none_of_the_choices_is_refused_with_them():
    assert read_parameters(Other, {"kind": None, "speed": "slow"}) == Other(kind=None, speed="slow")
    with pytest.raises(ParameterError, match=r"parameter 'speed' is 'loud'; expected fast or slow$"):
        read_parameters(Other, {"speed": "loud"})
    with pytest.raises(ParameterError, match=r"parameter 'kind' is 1; expected fast or slow or None$"):
        read_parameters(Other, {"kind": 1})


@dataclass(frozen=True)
class Wrapped:
    """What a node wraps.

    Attributes:
        rate_hz: steps a second.
        size: pixels.
    """

    rate_hz: Annotated[float, Range(above=0.0, high=1000.0)] = 50.0
    size: Annotated[tuple[int, int], Range(low=1)] = (64, 64)

    def __post_init__(self):
        check_ranges(self)


@dataclass(frozen=True)
class Node(Wrapped):
    """Parameters of the node.

    Attributes:
        loud: whether it is.
        episodes: how many.
    """

    loud: Annotated[bool, LIVE] = False
    episodes: Annotated[int, Range(low=0)] = 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rate_hz": 0.0}, r"rate_hz is 0.0; expected more than 0 and at most 1000$"),
        ({"rate_hz": float("nan")}, r"rate_hz is nan; expected more than 0 and at most 1000$"),
        ({"size": (0, 64)}, r"size is \[0, 64\]; expected values of at least 1, and finite$"),
        ({"episodes": -1}, "episodes is -1; expected at least 0"),
    ],
)
def test_a_value_out_of_its_range_is_refused_however_the_configuration_is_made(wrong, message):
    with pytest.raises(ParameterError, match=f"^{message}"):
        Node(**wrong)
    (name,) = wrong
    with pytest.raises(ParameterError, match=f"^parameter '{name}' of node {message.partition(' ')[2]}"):
        read_parameters(Node, wrong, of="node")


def test_a_node_has_the_parameters_of_what_it_wraps_and_its_own():
    assert descriptions(Node) == {
        "rate_hz": "steps a second.",
        "size": "pixels.",
        "loud": "whether it is.",
        "episodes": "how many.",
    }
    assert live_names(Node) == {"loud"}
    node = Node(rate_hz=25.0, loud=True)
    assert as_base(Wrapped, node) == Wrapped(rate_hz=25.0)
    assert as_base(Wrapped, node, size=(2, 2)) == Wrapped(25.0, (2, 2))


def test_the_section_of_a_node_is_read_without_what_is_not_its_own():
    values = {"rate_hz": 5, "use_sim_time": True, "qos_overrides.joint_states.publisher.depth": 3, "cem.samples": 9}
    assert read_node_parameters(Node, values, "node", ["cem"]) == Node(rate_hz=5.0)
    with pytest.raises(ParameterError, match=r"unknown parameter of node: 'cem.samples'; valid are: episodes, loud"):
        read_node_parameters(Node, values, "node")


@dataclass(frozen=True)
class Bounded:
    steps: Annotated[int, Range(low=1)] = 1
    share: Annotated[float | None, Range(low=0, high=1)] = None
    sizes: Annotated[tuple[int, ...], Range(above=0)] = (1,)
    kind: Literal["fast", "slow"] = "fast"

    def __post_init__(self) -> None:
        check_ranges(self)
        check_choices(self)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "steps is 0; expected at least 1"),
        ({"share": 1.5}, "share is 1.5; expected at least 0 and at most 1"),
        ({"share": float("nan")}, "share is nan; expected at least 0 and at most 1"),
        ({"sizes": (3, 0)}, r"sizes is \[3, 0\]; expected values of more than 0"),
        ({"kind": "loud"}, "kind is 'loud'; expected fast or slow"),
    ],
)
def test_a_dataclass_can_hold_itself_to_the_bounds_of_its_types(values, message):
    assert Bounded(share=1.0, sizes=()) == Bounded(share=1.0, sizes=())
    with pytest.raises(ParameterError, match=message):
        Bounded(**values)
