"""Looks change what the camera sees and nothing else; renderings are what they are called."""

import cv2
import numpy as np
import pytest

from sim_bridge.backgrounds import Pictures, drawn_video
from sim_bridge.camera_view import RENDERINGS
from sim_bridge.env import SimConfig, SimEnv
from sim_bridge.looks import EFFECTS, NAMES, SCALES, Look
from sim_bridge.tasks import TASKS
from vjepa_interfaces.errors import VjepaError

SUITE_CAMERA = {
    "reacher-easy": {
        "low": [0.6375, -0.471239, -0.471239, -0.471239],
        "high": [1.0875, 0.471239, 0.471239, 0.471239],
        "speeds": [0.0225, 0.01884955592153876],
        "spreads": [0.005625, 0.003141592653589793],
        "poses": [
            (
                [0.7863, -0.065, 0.278, -0.077],
                [0.21533, -0.01402, 0.75611],
                [0.9585, 0.0765, 0.2747, -0.0744, 0.997, -0.0179, -0.2753, -0.0033, 0.9613],
            ),
            (
                [0.8826, -0.4007, 0.215, 0.0324],
                [0.17338, -0.07345, 0.86228],
                [0.9801, -0.0234, 0.197, 0.0406, 0.9957, -0.0834, -0.1942, 0.0898, 0.9768],
            ),
            (
                [0.8673, 0.3821, -0.3018, 0.3806],
                [0.2297, -0.11704, 0.8281],
                [0.9017, -0.341, 0.2656, 0.3851, 0.9129, -0.1353, -0.1963, 0.2243, 0.9545],
            ),
        ],
        "walk": [1.074495, -0.122611, 0.23936, 0.095763],
    },
    "finger-spin": {
        "low": [1.088531, -2.042035, 0.424816, -0.471239],
        "high": [1.856906, -1.099557, 1.367294, 0.471239],
        "speeds": [0.03841874542459709, 0.01884955592153876],
        "spreads": [0.009604686356149273, 0.003141592653589793],
        "poses": [
            (
                [1.4809, -1.1887, 0.5942, 0.3806],
                [0.30913, -0.76929, 1.22707],
                [0.741, -0.6193, 0.2596, 0.6259, 0.497, -0.601, 0.2432, 0.6078, 0.7559],
            ),
            (
                [1.507, -1.9715, 1.1111, 0.0324],
                [-0.52681, -1.24357, 0.66862],
                [0.9173, 0.0732, -0.3915, -0.397, 0.2453, -0.8844, 0.0313, 0.9667, 0.2541],
            ),
        ],
        "walk": [1.833435, -1.486312, 0.782617, 0.095763],
    },
}
"""What the Distracting Control Suite's own `DistractingCameraEnv` printed at scale 0.3 for the episode of seed 3, in
github.com/geyang/gym-distracting-control at commit 83a3c87: limits of radius, azimuth, polar angle and roll; greatest
speeds, m and rad a step, and the spreads of their random walk; for a drawn place the camera's position and axes; and
where `WALK_STEPS` steps lead from the middle of the limits, with the draws 2 sin(0), 2 sin(1), ...
"""
WALK_STEPS = 20
WALK_VELOCITY = [0.01, -0.02, 0.015, 0.003]

SHIPPED = ("reacher-easy", "reacher-hard", "finger-spin", "point_mass-easy")


@pytest.fixture
def make_env():
    made = []

    def make(**config):
        made.append(SimEnv(SimConfig(**{"seed": 3, **config})))
        return made[-1]

    yield make
    for env in made:
        env.close()


def walk(env: SimEnv, steps: int, episode: int | None = None) -> tuple[list, list[np.ndarray]]:
    """Return the steps of an episode, of the next one unless told, and its frames, under random efforts."""
    rng = np.random.default_rng(0)
    found, frames = [env.reset(episode)], [env.render()]
    for _ in range(steps):
        found.append(env.step(env.limits.effort_of(rng.uniform(-1, 1, len(env.limits.joint_names)))))
        frames.append(env.render())
    return found, frames


@pytest.mark.parametrize("task", SHIPPED)
def test_frames_are_nearly_dm_controls_or_exactly(make_env, task):
    exact, near, plain = (make_env(task=task, render=render) for render in ("exact", "dm_control", "plain"))
    reference = TASKS[task].load(3)
    camera = reference.physics.model.name2id(TASKS[task].camera, "camera")
    rng = np.random.default_rng(1)
    differences = []
    for number in range(5):
        for env in (exact, near, plain):
            env.reset(number)
        reference.task.random.seed(3 + number)
        reference.reset()
        for _ in range(rng.integers(0, 20)):
            effort = exact.limits.effort_of(rng.uniform(-1, 1, 2))
            for env in (exact, near, plain):
                env.step(effort)
            reference.step(exact._motors.to_control(effort)[0])
        own = reference.physics.render(64, 64, camera)
        np.testing.assert_array_equal(exact.render(), own)
        differences.append([np.abs(env.render().astype(int) - own).mean() for env in (near, plain)])
    near_by, plain_by = np.mean(differences, axis=0)
    assert near_by <= 2.5
    assert plain_by > near_by + 2


@pytest.fixture(scope="module", params=["reacher-easy", "finger-spin"])
def nominal_walk(request):
    """Return a task, and the second episode of a simulation of it as it is."""
    with SimEnv(SimConfig(request.param, seed=2)) as env:
        env.reset()
        return request.param, *walk(env, 4)


@pytest.mark.parametrize("name", [*EFFECTS, "all", "random", "varied"])
def test_a_look_changes_frames_and_nothing_else(make_env, nominal_walk, name):
    task, steps, frames = nominal_walk
    env = make_env(task=task, look=f"{name}:hard", seed=2)
    env.reset()
    seen_steps, seen = walk(env, 4)
    for one, other in zip(steps, seen_steps, strict=True):
        for field, value in vars(one).items():
            np.testing.assert_array_equal(getattr(other, field), value, err_msg=field)
    different = [np.mean(a != b) for a, b in zip(frames, seen, strict=True)]
    assert max(different) > 0.005, "it is seen"
    np.testing.assert_array_equal(walk(env, 4, episode=1)[1], seen, "it depends on the episode's seed alone")


@pytest.mark.parametrize("name", ["colour", "camera", "background", "light", "exposure", "occlusion"])
def test_what_moves_changes_while_the_arm_stands_still(make_env, name):
    still, moving = (make_env(look=f"{name}:hard{suffix}") for suffix in ("", ":moving"))
    changes = []
    for env in (still, moving):
        env.reset()
        first = env.render()
        for _ in range(10):
            env._looks.advance()
        changes.append(np.abs(env.render().astype(int) - first).mean())
    assert changes[0] == 0
    assert changes[1] > 0.05


def test_the_sky_is_of_each_picture_also_where_the_last_one_is_gone(make_env):
    scene = make_env(look="background")._looks._scene
    seen = []
    for level in range(0, 200, 10):  # The memory of a picture that is gone is that of the next one.
        scene.set_sky(np.full((256, 256, 3), level, np.uint8))
        start = int(scene.model.tex_adr[scene.model.name2id("skybox", "texture")])
        seen.append(int(scene.model.tex_data[start]))
    assert seen == list(range(0, 200, 10))


@pytest.fixture(scope="module")
def nominal_frames():
    """The first frames of six episodes as the task is."""
    with SimEnv(SimConfig(seed=3)) as env:
        return [(env.reset(), env.render())[1].astype(int) for _ in range(6)]


@pytest.mark.parametrize("name", [name for name in EFFECTS if name not in ("background", "latency")])
def test_a_harder_look_is_farther_from_nominal(make_env, nominal_frames, name):
    far = []
    for level in SCALES:
        env = make_env(look=f"{name}:{level}")
        frames = [(env.reset(), env.render())[1].astype(int) for _ in nominal_frames]
        far.append(np.abs(np.subtract(frames, nominal_frames)).mean())
    assert far[0] < far[1] < far[2]


class Draws:
    """In a generator's place: `uniform` gives the place, and no speed; `standard_normal` goes through `numbers`."""

    def __init__(self, place=(), numbers=()):
        self._place, self._numbers = np.array(place), list(numbers)

    def uniform(self, low, high):
        return self._place if np.ndim(low) else 0.0

    def standard_normal(self, count):
        drawn, self._numbers = self._numbers[:count], self._numbers[count:]
        return np.array(drawn)


@pytest.mark.parametrize("task", SUITE_CAMERA)
def test_the_camera_is_that_of_the_distracting_control_suite(make_env, task):
    expected = SUITE_CAMERA[task]
    env = make_env(task=task, look="camera:hard:moving")
    env.reset()
    (camera,), scene = env._looks._effects, env._looks._scene
    np.testing.assert_allclose((camera._low, camera._high), (expected["low"], expected["high"]), atol=1e-6)
    np.testing.assert_allclose((camera._fastest, camera._fastest_roll), expected["speeds"])
    np.testing.assert_allclose(camera._shake[2:], expected["spreads"])
    middle = (camera._low + camera._high) / 2
    poses = expected["poses"]
    for place, position, axes in poses:
        env.reset(0)
        camera.begin(scene, Draws(place, np.ones(3)))
        camera.apply(scene)
        np.testing.assert_allclose(scene.data.cam_xpos[0], position, atol=1e-5)
        # Theirs shortens the axis that it turns about by 1e-4 of a metre.
        np.testing.assert_allclose(scene.data.cam_xmat[0], axes, atol=2e-4)
    camera._place, camera._velocity = middle, np.array(WALK_VELOCITY)
    draws = Draws(numbers=2 * np.sin(np.arange(4.0 * WALK_STEPS)))
    for _ in range(WALK_STEPS):
        camera.advance(draws)
    np.testing.assert_allclose(camera._place, expected["walk"], atol=1e-5)


def test_frames_of_latency_are_those_of_before(make_env):
    now, late = make_env(), make_env(look="latency:medium")
    frames, seen = walk(now, 6)[1], walk(late, 6)[1]
    for at, frame in enumerate(seen):
        np.testing.assert_array_equal(frame, frames[max(0, at - 2)])


@pytest.mark.parametrize("look", ["random", "varied"])
def test_the_scene_is_nominal_again_after_one_for_training(make_env, look):
    env, nominal = make_env(look=look), make_env()
    shares = []
    for _ in range(40):
        frames = [(each.reset(), each.render())[1] for each in (env, nominal)]
        shares.append(np.mean(frames[0] != frames[1]))
    assert 0 in shares, "some look as the task does, whatever was before"
    assert max(shares) > 0.9


def test_varied_frames_have_what_a_camera_does_to_them(make_env):
    env = make_env(look="varied")
    effects = set()
    for _ in range(40):
        env.reset()
        effects |= {type(part).__name__ for part in env._looks._effects[0]._parts}
    assert effects == {"Colour", "Camera", "Background", "Light", "Exposure", "Noise", "Blur", "Jpeg", "Occlusion"}


def test_backgrounds_come_from_a_folder(make_env, tmp_path):
    for name, level in (("a.png", 40), ("b.png", 220)):
        cv2.imwrite(str(tmp_path / name), np.full((30, 40, 3), level, np.uint8))
    (tmp_path / "c").mkdir()
    for number in range(3):
        cv2.imwrite(str(tmp_path / "c" / f"{number}.jpg"), np.full((30, 40, 3), 100 + number, np.uint8))
    (tmp_path / "notes.txt").write_text("nothing to see")
    pictures = Pictures(str(tmp_path))
    assert [[frame.mean() for frame in pictures.video(number)] for number in range(4)] == [
        [40],
        [220],
        [100, 101, 102],
        [40],
    ]
    env = make_env(look="background", backgrounds=str(tmp_path))
    corners = set()
    for _ in range(12):
        env.reset()
        corners.add(int(env.render()[4:8, 10:20].mean()) // 20)
    assert len(corners) >= 2


def test_a_folder_of_backgrounds_may_be_written_from_the_home_folder_on(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    cv2.imwrite(str(tmp_path / "mine" / "a.png"), np.full((30, 40, 3), 40, np.uint8))
    assert Pictures("~/mine").video(0)[0].mean() == 40


def test_drawn_videos_are_each_their_own():
    videos = [drawn_video(number) for number in range(6)]
    assert all(frame.shape == (256, 256, 3) for video in videos for frame in (video[0], video[99]))
    assert len({tuple(video[0].mean((0, 1)).astype(int)) for video in videos}) == 6
    assert any((video[0] != video[9]).any() for video in videos)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colours", f"unknown look 'colours'; valid are: {', '.join(sorted(NAMES))}"),
        ("colour:extreme", "the look is 'colour:extreme'; expected a name, then a level of easy, medium, hard"),
        ("colour:easy:static", "and 'moving' if it is to change during an episode, as in colour:medium"),
        ("colour:easy:moving:fast", "expected a name"),
    ],
)
def test_what_is_no_look_is_refused(text, message):
    with pytest.raises(VjepaError, match=message):
        SimConfig(look=text)


def test_other_words_are_refused_with_those_there_are(tmp_path):
    with pytest.raises(VjepaError, match=f"render.*{RENDERINGS[0]}"):
        SimConfig(render="pretty")
    with pytest.raises(VjepaError, match="has no backgrounds; expected a folder with pictures"):
        Pictures(str(tmp_path))
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(VjepaError, match=r"a\.png cannot be read"):
        Pictures(str(tmp_path)).video(0)
    assert Look.of("all:hard:moving") == Look("all", "hard", True)
    assert Look.of("nominal").effects() == []
