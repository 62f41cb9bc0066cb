"""What `ros2 param describe` tells of a parameter, from the dataclass that it is a field of."""

import dataclasses
import sys
import typing
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from vjepa_interfaces.parameters import ParameterError, Range, descriptions, range_of, read_parameters

LARGEST = 2**63 - 1
T = TypeVar("T")


def declare_read_only(node: Node, config_class: type[T]) -> T:
    """Declare the fields of a dataclass as parameters that are those of the start for good, and return their values.

    Raises:
        VjepaError: a value of another type than its field's, or out of its range.
    """
    describe_simulated_time(node)
    values = {}
    for each in dataclasses.fields(config_class):  # type: ignore[arg-type]
        declare(node, each.name, each.default, descriptor_of(config_class, each.name, read_only=True))
        values[each.name] = node.get_parameter(each.name).value
    return read_parameters(config_class, values)


def declare(node: Node, name: str, default: Any, descriptor: ParameterDescriptor) -> None:
    """Declare a parameter.

    Raises:
        ParameterError: the value that it was given at the start is out of its range.
    """
    try:
        node.declare_parameter(name, list(default) if isinstance(default, tuple) else default, descriptor)
    except InvalidParameterValueException as error:
        given = node._parameter_overrides[name].value
        expected = descriptor.additional_constraints
        raise ParameterError(f"parameter '{name}' of {node.get_name()} is {given}; expected {expected}") from error


def describe_simulated_time(node: Node) -> None:
    """Describe the parameter that rclpy leaves without a description."""
    text = "Take the time from /clock, as the nodes of a simulation do, instead of from this computer."
    node.set_descriptor("use_sim_time", ParameterDescriptor(description=text, type=Parameter.Type.BOOL.value))


def descriptor_of(config_class: type, name: str, note: str = "", read_only: bool = False) -> ParameterDescriptor:
    """Return the descriptor of the parameter that is field `name` of a dataclass.

    Args:
        config_class: a dataclass whose docstring describes its attributes.
        name: of the field.
        note: what is to be said after the field's own text.
        read_only: whether ROS is to refuse any other value than that of the start.
    """
    text = descriptions(config_class).get(name, "")
    descriptor = ParameterDescriptor(description=f"{text} {note}".strip(), read_only=read_only, dynamic_typing=True)
    allowed = range_of(config_class, name)
    if allowed is not None:
        descriptor.additional_constraints = str(allowed)
        _set_range(descriptor, allowed, typing.get_type_hints(config_class)[name])
    return descriptor


def _set_range(descriptor: ParameterDescriptor, allowed: Range, kind: Any) -> None:
    """Write a range into the descriptor of a number; ROS knows none of arrays, and none that leaves out its ends."""
    low = max(allowed.low, allowed.above)
    if kind is int:
        least = int(low) + (allowed.above == low) if low > -LARGEST else -LARGEST
        most = int(allowed.high) if allowed.high < LARGEST else LARGEST
        descriptor.integer_range = [IntegerRange(from_value=least, to_value=most, step=1)]
    elif kind is float:
        ends = {"from_value": max(low, -sys.float_info.max), "to_value": min(allowed.high, sys.float_info.max)}
        descriptor.floating_point_range = [FloatingPointRange(**ends, step=0.0)]
