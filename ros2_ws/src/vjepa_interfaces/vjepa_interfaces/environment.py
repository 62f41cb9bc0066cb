"""This process's environment: variables that are set for a while, and the name of its ROS."""

import contextlib
import functools
import os
import re
from collections.abc import Iterator, Mapping
from importlib import metadata


@contextlib.contextmanager
def environment_of(variables: Mapping[str, str]) -> Iterator[None]:
    """Set `variables` in this process's environment while the context lasts: ROS reads them there."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@functools.cache
def distribution_of_ros() -> str:
    """Return the name of the ROS in use, such as `jazzy`: the sourced ROS, else the wheels; empty if there is none."""
    wheels = (re.fullmatch(r"ros-([a-z]+)-rclpy", each.name or "") for each in metadata.distributions())
    return os.environ.get("ROS_DISTRO") or next((wheel[1] for wheel in wheels if wheel), "")
