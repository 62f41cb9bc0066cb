"""The URDF that RViz shows is the arm that is simulated: where its links are, how they move, what they look like."""

from pathlib import Path
from xml.etree import ElementTree

import mujoco
import numpy as np
import pytest
import yaml

from sim_bridge.motors import Motors
from sim_bridge.tasks import TASKS, task_named
from vjepa_interfaces import topics

URDF = Path(__file__).resolve().parents[1] / "urdf" / "reacher.urdf"
COMPILER = '<robot name="reacher"><mujoco><compiler discardvisual="false" fusestatic="false"/></mujoco>'
"""MuJoCo leaves out what is only to be looked at, and joins links that do not move, unless it is told not to."""

CAPSULE, CYLINDER, SPHERE = (int(getattr(mujoco.mjtGeom, f"mjGEOM_{n}")) for n in ("CAPSULE", "CYLINDER", "SPHERE"))


@pytest.fixture(scope="module")
def described() -> mujoco.MjModel:
    text = URDF.read_text()
    assert text.count('<robot name="reacher">') == 1
    return mujoco.MjModel.from_xml_string(text.replace('<robot name="reacher">', COMPILER))


@pytest.fixture(scope="module")
def simulated():
    return task_named("reacher-easy").load(0).physics


@pytest.fixture
def joints() -> dict[str, ElementTree.Element]:
    return {joint.get("name"): joint for joint in ElementTree.parse(URDF).getroot().iter("joint")}


def pose(model: mujoco.MjModel, data: mujoco.MjData, body: str) -> np.ndarray:
    """Rotation and position of a body in the world, (12,)."""
    found = data.body(body)
    return np.concatenate([found.xmat, found.xpos])


def geoms(model: mujoco.MjModel, body: str) -> list:
    """Kind, size and colour of the geoms of a body; of a capsule those of its cylinder and two balls."""
    found = []
    for i in np.flatnonzero(model.geom_bodyid == model.body(body).id):
        kind, (radius, half_length, _) = int(model.geom_type[i]), model.geom_size[i]
        material = model.geom_matid[i]
        colour = tuple((model.mat_rgba[material] if material >= 0 else model.geom_rgba[i]).round(6))
        if kind in (CAPSULE, CYLINDER):
            found.append((CYLINDER, round(radius, 9), round(half_length, 9), colour))
        if kind in (CAPSULE, SPHERE):
            found += [(SPHERE, round(radius, 9), 0.0, colour)] * (2 if kind == CAPSULE else 1)
    return sorted(found)


def test_every_link_is_where_the_simulation_has_it_at_any_joint_angles(described, simulated):
    ours, data = simulated.model.ptr, mujoco.MjData(described)
    random = np.random.default_rng(0)
    for angles in random.uniform([-np.pi, -2.79], [np.pi, 2.79], size=(50, 2)):
        with simulated.reset_context():
            simulated.named.data.qpos[["shoulder", "wrist"]] = angles
        for name, angle in zip(("shoulder", "wrist"), angles, strict=True):
            data.joint(name).qpos[0] = angle
        mujoco.mj_forward(described, data)
        for body in ("arm", "hand", "finger"):
            expected = pose(ours, simulated.data.ptr, body)
            np.testing.assert_allclose(pose(described, data, body), expected, atol=1e-9, err_msg=f"{body} at {angles}")


@pytest.mark.parametrize("task", ["reacher-easy", "reacher-hard"])
def test_joints_have_the_names_axes_and_limits_of_the_joint_states(described, joints, task):
    physics = TASKS[task].load(0).physics
    motors = Motors(physics)
    moving = [name for name, joint in joints.items() if joint.get("type") != "fixed"]
    assert tuple(moving) == motors.names
    for name, effort in zip(motors.names, motors.limits, strict=True):
        ours, theirs = described.joint(name), physics.model.ptr.joint(name)
        np.testing.assert_allclose(ours.axis, theirs.axis)
        assert joints[name].get("type") == ("revolute" if physics.named.model.jnt_limited[name] else "continuous")
        np.testing.assert_allclose(ours.range, theirs.range, atol=1e-9)
        damping = float(joints[name].find("dynamics").get("damping"))
        assert damping == physics.named.model.dof_damping[name]
        limit = joints[name].find("limit")
        assert float(limit.get("effort")) == effort
        assert float(limit.get("velocity")) == pytest.approx(effort / damping)


@pytest.mark.parametrize("link", ["arm", "hand", "finger"])
def test_links_look_and_weigh_as_in_the_simulation(described, simulated, link):
    ours = simulated.model.ptr
    assert geoms(described, link) == geoms(ours, link)
    np.testing.assert_allclose(described.body(link).mass, ours.body(link).mass)
    np.testing.assert_allclose(described.body(link).ipos, ours.body(link).ipos, atol=1e-12)
    np.testing.assert_allclose(sorted(described.body(link).inertia), sorted(ours.body(link).inertia), rtol=1e-6)


def test_the_camera_looks_where_the_simulated_one_does(described, simulated):
    data = mujoco.MjData(described)
    mujoco.mj_forward(described, data)
    optical, camera = data.body(topics.CAMERA_FRAME), simulated.data.ptr.camera("fixed")
    # MuJoCo's cameras look along -z with y up, optical frames along z with y down.
    np.testing.assert_allclose(optical.xmat.reshape(3, 3), camera.xmat.reshape(3, 3) * [1, -1, -1], atol=1e-9)
    np.testing.assert_allclose(optical.xpos, camera.xpos, atol=1e-9)


def test_a_shell_can_pass_it_on_as_a_parameter():
    """As in `-p robot_description:="$(cat reacher.urdf)"`, whose value ROS reads as YAML."""
    assert isinstance(yaml.safe_load(URDF.read_text()), str)
