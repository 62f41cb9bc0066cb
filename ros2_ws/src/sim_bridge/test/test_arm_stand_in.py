"""The stand-in for a real arm: motors obey the last command, and are off when it is too old or there is none."""

import numpy as np
import pytest

from sim_bridge.arm_model import load_arm
from sim_bridge.arm_stand_in import ArmStandIn, ArmStandInParameters
from sim_bridge.env import SimConfig, SimEnv
from vjepa_interfaces.effort import CommandRefusedError
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.parameters import read_parameters

OFF = [0.0, 0.0]


class Clock:
    now = 5.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def arm(clock):
    with ArmStandIn(ArmStandInParameters(), clock) as arm:
        yield arm


def test_a_command_is_obeyed_until_it_is_too_old(arm, clock):
    assert arm.advance().effort.tolist() == OFF
    arm.command([0.02, -0.01])
    clock.now += 0.1
    assert arm.advance().effort.tolist() == [0.02, -0.01]
    clock.now += 0.01
    assert arm.advance().effort.tolist() == OFF


def test_what_is_no_command_is_refused_and_a_large_one_clamped(arm):
    arm.command([0.02, -0.01])
    for senseless in ([np.nan, 0.0], [0.01], [0.01] * 3):
        with pytest.raises(CommandRefusedError):
            arm.command(senseless)
    assert arm.advance().effort.tolist() == [0.02, -0.01]
    arm.command([1.0, -1.0])
    assert arm.advance().effort.tolist() == [0.05, -0.05]


def test_it_moves_as_the_simulated_arm_but_in_steps_of_its_own(clock):
    with ArmStandIn(ArmStandInParameters(rate_hz=500.0), clock) as arm, SimEnv(SimConfig()) as env:
        begin = env.reset(0).joint_position
        arm.command([0.01, 0.01])
        for _ in range(5):
            for _ in range(10):
                reading = arm.advance()
            step = env.step(np.array([0.01, 0.01]))
        moved = np.abs(step.joint_position - begin).max()
        assert np.abs(reading.position - step.joint_position).max() < 0.25 * moved
        assert arm.render().shape == (64, 64, 3)


@pytest.mark.parametrize("name", ["rate_hz", "camera_rate_hz", "command_timeout_s"])
def test_a_rate_or_timeout_that_is_none_is_refused(name):
    with pytest.raises(VjepaError, match=f"'{name}' is 0.0; expected more than 0, and finite"):
        read_parameters(ArmStandInParameters, {name: 0.0})


ARM = """
<mujoco>
  <option timestep="0.002"/>
  <worldbody>
    <camera name="above" pos="0 0 2"/>
    <camera name="side" pos="0 -2 0" xyaxes="1 0 0 0 0 1"/>
    <light pos="0 0 2"/>
    <geom name="target" type="sphere" size="0.05" pos="0.3 0.2 0" contype="0" conaffinity="0"/>
    <body gravcomp="1">
      <joint name="base" axis="0 0 1" damping="0.1"/>
      <geom type="capsule" size="0.03" fromto="0 0 0 0.3 0 0"/>
      <body pos="0.3 0 0" gravcomp="1">
        <joint name="elbow" axis="0 1 0" damping="0.1"/>
        <geom type="capsule" size="0.02" fromto="0 0 0 0.3 0 0" contype="0" conaffinity="0"/>
        <site name="hand" pos="0.3 0 0"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <motor joint="base" gear="4" ctrllimited="true" ctrlrange="-1 1"/>
    <motor joint="elbow" ctrllimited="true" ctrlrange="-0.5 0.5"/>
  </actuator>
  <keyframe>
    <key qpos="0.1 0.2"/>
    <key qpos="-1 0.5"/>
  </keyframe>
</mujoco>
"""
ELBOW = '<motor joint="elbow" ctrllimited="true" ctrlrange="-0.5 0.5"/>'


@pytest.fixture
def model(tmp_path):
    """Return a function that writes the model, with text replaced, and returns its path."""

    def write(*replaced: tuple[str, str]) -> str:
        text = ARM
        for old, new in replaced:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "arm.xml"
        path.write_text(text)
        return str(path)

    return write


def test_a_model_of_ones_own_is_moved_and_seen(model, clock):
    with ArmStandIn(ArmStandInParameters(model=model(), image_size=(48, 32)), clock) as arm:
        assert (arm.limits.joint_names, arm.limits.limits) == (("base", "elbow"), (4.0, 0.5))
        arm.command([9.0, 9.0])
        reading = arm.advance()
        assert reading.effort.tolist() == [4.0, 0.5], "each motor has a limit of its own"
        assert reading.position == pytest.approx([0.1, 0.2], abs=0.05)
        first = arm.render()
        assert first.shape == (32, 48, 3)
        for _ in range(50):
            arm.command([1.0, 0.0])
            reading = arm.advance()
        assert reading.position[0] > 0.3
        assert (arm.render() != first).any()


def test_gravity_is_the_models_own_business_and_compensated_where_it_is(model, clock):
    def sag(path: str) -> float:
        with ArmStandIn(ArmStandInParameters(model=path), clock) as arm:
            begin = arm.advance().position
            for _ in range(20):
                reading = arm.advance()
            return float(np.abs(reading.position - begin).max())

    assert sag(model()) < 1e-3
    assert sag(model((' gravcomp="1"', ""))) > 0.05


def test_a_seed_chooses_among_the_keyframes_of_a_model(model, clock):
    path = model()
    for seed, pose in ((0, [0.1, 0.2]), (1, [-1.0, 0.5]), (2, [0.1, 0.2])):
        with ArmStandIn(ArmStandInParameters(model=path, seed=seed), clock) as arm:
            assert arm.advance().position == pytest.approx(pose, abs=1e-3)
            arm.command([1.0, 0.1])
            arm.begin(1)
            reading = arm.advance()
            assert reading.position == pytest.approx([-1.0, 0.5], abs=1e-3)
            assert reading.effort.tolist() == OFF, "nothing is commanded after a hand has moved it"
    without = model(('<key qpos="0.1 0.2"/>', ""), ('<key qpos="-1 0.5"/>', ""))
    with ArmStandIn(ArmStandInParameters(model=without, seed=5), clock) as arm:
        assert arm.advance().position == pytest.approx(OFF, abs=1e-3)


def test_the_camera_is_the_one_that_is_named_or_the_first(model):
    path = model()
    assert [load_arm(path, camera).camera_id for camera in ("", "above", "side")] == [0, 0, 1]
    with pytest.raises(VjepaError, match=r"arm\.xml: unknown camera 'hand'; valid are: above, side"):
        load_arm(path, "hand")
    with pytest.raises(VjepaError, match="model the reacher: unknown camera 'side'; valid are: fixed"):
        load_arm("", "side")


def test_the_places_of_the_model_can_be_measured(model, clock):
    with ArmStandIn(ArmStandInParameters(model=model()), clock) as arm:
        assert arm.place("geom", "target") == pytest.approx([0.3, 0.2, 0.0])
        assert np.linalg.norm(arm.place("site", "hand")) < 0.6
        with pytest.raises(VjepaError, match="unknown site 'foot'; valid are: hand"):
            arm.place("site", "foot")


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ('<position joint="elbow" kp="5"/>', "actuator '1' is a position servo; expected"),
        ('<position name="servo" joint="elbow" kp="5"/>', "actuator 'servo' is a position servo"),
        ('<velocity joint="elbow" kv="5"/>', "actuator '1' is a velocity servo"),
        ('<general joint="elbow" gainprm="3" ctrllimited="true" ctrlrange="-1 1"/>', "actuator '1' is not a motor"),
        ('<motor joint="elbow"/>', "actuator '1' is a motor without limited control"),
        ('<motor joint="base" ctrllimited="true" ctrlrange="-1 1"/>', "actuator '1' is a second motor of 'base'"),
    ],
)
def test_what_is_no_motor_of_an_arm_is_refused_with_what_to_do(model, new, message):
    with pytest.raises(VjepaError, match=f"arm.xml: {message}"):
        load_arm(model((ELBOW, new)), "")


def test_a_model_without_motors_names_or_camera_is_refused_with_what_to_do(model):
    bare = ('<motor joint="base" gear="4" ctrllimited="true" ctrlrange="-1 1"/>', "")
    with pytest.raises(VjepaError, match="it has no actuators; give each joint of the arm a plain motor: <motor"):
        load_arm(model((ELBOW, ""), bare), "")
    with pytest.raises(VjepaError, match="actuator '0' moves a joint that is neither a hinge nor a slide"):
        load_arm(
            model(
                ('name="base" axis="0 0 1"', 'name="base" type="ball"'),
                ('"0.1 0.2"', '"1 0 0 0 0.2"'),
                ('"-1 0.5"', '"1 0 0 0 0.5"'),
            ),
            "",
        )
    cameras = (
        ('<camera name="above" pos="0 0 2"/>', ""),
        (
            '<camera name="side" pos="0 -2 0" xyaxes="1 0 0 0 0 1"/>',
            "",
        ),
    )
    with pytest.raises(VjepaError, match="has no camera; add a <camera name= pos= xyaxes=/> that shows arm and target"):
        load_arm(model(*cameras), "")


@pytest.mark.parametrize(
    "limited",
    [
        '<motor joint="elbow" forcelimited="true" forcerange="-0.5 0.5"/>',
        '<motor joint="elbow" gear="-10" ctrlrange="-1 1" forcelimited="true" forcerange="-.05 .05"/>',
    ],
)
def test_limits_of_force_count_as_those_of_control(model, clock, limited):
    with ArmStandIn(ArmStandInParameters(model=model((ELBOW, limited))), clock) as arm:
        arm.command([0.0, 3.0])
        assert arm.advance().effort == pytest.approx([0.0, 0.5])


def test_a_limit_of_the_joint_counts_too(model, clock):
    limit = 'name="elbow" actuatorfrclimited="true" actuatorfrcrange="-0.2 0.3"'
    unlimited = (ELBOW, '<motor joint="elbow" gear="2"/>')
    with ArmStandIn(ArmStandInParameters(model=model(('name="elbow"', limit), unlimited)), clock) as arm:
        for asked, applied in ((3.0, 0.3), (-3.0, -0.2), (0.1, 0.1)):
            arm.command([0.0, asked])
            assert arm.advance().effort == pytest.approx([0.0, applied])


def test_a_file_that_is_no_model_is_refused_by_its_name(tmp_path):
    with pytest.raises(VjepaError, match=r"model file '.*none\.xml' does not exist; give the path of"):
        load_arm(str(tmp_path / "none.xml"), "")
    (tmp_path / "broken.xml").write_text("<mujoco><nonsense/></mujoco>")
    with pytest.raises(VjepaError, match=r"MuJoCo cannot read model .*broken\.xml: .*nonsense"):
        load_arm(str(tmp_path / "broken.xml"), "")


def test_a_model_that_explodes_is_reported_with_what_to_do(model, clock):
    path = model((' timestep="0.002"', ' timestep="0.5"'), (' damping="0.1"', ' stiffness="1e9"'))
    with ArmStandIn(ArmStandInParameters(model=path, rate_hz=2.0), clock) as arm:

        def go_on() -> None:
            for _ in range(100):
                arm.command([4.0, 0.5])
                arm.advance()

        with pytest.raises(VjepaError, match=r"arm\.xml became unstable: .*; give it a shorter <option timestep=/>"):
            go_on()
