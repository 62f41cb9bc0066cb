"""Parameters of `effort_guard`, and the checks of their relations."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from vjepa_interfaces.errors import VjepaError, unknown_name
from vjepa_interfaces.parameters import LIVE, Range, check_ranges
from vjepa_interfaces.urdf import JointLimits, read_joint_limits

TIMEOUT_ACTIONS = ("zero", "damp", "hold")
REARMS = ("release", "auto")
MAX_DAMPING = 1000.0
"""N·m per rad/s: the largest `damping` and `k_velocity`."""
MIN_VELOCITY = 1e-3
"""rad/s: the smallest velocity limit. Torque divided by a smaller one could overflow."""
DEFAULT_K_POSITION = 2.0
"""1/s: a joint approaches the end of its travel with a time constant of 0.5 s."""

TIMES = ("command_timeout_s", "command_max_age_s", "enable_timeout_s", "joint_state_max_age_s", "damp_s", "hold_s")
"""The timeouts; a period must be at most half of each."""
TIMEOUT, FALLBACK_TIME = Range(above=0.0, high=1.0), Range(above=0.0, high=2.0)


@dataclass(frozen=True)
class GuardParameters:
    """Parameters of `effort_guard`. Those in the plural have one value a joint, in the order of `joint_names`.

    Attributes:
        joint_names: joints of the arm, in the order in which its controller takes torques.
        effort_limits: largest absolute torque of each joint, N·m.
        slew_rates: fastest change of torque of each joint, N·m/s; at most `effort_limits` times `rate_hz`.
        urdf: file that describes the arm. Limits must lie within its limits; those that are not given are its own.
        position_lower: lower end of each joint's travel, rad; `-.inf` for a joint without one.
        position_upper: upper end of each joint's travel, rad; `.inf` for a joint without one.
        velocity_limits: largest absolute velocity of each joint, rad/s, at least 0.001; `.inf` for a joint without
            one.
        k_position: of each joint, 1/s, as in a URDF's `safety_controller`: velocity allowed per rad to the end of
            travel; not given: 2.0.
        k_velocity: of each joint, N·m per rad/s, as there: torque allowed per rad/s below the allowed velocity; not
            given: effort limit by velocity limit.
        rate_hz: torques sent a second; its period must be at most half of every timeout.
        command_timeout_s: without a command for longer, `on_timeout` is done.
        command_max_age_s: oldest frame, and furthest in the future, whose command drives the arm.
        enable_timeout_s: without a message of a held switch for longer, torque is zero.
        enable_button: index of the switch among the buttons of `effort_guard/enable`.
        rearm: `release`: after any stop the switch must be released and pressed; `auto`: the arm goes on by itself.
        on_timeout: `zero`; `damp`: torque against the joints' velocity; or `hold`: the last torque.
        damping: of `damp`: torque against the velocity of each joint, N·m per rad/s; must then be more than 0.
        damp_s: of `damp`: after this many seconds, torque is zero.
        joint_state_max_age_s: older joint states, and those as far in the future, are not used.
        hold_s: of `hold`: after this many seconds, torque is zero.
        simulated_arm: the arm is simulated: only then is `use_sim_time` accepted.
        dry_run: compute and show everything, and send zero torque.
    """

    joint_names: tuple[str, ...] = ("shoulder", "wrist")
    effort_limits: Annotated[tuple[float, ...], Range(above=0.0, high=1000.0)] = (0.05, 0.05)
    slew_rates: Annotated[tuple[float, ...], Range(above=0.0)] = (0.5, 0.5)
    urdf: str = ""
    position_lower: tuple[float, ...] = ()
    position_upper: tuple[float, ...] = ()
    velocity_limits: tuple[float, ...] = ()
    k_position: Annotated[tuple[float, ...], Range(above=0.0, high=100.0)] = ()
    k_velocity: Annotated[tuple[float, ...], Range(above=0.0, high=MAX_DAMPING)] = ()
    rate_hz: Annotated[float, Range(above=0.0, high=1000.0)] = 100.0
    command_timeout_s: Annotated[float, TIMEOUT] = 0.2
    command_max_age_s: Annotated[float, TIMEOUT] = 0.3
    enable_timeout_s: Annotated[float, TIMEOUT] = 0.3
    enable_button: Annotated[int, Range(low=0)] = 0
    rearm: str = "release"
    on_timeout: str = "zero"
    damping: Annotated[tuple[float, ...], Range(low=0.0, high=MAX_DAMPING)] = (0.0, 0.0)
    damp_s: Annotated[float, FALLBACK_TIME] = 1.0
    joint_state_max_age_s: Annotated[float, TIMEOUT] = 0.1
    hold_s: Annotated[float, FALLBACK_TIME] = 0.5
    simulated_arm: bool = False
    dry_run: Annotated[bool, LIVE] = True

    def __post_init__(self) -> None:
        """Refuse numbers out of their range, with a ParameterError; `checked` tests the relations between values."""
        check_ranges(self)

    @property
    def has_joint_limits(self) -> bool:
        """Whether a position or a velocity is limited; such limits need joint states."""
        return bool(self.position_lower or self.position_upper or self.velocity_limits)

    @property
    def fallback_s(self) -> float:
        """How long `on_timeout` may send torque, seconds."""
        return {"zero": 0.0, "damp": self.damp_s, "hold": self.hold_s}[self.on_timeout]


def checked(parameters: GuardParameters) -> GuardParameters:
    """Return the parameters, with the limits of the URDF in place of missing ones.

    Raises:
        VjepaError: the parameters contradict each other; the message states which and what is expected.
    """
    if parameters.on_timeout not in TIMEOUT_ACTIONS:
        raise unknown_name("on_timeout", parameters.on_timeout, TIMEOUT_ACTIONS)
    if parameters.rearm not in REARMS:
        raise unknown_name("rearm", parameters.rearm, REARMS)
    joints = parameters.joint_names
    if not joints or len(set(joints)) != len(joints):
        raise VjepaError(f"joint_names is {list(joints)}; expected each joint of the arm once")
    _check_times(parameters)
    _check_efforts(parameters)
    _check_joint_limits(parameters)
    if parameters.urdf:
        parameters = _within_urdf(parameters, read_joint_limits(Path(parameters.urdf), joints))
        _check_joint_limits(parameters)  # Those of a URDF keep the same bounds,
    if parameters.has_joint_limits:
        parameters = _with_gains(parameters)
        _check_joint_limits(parameters)  # and so do gains that follow from others.
    return parameters


def _check_times(parameters: GuardParameters) -> None:
    rate_hz = parameters.rate_hz
    for name in TIMES:
        value = getattr(parameters, name)
        if 2.0 / rate_hz > value * (1 + 1e-9):
            raise VjepaError(
                f"{name} is {value}, but rate_hz is {rate_hz:g}: one period must be at most half of it; raise "
                f"{name} to at least {2.0 / rate_hz:g} s, or rate_hz to at least {2.0 / value:g}"
            )


def _check_efforts(parameters: GuardParameters) -> None:
    limits = parameters.effort_limits
    for name in ("effort_limits", "slew_rates", "damping"):
        _check_count(parameters, name)
    if parameters.on_timeout == "damp" and not all(parameters.damping):
        raise VjepaError(f"damping is {list(parameters.damping)}; expected values of more than 0 with on_timeout damp")
    for joint, rate, limit in zip(parameters.joint_names, parameters.slew_rates, limits, strict=True):
        if rate > limit * parameters.rate_hz * (1 + 1e-9):
            raise VjepaError(
                f"slew_rates of {joint} is {rate:g}, which reaches its limit of {limit:g} N·m in less than one period; "
                f"expected at most effort limit times rate_hz, {limit * parameters.rate_hz:g}"
            )


def _check_joint_limits(parameters: GuardParameters) -> None:
    for name in ("position_lower", "position_upper", "velocity_limits", "k_position", "k_velocity"):
        if getattr(parameters, name):
            _check_count(parameters, name)
    # These may be infinite, so they have no `Range`.
    least_values = {"position_lower": -math.inf, "position_upper": -math.inf, "velocity_limits": MIN_VELOCITY}
    for name, least in least_values.items():
        values = getattr(parameters, name)
        if not all(value >= least for value in values):  # NaN is not.
            raise VjepaError(f"{name} is {list(values)}; expected numbers of at least {least:g}")
    if bool(parameters.position_lower) != bool(parameters.position_upper):
        raise VjepaError("of position_lower and position_upper one is given; expected both, or none of them")
    for joint, lower, upper in zip(
        parameters.joint_names, parameters.position_lower, parameters.position_upper, strict=False
    ):
        if not lower < upper:
            raise VjepaError(f"{joint} travels from {lower} to {upper}; expected position_lower below position_upper")


def _check_count(parameters: GuardParameters, name: str) -> None:
    """Refuse a parameter with another number of values than the arm has joints."""
    values, joints = getattr(parameters, name), parameters.joint_names
    if len(values) != len(joints):
        raise VjepaError(f"{name} has {len(values)} values; expected one for each of {', '.join(joints)}")


def _within_urdf(parameters: GuardParameters, own: tuple[JointLimits, ...]) -> GuardParameters:
    """Return the parameters with the limits of the URDF in place of missing ones; larger limits are refused."""
    filled: dict[str, tuple[float, ...]] = {
        "position_lower": parameters.position_lower or tuple(limits.lower for limits in own),
        "position_upper": parameters.position_upper or tuple(limits.upper for limits in own),
        "velocity_limits": parameters.velocity_limits or tuple(limits.velocity for limits in own),
    }
    gains = {"k_position": [limits.k_position for limits in own], "k_velocity": [limits.k_velocity for limits in own]}
    for name, stated in gains.items():
        if not getattr(parameters, name) and all(stated):
            filled[name] = tuple(stated)
    parameters = replace(parameters, **filled)  # type: ignore[arg-type]
    for i, (joint, limits) in enumerate(zip(parameters.joint_names, own, strict=True)):
        for name, value, least, most in (
            ("effort_limits", parameters.effort_limits[i], 0.0, limits.effort),
            ("velocity_limits", parameters.velocity_limits[i], 0.0, limits.velocity),
            ("position_lower", parameters.position_lower[i], limits.lower, limits.upper),
            ("position_upper", parameters.position_upper[i], limits.lower, limits.upper),
        ):
            if not least <= value <= most:
                raise VjepaError(
                    f"{name} of {joint} is {value:g}; {parameters.urdf} allows {least:g} to {most:g}: keep within it"
                )
    return parameters


def _with_gains(parameters: GuardParameters) -> GuardParameters:
    """Return the parameters with every joint limit filled in, and with default gains of braking if none are given."""
    unlimited = (math.inf,) * len(parameters.joint_names)
    velocity = parameters.velocity_limits or unlimited
    k_velocity = parameters.k_velocity
    if not k_velocity:
        if not all(map(math.isfinite, velocity)):
            raise VjepaError("k_velocity is missing, and velocity_limits does not limit every joint; give one of them")
        # At twice the allowed velocity all torque brakes.
        k_velocity = tuple(effort / v for effort, v in zip(parameters.effort_limits, velocity, strict=True))
    return replace(
        parameters,
        position_lower=parameters.position_lower or tuple(-end for end in unlimited),
        position_upper=parameters.position_upper or unlimited,
        velocity_limits=velocity,
        k_position=parameters.k_position or (DEFAULT_K_POSITION,) * len(velocity),
        k_velocity=k_velocity,
    )
