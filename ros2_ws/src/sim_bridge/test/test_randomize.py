import numpy as np
import pytest

from sim_bridge.env import SimConfig, SimEnv
from vjepa_interfaces.errors import VjepaError

LOOKS = [{"randomize_camera": True}, {"randomize_appearance": True}]


@pytest.fixture
def make_env():
    made = []

    def make(**config):
        made.append(SimEnv(SimConfig(**config)))
        return made[-1]

    yield make
    for env in made:
        env.close()


def frames_of(env: SimEnv, episodes: int) -> list[np.ndarray]:
    """Return the first frame of each of the next episodes."""
    frames = []
    for _ in range(episodes):
        env.reset()
        frames.append(env.render())
    return frames


@pytest.mark.parametrize("looks", LOOKS)
def test_looks_change_every_episode_but_states_never(make_env, looks):
    plain, random = make_env(), make_env(**looks)
    for _ in range(5):
        one, other = plain.reset(), random.reset()
        np.testing.assert_array_equal(one.joint_position, other.joint_position)
        np.testing.assert_array_equal(one.target, other.target)
        np.testing.assert_array_equal(plain.step([0.03, 0.01]).joint_velocity, random.step([0.03, 0.01]).joint_velocity)
        assert (plain.render() != random.render()).mean() > 0.05


@pytest.mark.parametrize("looks", LOOKS)
def test_an_episodes_looks_depend_on_its_seed_alone(make_env, looks):
    as_third_and_fourth = frames_of(make_env(seed=3, **looks), 4)[2:]
    as_first_and_second = frames_of(make_env(seed=5, **looks), 2)
    np.testing.assert_array_equal(as_third_and_fourth, as_first_and_second)


def test_the_camera_never_wanders_off(make_env):
    env = make_env(randomize_camera=True)
    model = env._physics.model
    position, orientation = model.cam_pos[0].copy(), model.cam_quat[0].copy()
    shifts, tilts, views = [], [], []
    for _ in range(100):
        env.reset()
        shifts.append(np.abs(model.cam_pos[0] - position).max())
        tilts.append(2 * np.rad2deg(np.arccos(min(abs(model.cam_quat[0] @ orientation), 1))))
        views.append(model.cam_fovy[0])
    assert 0.015 < max(shifts) <= 0.02 + 1e-9
    assert 2.5 < max(tilts) <= 3 + 1e-6
    assert 43 <= min(views) < 43.5 < 46.5 < max(views) <= 47


def test_the_camera_is_drawn_alike_whatever_the_appearance(make_env):
    camera, both = make_env(randomize_camera=True), make_env(randomize_camera=True, randomize_appearance=True)
    for env in (camera, both):
        env.reset()
    assert camera.focal_length_px == both.focal_length_px != make_env().focal_length_px


def test_colours_stay_colours_and_opaque(make_env):
    env = make_env(randomize_appearance=True)
    model = env._physics.model
    opacity = model.mat_rgba[:, 3].copy()
    for _ in range(50):
        env.reset()
        assert model.mat_rgba.min() >= 0
        assert model.mat_rgba.max() <= 1
        np.testing.assert_array_equal(model.mat_rgba[:, 3], opacity)


def test_the_size_of_the_target_is_drawn_anew_and_shows_and_is_the_seeds(make_env):
    plain, drawn, again = make_env(), make_env(randomize_target_size=True), make_env(randomize_target_size=True)
    sizes = []
    for _ in range(6):
        one, other, _ = plain.reset(), drawn.reset(), again.reset()
        np.testing.assert_array_equal(one.target, other.target)
        np.testing.assert_array_equal(one.joint_position, other.joint_position)
        assert drawn.target_size == again.target_size
        assert plain.target_size == pytest.approx(0.05)
        assert (plain.render() != drawn.render()).any()
        sizes.append(drawn.target_size)
    assert 0.03 <= min(sizes) < max(sizes) <= 0.07
    assert len(set(sizes)) == 6


def test_what_is_rewarded_follows_the_size_of_the_target(make_env):
    env = make_env(randomize_target_size=True, episode_steps=2)
    rewards = []
    for _ in range(300):
        env.reset()
        step = env.step([0.0, 0.0])
        distance = float(np.linalg.norm((step.target - step.fingertip)[:2]))
        rewards.append((step.reward, distance <= env.target_size + 0.01))
    assert all(bool(reward) == inside for reward, inside in rewards)
    assert any(inside for _, inside in rewards)


def test_a_task_without_a_target_geometry_has_no_size_to_draw(make_env):
    env = make_env(task="finger-spin", randomize_target_size=True)
    with pytest.raises(VjepaError, match="finger-spin has no target, so its size"):
        env.reset()
    assert np.isnan(env.target_size)
