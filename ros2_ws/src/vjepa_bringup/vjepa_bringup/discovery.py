"""Environment variables that decide who can reach a stack, for its nodes and for commands that join it."""

import os
from pathlib import Path

from vjepa_interfaces.environment import distribution_of_ros
from vjepa_interfaces.errors import VjepaError, unknown_name
from vjepa_interfaces.share import share_folder
from vjepa_interfaces.shared_memory import PROFILES, profile_variables

RANGE = "ROS_AUTOMATIC_DISCOVERY_RANGE"
LOCAL = "localhost"
DISCOVERIES = {LOCAL: "LOCALHOST", "subnet": "SUBNET", "system_default": "SYSTEM_DEFAULT"}
"""The choices of the option `discovery`, each with its value of `RANGE`."""

_SKIP_PROFILE_OF_FOLDER = {"SKIP_DEFAULT_XML_FILE": "1"}
"""Keeps Fast DDS from reading a file of profiles in the working folder, which anybody may have put there."""
_STRONGER = ("ROS_LOCALHOST_ONLY", "ROS_DISCOVERY_SERVER", "FASTDDS_ENVIRONMENT_FILE")
"""Variables that open further sockets in spite of the profile. ROS prefers its deprecated variable to `RANGE`; with the
two others, Fast DDS finds a discovery server."""


def discovery_environment(discovery: str) -> dict[str, str]:
    """Return the environment variables for one of `DISCOVERIES`.

    With `localhost` on Fast DDS, a profile binds every socket to 127.0.0.1. Without Fast DDS, or if the user has a file
    of profiles, only ROS's `RANGE` limits discovery.

    Raises:
        VjepaError: the choice does not exist, or the profile is not installed.
    """
    if discovery not in DISCOVERIES:
        raise unknown_name("discovery", discovery, DISCOVERIES)
    if not _is_fast_dds() or _has_profiles():
        return {RANGE: DISCOVERIES[discovery]}
    profile = _profile(discovery)
    if not profile.is_file():
        raise VjepaError(f"no profile of Fast DDS at {profile}; build the workspace with: ./vjepa --setup-only")
    profiles = dict.fromkeys(profile_variables(distribution_of_ros()), str(profile))
    variables = {RANGE: DISCOVERIES[discovery], **profiles, **_SKIP_PROFILE_OF_FOLDER}
    if discovery == LOCAL:
        variables[RANGE] = DISCOVERIES["system_default"]  # The profile states why.
        variables |= {name: "" for name in _STRONGER if os.environ.get(name)}
    return variables


def discovery_of_shell() -> str:
    """Return the choice that `RANGE` makes in this process's environment; `localhost` without one."""
    asked = os.environ.get(RANGE, "")
    return next((name for name, value in DISCOVERIES.items() if value == asked), LOCAL)


def _profile(discovery: str) -> Path:
    name = "fastdds_localhost.xml" if discovery == LOCAL else "fastdds.xml"
    return share_folder("vjepa_bringup") / "config" / name


def _has_profiles() -> bool:
    """Return whether the user has a file of profiles. A stack's child processes inherit its own, which do not count."""
    own = {_profile(discovery).resolve() for discovery in DISCOVERIES}
    files = [Path(value) for name in PROFILES if (value := os.environ.get(name))]
    return any(file.resolve() not in own for file in files)


def _is_fast_dds() -> bool:
    from rclpy.utilities import get_rmw_implementation_identifier

    return get_rmw_implementation_identifier().startswith("rmw_fastrtps")
