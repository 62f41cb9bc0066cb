import math
import re

import pytest

from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.guard_parameters import GuardParameters, checked

URDF = """<robot name="arm">
  <joint name="shoulder" type="continuous"><limit effort="3" velocity="5"/></joint>
  <joint name="wrist" type="revolute"><limit lower="-2" upper="2.5" effort="1" velocity="4"/>
    <safety_controller soft_lower_limit="-1.5" soft_upper_limit="2" k_position="8" k_velocity="0.3"/></joint>
  <joint name="mount" type="fixed"/>
</robot>
"""


@pytest.fixture
def urdf(tmp_path):
    def write(text=URDF) -> str:
        file = tmp_path / "arm.urdf"
        file.write_text(text)
        return str(file)

    return write


def test_the_defaults_are_a_dry_run_that_ends_in_zero_and_wants_a_press():
    defaults = checked(GuardParameters())
    assert defaults.dry_run
    assert (defaults.on_timeout, defaults.rearm) == ("zero", "release")
    assert not defaults.simulated_arm


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"on_timeout": "stop"}, "unknown on_timeout 'stop'; valid are: damp, hold, zero"),
        ({"rearm": "never"}, "unknown rearm 'never'; valid are: auto, release"),
        ({"joint_names": ()}, "joint_names is"),
        ({"joint_names": ("a", "a")}, "joint_names is"),
        ({"enable_button": -1}, "enable_button is -1"),
        ({"effort_limits": (1.0,)}, "effort_limits has 1 values; expected one for each of shoulder, wrist"),
        ({"effort_limits": (1.0, 0.0)}, "effort_limits is"),
        ({"effort_limits": (1.0, math.inf)}, "effort_limits is"),
        ({"effort_limits": (1e308, 1.0)}, "effort_limits is .* at most 1000"),
        ({"slew_rates": (1.0, -1.0)}, "slew_rates is"),
        ({"slew_rates": (1.0, math.nan)}, "slew_rates is"),
        ({"slew_rates": (1.0, 5.1)}, "slew_rates of wrist is 5.1, which reaches its limit .* less than one period"),
        ({"on_timeout": "damp", "damping": (0.0, 1.0)}, r"damping is \[0.0, 1.0\]; expected values of more than 0"),
        ({"damping": (-1.0, 1.0)}, "damping is"),
        ({"damping": (1e308, 1.0)}, "damping is"),
        ({"rate_hz": 0.0}, "rate_hz is 0.0; expected more than 0"),
        ({"rate_hz": math.nan}, "rate_hz is nan"),
        ({"rate_hz": 1e-9}, "rate_hz is 1e-09: one period must be at most half of it"),
        ({"rate_hz": 5.0, "slew_rates": (0.1, 0.1)}, "command_timeout_s is 0.2, but rate_hz is 5"),
        ({"rate_hz": 1e6}, "rate_hz is 1000000.0; expected more than 0 and at most 1000"),
        ({"command_timeout_s": math.inf}, "command_timeout_s is"),
        ({"command_timeout_s": 0.019}, "command_timeout_s is 0.019, but rate_hz is 100"),
        ({"command_max_age_s": 3600.0}, "command_max_age_s is 3600.0; expected more than 0 and at most 1"),
        ({"enable_timeout_s": math.nan}, "enable_timeout_s is"),
        ({"enable_timeout_s": 3600.0}, "enable_timeout_s is 3600.0; expected more than 0 and at most 1"),
        ({"joint_state_max_age_s": -1.0}, "joint_state_max_age_s is"),
        ({"hold_s": 0.0}, "hold_s is"),
        ({"hold_s": 1e9}, "hold_s is 1000000000.0; expected more than 0 and at most 2"),
        ({"damp_s": 2.1}, "damp_s is 2.1; expected more than 0 and at most 2"),
        ({"position_lower": (-1.0, -1.0)}, "one is given; expected both"),
        ({"position_lower": (1.0, 0.0), "position_upper": (1.0, 1.0)}, "shoulder travels from 1.0 to 1.0"),
        ({"position_lower": (-1.0,), "position_upper": (1.0, 1.0)}, "position_lower has 1 values"),
        ({"velocity_limits": (1.0, math.nan)}, "velocity_limits is"),
        ({"velocity_limits": (1.0, 0.0)}, "velocity_limits is"),
        ({"velocity_limits": (1.0, 1e-320)}, "velocity_limits is .* expected numbers of at least 0.001"),
        ({"velocity_limits": (1e-3, 1.0), "effort_limits": (10.0, 1.0)}, "k_velocity is .* at most 1000"),
        ({"velocity_limits": (1.0, math.inf)}, "k_velocity is missing"),
        ({"velocity_limits": (1.0, 1.0), "k_velocity": (0.0, 1.0)}, "k_velocity is"),
        ({"velocity_limits": (1.0, 1.0), "k_position": (1e3, 1.0)}, "k_position is"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(VjepaError, match=message):
        checked(GuardParameters(**settings))


def test_limits_that_are_not_given_are_those_of_the_urdf(urdf):
    found = checked(GuardParameters(urdf=urdf()))
    assert (found.position_lower, found.position_upper) == ((-math.inf, -1.5), (math.inf, 2.0))
    assert found.velocity_limits == (5.0, 4.0)
    assert found.k_velocity == (0.05 / 5.0, 0.05 / 4.0), "not every joint has a safety controller"


def test_gains_are_those_of_the_urdf_where_every_joint_has_them(urdf):
    found = checked(
        GuardParameters(joint_names=("wrist",), effort_limits=(1.0,), slew_rates=(1.0,), damping=(0.0,), urdf=urdf())
    )
    assert (found.k_position, found.k_velocity) == ((8.0,), (0.3,))


@pytest.mark.parametrize("gain", ['k_position="-8"', 'k_velocity="-0.3"', 'k_position="1e9"'])
def test_gains_of_a_urdf_that_would_push_out_of_the_travel_are_refused(urdf, gain):
    name = gain.partition("=")[0]
    text = re.sub(f'{name}="[^"]*"', gain, URDF)
    wrist = {"joint_names": ("wrist",), "effort_limits": (1.0,), "slew_rates": (1.0,), "damping": (0.0,)}
    with pytest.raises(VjepaError, match=f"{name} is"):
        checked(GuardParameters(urdf=urdf(text), **wrist))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"effort_limits": (3.1, 0.5)}, "effort_limits of shoulder is 3.1; .* allows 0 to 3"),
        ({"velocity_limits": (5.0, 4.1)}, "velocity_limits of wrist is 4.1; .* allows 0 to 4"),
        ({"position_lower": (-1.0, -1.6), "position_upper": (1.0, 1.0)}, "position_lower of wrist is -1.6"),
        ({"position_lower": (-1.0, -1.0), "position_upper": (1.0, math.inf)}, "position_upper of wrist is inf"),
        ({"joint_names": ("shoulder", "elbow")}, "has no joint 'elbow'; it has: shoulder, wrist, mount"),
        ({"joint_names": ("shoulder", "mount")}, "joint 'mount' of URDF .* is fixed"),
    ],
)
def test_limits_beyond_those_of_the_arm_are_refused(urdf, settings, message):
    with pytest.raises(VjepaError, match=message):
        checked(GuardParameters(urdf=urdf(), **settings))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<robot", "is not XML"),
        ("<model/>", "begins with <model>; expected <robot>"),
        ("", "is not XML"),
        ('<!DOCTYPE robot [<!ENTITY a "b">]><robot name="&a;"/>', "has a document type"),
        (URDF.replace('effort="3"', 'effort="much"'), "has effort 'much' in its limit; expected a finite number"),
        (URDF.replace('velocity="5"', ""), "has velocity None in its limit"),
        (URDF.replace('upper="2.5"', 'upper="nan"'), "has upper 'nan'"),
        (URDF.replace('velocity="5"', 'velocity="0"'), "velocity_limits is"),
        (URDF.replace("</robot>", '<joint name="wrist" type="continuous"/></robot>'), "has joint 'wrist' twice"),
    ],
)
def test_a_urdf_that_cannot_be_used_is_refused_in_words(urdf, text, message):
    with pytest.raises(VjepaError, match=message):
        checked(GuardParameters(urdf=urdf(text)))


def test_soft_limits_of_a_urdf_do_not_widen_its_hard_ones_and_joints_of_a_simulator_do_not_count(urdf):
    wide = URDF.replace('soft_lower_limit="-1.5" soft_upper_limit="2"', 'soft_lower_limit="-9" soft_upper_limit="9"')
    plugin = '<gazebo><joint name="wrist" type="continuous"><limit effort="9" velocity="9"/></joint></gazebo></robot>'
    found = checked(GuardParameters(urdf=urdf(wide.replace("</robot>", plugin))))
    assert (found.position_lower[1], found.position_upper[1]) == (-2.0, 2.5)


@pytest.mark.parametrize("path", ["~nobody-of-this-name/arm.urdf", "a\0b", "/dev/zero", "/"])
def test_a_path_that_no_urdf_can_be_read_from_is_refused_in_words(path):
    with pytest.raises(VjepaError, match=r"URDF .* (cannot be read|is larger than)"):
        checked(GuardParameters(urdf=path))


def test_a_urdf_that_is_not_there_is_refused_in_words(tmp_path):
    with pytest.raises(VjepaError, match="cannot be read: No such file"):
        checked(GuardParameters(urdf=str(tmp_path / "none.urdf")))
