import threading
from dataclasses import replace

import numpy as np
import pytest

from sim_bridge.env import SimConfig, SimEnv
from sim_bridge.gl import choose_gl_backend
from sim_bridge.tasks import TASKS
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.messages import FIRST, LAST, MID

SEED = 1


@pytest.fixture
def make_env():
    made = []

    def make(task="reacher-easy", **config):
        made.append(SimEnv(SimConfig(task, **{"seed": SEED, **config})))
        return made[-1]

    yield make
    for env in made:
        env.close()


def suite_env(task: str, seed: int):
    """Return dm_control's own environment, time limit and all."""
    choose_gl_backend()
    from dm_control import suite

    return suite.load(TASKS[task].domain, TASKS[task].task, task_kwargs={"random": seed})


def state_of(env: SimEnv) -> np.ndarray:
    """Return the whole physics state, not only what the motors read."""
    return env._physics.get_state()


def run_episode(env: SimEnv, action_seed: int, count: int = 20) -> list:
    """Return the FIRST step of an episode and `count` more under random actions."""
    rng = np.random.default_rng(action_seed)
    n = len(env.limits.joint_names)
    return [env.reset()] + [env.step(env.limits.effort_of(rng.uniform(-1, 1, n))) for _ in range(count)]


def assert_same_steps(one: list, other: list):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        for field, value in vars(a).items():
            np.testing.assert_array_equal(value, getattr(b, field), err_msg=field, strict=True)


@pytest.mark.parametrize(("rate_hz", "physics_s"), [(25.0, 0.02), (50.0, 0.02), (100.0, 0.01), (40.0, 0.0125)])
def test_at_another_rate_a_control_step_is_so_much_longer_or_shorter(make_env, rate_hz, physics_s):
    env = make_env(rate_hz=rate_hz)
    assert env.control_period_ns == round(1e9 / rate_hz)
    assert env._physics.timestep() == pytest.approx(physics_s)
    first, second = env.reset(), env.step(np.array([0.02, -0.01]))
    assert second.stamp_ns - first.stamp_ns == round(1e9 / rate_hz)


def test_a_step_at_half_the_rate_is_two_steps_of_the_physics(make_env):
    slow, usual = make_env(rate_hz=25.0), make_env()
    for env in (slow, usual):
        env.reset()
    effort = np.array([0.02, -0.01])
    for _ in range(10):
        slow.step(effort)
        usual.step(effort)
        usual.step(effort)
        np.testing.assert_array_equal(state_of(slow), state_of(usual))


@pytest.mark.parametrize("rate_hz", [-1.0, 0.5, 1e6, float("nan")])
def test_a_rate_that_is_none_is_refused(rate_hz):
    with pytest.raises(VjepaError, match=r"rate_hz is .*; expected 1 to 1000, or 0 for the task's own"):
        SimConfig(rate_hz=rate_hz)


@pytest.mark.parametrize("task", TASKS)
def test_episodes_are_dm_controls_own_bit_for_bit(make_env, task):
    """Two whole episodes of one environment, each against a new one of dm_control given the same controls."""
    env = make_env(task)
    joints = len(TASKS[task].joint_names)
    pushed = task == "point_mass-easy"  # Random pushes alone never bring the mass to its target.
    rewards = 0.0
    for episode in range(2):
        reference = suite_env(task, SEED + episode)
        gear = reference.physics.model.actuator_gear[:, 0]
        reference.reset()
        step = env.reset()
        np.testing.assert_array_equal(state_of(env), reference.physics.get_state(), strict=True)
        rng = np.random.default_rng(SEED + episode)
        for _ in range(1000):
            pull = 20 * (step.target - step.fingertip)[:2] if pushed else 0
            action = np.clip(rng.uniform(-1, 1, joints) + pull, -1, 1)
            effort = env.limits.effort_of(action)
            timestep = reference.step(np.clip(effort / gear, -1, 1))
            step = env.step(effort)
            assert (step.step_type, step.reward, step.discount) == timestep[:3]
            np.testing.assert_array_equal(state_of(env), reference.physics.get_state(), strict=True)
            rewards += step.reward
        assert step.step_type == LAST
    assert rewards > 0, "the episodes met no reward, so they compared none"


@pytest.mark.parametrize("task", TASKS)
def test_first_steps_are_those_of_a_new_dm_control_environment(make_env, task):
    env = make_env(task)
    for episode in range(6):
        reference = suite_env(task, SEED + episode)
        reference.reset()
        step = env.reset()
        assert (step.episode, step.reward, step.discount, step.step_type) == (episode, 0.0, 1.0, FIRST)
        np.testing.assert_array_equal(state_of(env), reference.physics.get_state(), strict=True)
        for point, where in ((TASKS[task].target, step.target), (TASKS[task].fingertip, step.fingertip)):
            named = reference.physics.named.data
            positions = named.xpos if point.kind == "body" else getattr(named, f"{point.kind}_xpos")
            np.testing.assert_array_equal(where, positions[point.name], strict=True)


def test_an_action_reaches_the_motors_within_one_unit_in_the_last_place(make_env):
    env = make_env()
    env.reset()
    for action in np.random.default_rng(0).uniform(-1, 1, (500, 2)):
        step = env.step(env.limits.effort_of(action))
        assert (np.abs(env._physics.control() - action) <= np.spacing(np.abs(action))).all()
        np.testing.assert_array_equal(step.joint_effort, env.limits.effort_of(action))


def test_returns_of_planner_actions_are_those_of_the_suite(make_env):
    env, reference = make_env(), suite_env("reacher-easy", SEED)
    env.reset()
    reference.reset()
    actions = np.random.default_rng(SEED).uniform(-1, 1, (1000, 2))
    ours = sum(env.step(env.limits.effort_of(action)).reward for action in actions)
    assert ours == sum(reference.step(action).reward for action in actions) > 0


@pytest.mark.parametrize("task", TASKS)
def test_equal_seeds_and_efforts_give_equal_steps_and_frames(make_env, task):
    one, other = (make_env(task, randomize_camera=True, randomize_appearance=True) for _ in range(2))
    for episode in range(2):
        assert_same_steps(run_episode(one, episode), run_episode(other, episode))
        np.testing.assert_array_equal(one.render(), other.render(), strict=True)


def test_rendering_leaves_the_simulation_alone(make_env):
    watched, unwatched = make_env(), make_env()
    for env in (watched, unwatched):
        env.reset()
    for _ in range(20):
        watched.render()
        assert_same_steps([watched.step([0.03, -0.02])], [unwatched.step([0.03, -0.02])])


def test_an_episode_asked_for_by_number_is_the_one_reached_in_turn(make_env):
    in_turn, jumping = make_env(), make_env()
    for _ in range(4):
        fourth = in_turn.reset()
    jumped = jumping.reset(3)
    assert (jumped.episode, jumped.stamp_ns) == (3, 1_000_000_000)
    np.testing.assert_array_equal(jumped.joint_position, fourth.joint_position)
    assert jumping.reset().episode == 4


@pytest.mark.parametrize("task", [name for name, task in TASKS.items() if task.target_radius])
def test_the_reward_is_full_exactly_within_the_target_radius(make_env, task):
    env = make_env(task)
    radius = TASKS[task].target_radius
    rng = np.random.default_rng(0)
    step = env.reset()
    inside = []
    for distance, angle in zip(rng.uniform(0.5, 1.5, 200) * radius, rng.uniform(0, 2 * np.pi, 200), strict=True):
        offset = distance * np.array([np.cos(angle), np.sin(angle)])
        env._physics.named.model.geom_pos["target"][:2] = step.fingertip[:2] + offset
        step = env.step([0, 0])
        inside.append(np.linalg.norm((step.target - step.fingertip)[:2]) <= radius)
        assert (step.reward == 1.0) == inside[-1]
    assert 50 < sum(inside) < 150


def test_stamps_advance_one_period_a_step_and_one_second_at_a_reset(make_env):
    env = make_env(episode_steps=3)
    assert env.control_period_ns == 20_000_000
    stamps = [env.reset().stamp_ns] + [env.step([0, 0]).stamp_ns for _ in range(3)] + [env.reset().stamp_ns]
    assert stamps == [1_000_000_000, 1_020_000_000, 1_040_000_000, 1_060_000_000, 2_060_000_000]


def test_an_episode_ends_after_its_steps_with_discount_one(make_env):
    env = make_env(episode_steps=3)
    steps = run_episode(env, 0, count=3)
    assert [step.step_type for step in steps] == [FIRST, MID, MID, LAST]
    assert steps[-1].discount == 1.0
    with pytest.raises(VjepaError, match="episode 0 is over; call reset"):
        env.step([0, 0])
    assert env.reset().episode == 1
    assert env.step([0, 0]).step_type == MID


def test_an_end_by_the_task_itself_is_honoured(make_env, monkeypatch):
    env = make_env()
    env.reset()
    monkeypatch.setattr(env._env.task, "get_termination", lambda physics: 0.0)
    step = env.step([0, 0])
    assert (step.step_type, step.discount) == (LAST, 0.0)
    with pytest.raises(VjepaError, match="is over"):
        env.step([0, 0])


def test_a_step_before_the_first_reset_is_refused(make_env):
    with pytest.raises(VjepaError, match="no episode has begun"):
        make_env().step([0, 0])


def test_the_effort_reported_is_the_one_applied(make_env):
    env = make_env(effort_limit=0.02)
    assert not env.reset().joint_effort.any()
    effort, _ = env.limits.checked(None, [0.5, -0.01])
    np.testing.assert_array_equal(env.step(effort).joint_effort, [0.02, -0.01])
    np.testing.assert_allclose(env._physics.control(), [0.4, -0.2], rtol=1e-15)


def test_a_weaker_motor_gives_what_it_can(make_env):
    env = make_env("finger-spin")
    assert env.limits.limits == (30.0, 30.0)
    env.reset()
    np.testing.assert_array_equal(env.step([-20.0, 20.0]).joint_effort, [-20.0, 15.0])


def test_each_joint_may_have_a_limit_of_its_own(make_env):
    env = make_env("finger-spin", effort_limit=(30.0, 5.0))
    assert env.limits.limits == (30.0, 5.0)
    env.reset()
    applied = env.step(env.limits.effort_of(np.array([1.0, -0.5]))).joint_effort
    np.testing.assert_array_equal(applied, [30.0, -2.5])


def test_motors_on_joints_read_the_joints(make_env):
    env = make_env()
    env.reset()
    step = env.step([0.05, -0.05])
    assert env.limits.joint_names == ("shoulder", "wrist")
    np.testing.assert_array_equal(step.joint_position, env._physics.position())
    np.testing.assert_array_equal(step.joint_velocity, env._physics.velocity())


def test_motors_on_tendons_read_the_tendons(make_env):
    env = make_env("point_mass-easy")
    env.reset()
    step = env.step([0.1, -0.1])
    assert env.limits.joint_names == ("t1", "t2")
    np.testing.assert_allclose(step.joint_position, step.fingertip[:2], rtol=1e-12)
    np.testing.assert_allclose(step.joint_velocity, env._physics.velocity(), rtol=1e-12)
    assert step.joint_velocity[0] > 0 > step.joint_velocity[1]


@pytest.mark.parametrize("size", [(64, 64), (640, 480), (1280, 720), (33, 47)])
def test_frames_have_the_size_asked_for(make_env, size):
    env = make_env(image_size=size)
    env.reset()
    frame = env.render()
    assert frame.shape == (size[1], size[0], 3)
    assert frame.dtype == np.uint8
    assert frame.flags.c_contiguous
    assert frame.std() > 5, "the frame shows nothing"


def test_frames_show_the_arm_move_and_do_not_change_afterwards(make_env):
    env = make_env()
    env.reset()
    first = env.render()
    kept = first.copy()
    for _ in range(20):
        env.step([0.05, 0.05])
    assert (env.render() != first).any()
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("flag", ["mjRND_SHADOW", "mjRND_REFLECTION"])
def test_plain_frames_are_drawn_without_what_costs_most(make_env, flag):
    env = make_env(image_size=(256, 256), render="plain")
    env.reset()
    without = env.render()
    import mujoco

    env._view.renderer.scene.flags[getattr(mujoco.mjtRndFlag, flag)] = True
    assert (env.render() != without).any()


def test_rendering_from_a_second_thread_is_refused(make_env):
    env = make_env()
    env.reset()
    env.render()
    raised = []

    def render():
        try:
            env.render()
        except VjepaError as error:
            raised.append(str(error))

    thread = threading.Thread(target=render)
    thread.start()
    thread.join()
    assert raised == ["render() was called from a second thread; an OpenGL context serves one thread only"]


def test_the_target_is_seen_where_a_pinhole_of_the_focal_length_sees_it(make_env):
    env = make_env("reacher-hard", image_size=(640, 480))
    target = env.reset().target
    with_target = env.render()
    env._physics.named.model.geom_pos["target"][:2] = 10  # Out of sight.
    env._physics.forward()
    rows, columns = np.nonzero((with_target != env.render()).any(axis=2))
    scale = env.focal_length_px / 0.74  # Pixels per metre in the target's plane, that far below the camera.
    assert (columns.min() + columns.max()) / 2 == pytest.approx(320 + scale * target[0], abs=2)
    assert (rows.min() + rows.max()) / 2 == pytest.approx(240 - scale * target[1], abs=2)


def test_closing_twice_is_harmless(make_env):
    env = make_env()
    env.reset()
    env.render()
    env.close()
    env.close()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"task": "reacher-medium"}, r"unknown task 'reacher-medium'; valid are: .*reacher-easy, reacher-hard"),
        ({"seed": -1}, "seed is -1"),
        ({"image_size": (0, 64)}, r"image_size is \[0, 64\]"),
        ({"episode_steps": 0}, "episode_steps is 0"),
        ({"effort_limit": 0.06}, r"effort_limit is 0\.06 N·m; reacher-easy takes above 0 and at most 0\.05 N·m"),
        (
            {"task": "finger-spin", "effort_limit": (20.0, 31.0)},
            "effort_limit is 20, 31 N·m; finger-spin takes above 0 and at most 30 N·m",
        ),
        ({"effort_limit": (0.05,) * 3}, "effort_limit has 3 values; expected one number, or one for each of shoulder"),
        ({"effort_limit": (0.05, 0.0)}, r"effort_limit is \(0.05, 0.0\); expected finite N·m above 0"),
        ({"effort_limit": -0.01}, "effort_limit is -0.01; expected at least 0"),
        ({"effort_limit": float("nan")}, "effort_limit is nan"),
    ],
)
def test_a_wrong_configuration_is_refused_by_name(wrong, message):
    with pytest.raises(VjepaError, match=message):
        SimEnv(SimConfig(**wrong))


def test_a_task_without_plain_motors_is_refused(monkeypatch):
    monkeypatch.setitem(TASKS, "servo", replace(TASKS["reacher-easy"], domain="acrobot", task="swingup"))
    choose_gl_backend()
    from dm_control.suite import acrobot

    model, assets = acrobot.get_model_and_assets()
    servo = model.replace(b"<motor", b"<position").replace(b"</motor", b"</position")
    monkeypatch.setattr(acrobot, "get_model_and_assets", lambda: (servo, assets))
    with pytest.raises(VjepaError, match="actuator 'elbow' is a position servo"):
        SimEnv(SimConfig("servo"))


def test_a_renderer_that_does_not_start_is_reported_with_its_backend_and_reason(monkeypatch):
    with SimEnv(SimConfig()) as env:
        import mujoco

        def fail(*_, **__):
            raise mujoco.FatalError("no context")

        monkeypatch.setattr(mujoco, "Renderer", fail)
        monkeypatch.setenv("MUJOCO_GL", "egl")
        with pytest.raises(VjepaError, match=r"64 x 64 pixels .*MUJOCO_GL='egl': FatalError: no context; unset MUJOCO"):
            env.render()
