"""Parameters from dataclasses, their descriptions for `ros2 param describe`, and the services that set them."""

import dataclasses
import sys
import types
import typing
from collections.abc import Collection
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterValueException, ParameterNotDeclaredException
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.parameter_service import ParameterService

from vjepa_interfaces.deprecated import PARAMETER, current_name
from vjepa_interfaces.parameters import ParameterError, Range, descriptions, range_of, read_parameters

LARGEST = 2**63 - 1
T = TypeVar("T")


def declare_read_only(node: Node, config_class: type[T]) -> T:
    """Declare the fields of a dataclass as read-only parameters, and return their values.

    Raises:
        VjepaError: a value is of another type than its field, or out of its range.
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
        ParameterError: the value from the start of the node is out of its range.
    """
    try:
        node.declare_parameter(name, list(default) if isinstance(default, tuple) else default, descriptor)
    except InvalidParameterValueException as error:
        given = node._parameter_overrides[name].value
        expected = descriptor.additional_constraints
        raise ParameterError(f"parameter '{name}' of {node.get_name()} is {given}; expected {expected}") from error


def unknown_parameters(node: Node, config_class: type) -> tuple[str, str]:
    """Return the unknown parameters that a node was given at its start, and the names of its dataclass, as texts.

    The first text is empty if all are known. The options of plug-ins are known after they are declared.
    """
    given = {name for name in node._parameter_overrides if not name.startswith("qos_overrides.")}
    unknown = given - node._parameters.keys() - {"use_sim_time"}
    valid = [each.name for each in dataclasses.fields(config_class)]
    return ", ".join(sorted(unknown)), ", ".join(sorted(valid))


class AllOrNone(ParameterService):
    """The parameter services, with a `set_parameters` that takes all values of a request, or none.

    rclpy takes the values one by one: from a file of limits and switches it could refuse the limits and take the
    switches. An unchanged value is accepted, also for a read-only parameter. So a node accepts its own dump.
    """

    def __init__(self, node: Node, live: Collection[str] = ()):
        """Serve the parameters of `node`; those named in `live` act whenever they are set, also when unchanged."""
        super().__init__(node)
        self._live = live

    def _set_parameters_callback(self, request: Any, response: Any) -> Any:
        node = self._get_node()
        _use_current_names(request)
        parameters = [Parameter.from_parameter_msg(message) for message in request.parameters]
        changed = [parameter for parameter in parameters if not is_unchanged(node, parameter, self._live)]
        result = SetParametersResult(successful=True)
        if changed:
            try:
                result = node.set_parameters_atomically(changed)
            except ParameterNotDeclaredException:
                unknown = ", ".join(repr(each.name) for each in changed if not node.has_parameter(each.name))
                reason = f"no parameter was set: {node.get_name()} has none of the name {unknown}"
                result = SetParametersResult(successful=False, reason=reason)
        response.results = [result] * len(parameters)
        return response

    def _set_parameters_atomically_callback(self, request: Any, response: Any) -> Any:
        _use_current_names(request)
        return super()._set_parameters_atomically_callback(request, response)


def _use_current_names(request: Any) -> None:
    """Replace deprecated names of parameters in a request to set them."""
    for message in request.parameters:
        message.name = current_name(PARAMETER, message.name)


def is_unchanged(node: Node, parameter: Parameter, live: Collection[str]) -> bool:
    """Return whether setting a parameter changes nothing: it has this value already, and is not live."""
    if parameter.name in live or not node.has_parameter(parameter.name):
        return False
    return _plain(node.get_parameter(parameter.name).value) == _plain(parameter.value)


def _plain(value: Any) -> Any:
    """Return a value of a parameter with its type, an array as a list: 1, 1.0 and True are three values."""
    if isinstance(value, list | tuple) or type(value).__name__ in ("array", "ndarray"):
        return [_plain(item) for item in value]
    return type(value), value


def describe_simulated_time(node: Node) -> None:
    """Describe the parameter that rclpy leaves without a description."""
    text = "Take the time from /clock, as the nodes of a simulation do, instead of from this computer."
    node.set_descriptor("use_sim_time", ParameterDescriptor(description=text, type=Parameter.Type.BOOL.value))


def descriptor_of(config_class: type, name: str, note: str = "", read_only: bool = False) -> ParameterDescriptor:
    """Return the descriptor of the parameter that is field `name` of a dataclass.

    Args:
        config_class: a dataclass whose docstring describes its attributes.
        name: name of the field.
        note: a text after the field's own description.
        read_only: whether ROS refuses any other value than that of the start.
    """
    text = descriptions(config_class).get(name, "")
    descriptor = ParameterDescriptor(description=f"{text} {note}".strip(), read_only=read_only, dynamic_typing=True)
    allowed = range_of(config_class, name)
    if allowed is not None:
        descriptor.additional_constraints = str(allowed)
        _set_range(descriptor, allowed, typing.get_type_hints(config_class)[name])
    return descriptor


def _set_range(descriptor: ParameterDescriptor, allowed: Range, kind: Any) -> None:
    """Write a range into the descriptor of a number; ROS has no ranges for arrays, and no open ends."""
    low = max(allowed.low, allowed.above)
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if int in kinds:
        least = int(low) + (allowed.above == low) if low > -LARGEST else -LARGEST
        most = int(allowed.high) if allowed.high < LARGEST else LARGEST
        descriptor.integer_range = [IntegerRange(from_value=least, to_value=most, step=1)]
    elif float in kinds:
        ends = {"from_value": max(low, -sys.float_info.max), "to_value": min(allowed.high, sys.float_info.max)}
        descriptor.floating_point_range = [FloatingPointRange(**ends, step=0.0)]
