"""Limits of joints in a URDF file. No other part of a URDF is read, and no document type is expanded."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from vjepa_interfaces.errors import VjepaError

MAX_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class JointLimits:
    """The limits of one joint in a URDF: `<limit>`, and the gains of `<safety_controller>`, 0 if it has none.

    Attributes:
        lower: lower end of travel, rad; minus infinity of a continuous joint. A soft limit replaces it.
        upper: upper end of travel, rad.
        velocity: largest absolute velocity, rad/s.
        effort: largest absolute effort, N·m.
        k_position: 1/s.
        k_velocity: N·m per rad/s.
    """

    lower: float
    upper: float
    velocity: float
    effort: float
    k_position: float = 0.0
    k_velocity: float = 0.0


def read_joint_limits(path: Path, joint_names: Sequence[str]) -> tuple[JointLimits, ...]:
    """Return the limits of each of `joint_names` from the URDF file `path`.

    Raises:
        VjepaError: the file does not exist or is no URDF, or it lacks a joint or a limit; the message states which.
    """
    listed = _root(path).findall("joint")  # Joints inside other elements belong to a simulator.
    joints = {joint.get("name"): joint for joint in listed}
    found = []
    for name in joint_names:
        if sum(joint.get("name") == name for joint in listed) > 1:
            raise VjepaError(f"URDF {path} has joint '{name}' twice; expected each joint once")
        if name not in joints:
            raise VjepaError(f"URDF {path} has no joint '{name}'; it has: {', '.join(map(str, joints)) or '(none)'}")
        found.append(_limits(path, name, joints[name]))
    return tuple(found)


def _root(path: Path) -> ElementTree.Element:
    def refuse(*_: object) -> None:
        raise VjepaError(f"URDF {path} has a document type, which could expand without end; remove it")

    try:
        with open(path.expanduser(), "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError, RuntimeError) as error:  # A path may have a null byte too, or an unknown user's home.
        reason = getattr(error, "strerror", None) or error
        raise VjepaError(f"URDF {path} cannot be read: {reason}; give the arm's URDF file") from error
    if len(data) > MAX_BYTES:
        raise VjepaError(f"URDF {path} is larger than {MAX_BYTES} bytes; expected a description without meshes inside")
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(data, True)
        root = ElementTree.fromstring(data)
    except (expat.ExpatError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise VjepaError(f"URDF {path} is not XML: {error}") from error
    if root.tag != "robot":
        raise VjepaError(f"URDF {path} begins with <{root.tag}>; expected <robot> (of a .xacro make the URDF first)")
    return root


def _limits(path: Path, name: str, joint: ElementTree.Element) -> JointLimits:
    kind, limit, safety = joint.get("type"), joint.find("limit"), joint.find("safety_controller")
    if kind not in ("revolute", "continuous", "prismatic"):
        raise VjepaError(f"joint '{name}' of URDF {path} is {kind}; expected one that moves by one effort")

    def number(element: ElementTree.Element | None, key: str, default: float | None = None) -> float:
        text = element.get(key) if element is not None else None
        if text is None and default is not None:
            return default
        try:
            value = float(text or "")
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise VjepaError(f"joint '{name}' of URDF {path} has {key} {text!r} in its limit; expected a finite number")
        return value

    ends = (-math.inf, math.inf)
    if kind != "continuous":
        ends = (number(limit, "lower", 0.0), number(limit, "upper", 0.0))
    return JointLimits(
        lower=max(ends[0], number(safety, "soft_lower_limit", ends[0])),
        upper=min(ends[1], number(safety, "soft_upper_limit", ends[1])),
        velocity=number(limit, "velocity"),
        effort=number(limit, "effort"),
        k_position=number(safety, "k_position", 0.0),
        k_velocity=number(safety, "k_velocity", 0.0),
    )
