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


def walk(env: SimEnv, steps: int) -> tuple[list, list[np.ndarray]]:
    """Return the steps of the next episode and its frames, under random efforts."""
    rng = np.random.default_rng(0)
    found, frames = [env.reset()], [env.render()]
    for _ in range(steps):
        found.append(env.step(env.limits.to_effort(rng.uniform(-1, 1, len(env.limits.joint_names)))))
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
            effort = exact.limits.to_effort(rng.uniform(-1, 1, 2))
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
    """Return a task, and an episode of it as it is."""
    with SimEnv(SimConfig(request.param, seed=3)) as env:
        return request.param, *walk(env, 4)


@pytest.mark.parametrize("name", [*EFFECTS, "all", "random"])
def test_a_look_changes_frames_and_nothing_else(make_env, nominal_walk, name):
    task, steps, frames = nominal_walk
    env, again = make_env(task=task, look=f"{name}:hard"), make_env(task=task, look=f"{name}:hard", seed=2)
    again.reset()
    seen_steps, seen = walk(env, 4)
    for one, other in zip(steps, seen_steps, strict=True):
        for field, value in vars(one).items():
            np.testing.assert_array_equal(getattr(other, field), value, err_msg=field)
    different = [np.mean(a != b) for a, b in zip(frames, seen, strict=True)]
    assert max(different) > 0.005, "it is seen"
    np.testing.assert_array_equal(walk(again, 4)[1], seen, "it depends on the episode's seed alone")


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


@pytest.mark.parametrize("name", [name for name in EFFECTS if name not in ("background", "latency")])
def test_a_harder_look_is_farther_from_nominal(make_env, name):
    nominal, *levels = make_env(), *(make_env(look=f"{name}:{level}") for level in SCALES)
    far = np.zeros(3)
    for _ in range(6):
        frames = [(env.reset(), env.render())[1].astype(int) for env in (nominal, *levels)]
        far += [np.abs(frame - frames[0]).mean() for frame in frames[1:]]
    assert far[0] < far[1] < far[2]


def test_frames_of_latency_are_those_of_before(make_env):
    now, late = make_env(), make_env(look="latency:medium")
    frames, seen = walk(now, 6)[1], walk(late, 6)[1]
    for at, frame in enumerate(seen):
        np.testing.assert_array_equal(frame, frames[max(0, at - 2)])


def test_the_scene_is_nominal_again_after_a_random_one(make_env):
    env, nominal = make_env(look="random"), make_env()
    shares = []
    for _ in range(40):
        frames = [(each.reset(), each.render())[1] for each in (env, nominal)]
        shares.append(np.mean(frames[0] != frames[1]))
    assert 0 in shares, "one of ten looks as the task does, whatever was before"
    assert max(shares) > 0.9


def test_backgrounds_come_from_a_folder(make_env, tmp_path):
    for name, level in (("a.png", 40), ("b.png", 220)):
        cv2.imwrite(str(tmp_path / name), np.full((30, 40, 3), level, np.uint8))
    (tmp_path / "c").mkdir()
    for number in range(3):
        cv2.imwrite(str(tmp_path / "c" / f"{number}.jpg"), np.full((30, 40, 3), 100 + number, np.uint8))
    (tmp_path / "notes.txt").write_text("nothing to see")
    pictures = Pictures(str(tmp_path))
    assert [pictures.video(number, False)[0].mean() for number in range(3)] == [40, 220, 101]
    assert len(pictures.video(2, True)) == 3
    assert len(pictures.video(0, True)) == 1
    env = make_env(look="background", backgrounds=str(tmp_path))
    corners = set()
    for _ in range(12):
        env.reset()
        corners.add(int(env.render()[4:8, 10:20].mean()) // 20)
    assert len(corners) >= 2


def test_drawn_videos_are_each_their_own():
    videos = [drawn_video(number, 3) for number in range(6)]
    assert all(frame.shape == (256, 256, 3) for video in videos for frame in video)
    means = {tuple(video[0].mean((0, 1)).astype(int)) for video in videos}
    assert len(means) == 6


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
        Pictures(str(tmp_path)).video(0, False)
    assert Look.of("all:hard:moving") == Look("all", "hard", True)
    assert Look.of("nominal").effects() == []
