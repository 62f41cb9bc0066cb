"""The very episodes that their seeds say are run, however many run side by side, and in however many processes."""

import multiprocessing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sim_bridge.env import SimConfig, SimEnv
from sim_bridge.gl import choose_gl_backend
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.messages import FIRST, LAST
from vjepa_perception.encoder import EncoderConfig, load_encoder
from vjepa_planner.contract import Imagined, Plan, Planner
from vjepa_training.evaluation import rollout as module
from vjepa_training.evaluation.evaluate import evaluate
from vjepa_training.evaluation.rollout import RolloutConfig, rollout, rollout_in_workers
from vjepa_training.evaluation.score import Protocol, summarise

choose_gl_backend()  # Before any other test's module, read after this one, imports mujoco without it.

MODELS = Path(__file__).resolve().parents[4] / "models"
STEPS = 12
CONFIG = RolloutConfig("by_latent", SimConfig(seed=40, image_size=(16, 16), episode_steps=STEPS), episodes=3)


class Brightness:
    """An encoder for tests: four frames in, the mean of each of their colours out."""

    clip_frames = 4
    name, fingerprint = "brightness", "brightness"

    def __init__(self):
        self.batches: list[int] = []

    def info(self):
        return {"model": self.name}

    def preprocess(self, rgb):
        return rgb.reshape(-1, 3).mean(axis=0)

    def encode(self, clips):
        self.batches.append(len(clips))
        assert {len(clip) for clip in clips} == {self.clip_frames}
        return np.stack([np.stack(clip) for clip in clips]).astype(np.float32)


class ByLatent(Planner):
    """A planner for tests: an action that differs with every latent and every seed."""

    needs = frozenset({"target"})
    expected: str | None = None

    def __init__(self, context):
        super().__init__(None, context)
        self.encoder_fingerprint = self.expected

    def _begin(self, seed):
        self.seeds = [*getattr(self, "seeds", []), seed]
        self._random = np.random.default_rng(seed)

    def _act(self, observation, deadline_s):
        assert observation.target is not None
        wish = np.sin(observation.latent.astype(np.float64).sum() * np.array([1.0, 3.0]))
        return Plan(np.clip(wish + self._random.uniform(-0.1, 0.1, 2), -1.0, 1.0))


@pytest.fixture
def planners(monkeypatch) -> list[ByLatent]:
    """Have every rollout take `ByLatent`, and return those that were made."""
    made: list[ByLatent] = []

    def load(name, options, context):
        made.append(ByLatent(context))
        return made[-1]

    monkeypatch.setattr(module, "load_planner", load)
    return made


def roll_out(config, encoder=None):
    """Return scores, and joint positions by episode."""
    positions: dict[int, list] = {}
    scores, durations = rollout(
        config,
        encoder or Brightness(),
        lambda episode, step: positions.setdefault(episode, []).append(step.joint_position.tolist()),
    )
    return scores, positions, durations


def test_episode_i_has_the_seed_and_the_start_of_its_number(planners):
    scores, positions, _ = roll_out(CONFIG)
    assert planners[0].seeds == [40, 41, 42]
    for i in range(3):
        with SimEnv(replace(CONFIG.sim, seed=40 + i)) as env:
            assert positions[i][0] == env.reset().joint_position.tolist()
    assert [score.steps for score in scores] == [STEPS] * 3


@pytest.mark.parametrize("batch_size", [2, 3, 8])
def test_episodes_side_by_side_are_those_one_after_another(planners, batch_size):
    one_by_one = roll_out(CONFIG)
    encoder = Brightness()
    side_by_side = roll_out(replace(CONFIG, batch_size=batch_size), encoder)
    assert side_by_side[1] == one_by_one[1], "the same joint positions, bit for bit, where the latents are the same"
    assert side_by_side[0] == one_by_one[0]
    assert max(encoder.batches) == min(batch_size, 3)
    assert len(planners) == 1 + min(batch_size, 3), "no more environments than episodes"


def test_a_batch_of_the_real_encoder_differs_from_single_clips_by_rounding_alone(planners):
    encoder = load_encoder(EncoderConfig(str(MODELS / "encoder-small"), device="cpu", threads=1))
    _, one_by_one, _ = roll_out(replace(CONFIG, episodes=2), encoder)
    _, side_by_side, _ = roll_out(replace(CONFIG, episodes=2, batch_size=2), encoder)
    for episode in range(2):
        np.testing.assert_allclose(side_by_side[episode], one_by_one[episode], atol=1e-3)


def test_a_later_first_seed_continues_where_the_episodes_before_it_ended(planners):
    _, whole, _ = roll_out(CONFIG)
    _, rest, _ = roll_out(replace(CONFIG, sim=replace(CONFIG.sim, seed=41), episodes=2))
    assert [rest[0], rest[1]] == [whole[1], whole[2]]


def test_every_step_and_every_episode_is_told(planners):
    steps, ended = [], []
    scores, durations = rollout(
        replace(CONFIG, batch_size=2),
        Brightness(),
        lambda n, step: steps.append((n, step.step_type)),
        lambda *e: ended.append(e),
    )
    for episode in range(3):
        types = [kind for number, kind in steps if number == episode]
        assert (types[0], types[-1], len(types)) == (FIRST, LAST, STEPS + 1)
    assert sorted(number for number, _ in ended) == [0, 1, 2]
    assert [score for _, score in sorted(ended, key=lambda e: e[0])] == scores
    assert len(durations) == 3 * STEPS


@pytest.mark.parametrize("late", [0, 1])
def test_what_is_imagined_at_a_frame_is_compared_with_what_happens_from_that_frame_on(planners, monkeypatch, late):
    """Plans that know what will happen are off by nothing, and those that tell it a frame late are not."""
    ways: dict[int, list] = {}
    offset = lambda step: np.linalg.norm((step.target - step.fingertip)[:2])  # noqa: E731
    rollout(CONFIG, Brightness(), lambda episode, step: ways.setdefault(episode, []).append(offset(step)))

    def foresee(planner, observation, deadline_s):
        planner.frame = 0 if planner.seeds != getattr(planner, "known", None) else planner.frame + 1
        planner.known = list(planner.seeds)
        way = np.pad(ways[planner.seeds[-1] - CONFIG.sim.seed], (0, 9), mode="edge")
        return replace(act(planner, observation, deadline_s), imagined=Imagined(way[planner.frame + late :][:9:4], 4))

    act = ByLatent._act
    monkeypatch.setattr(ByLatent, "_act", foresee)
    scores, _ = rollout(replace(CONFIG, batch_size=2), Brightness())
    found = summarise(scores, Protocol("test", STEPS, None))["imagined"]["ahead"]
    assert [(entry["steps"], entry["count"]) for entry in found] == [(0, 36), (4, 27), (8, 15)]
    for entry in found:
        assert (entry["rmse"] < 1e-9) == (late == 0)


def test_a_planner_made_for_another_encoder_is_refused_before_the_first_step(planners, monkeypatch):
    monkeypatch.setattr(ByLatent, "expected", "another")
    encoder = Brightness()
    with pytest.raises(VjepaError, match=r"another.*brightness"):
        rollout(CONFIG, encoder)
    assert encoder.batches == []


@pytest.mark.parametrize("name", ["episodes", "batch_size"])
def test_no_episodes_at_all_are_refused(name):
    with pytest.raises(VjepaError, match=f"{name} is 0; expected at least 1"):
        replace(CONFIG, **{name: 0})


def test_an_unknown_planner_or_task_is_refused_with_the_valid_ones():
    with pytest.raises(VjepaError, match=r"unknown planner 'nope'; valid are: .*expert"):
        rollout(replace(CONFIG, planner="nope"), Brightness())
    with pytest.raises(VjepaError, match=r"unknown task 'nope'; valid are: .*reacher-easy"):
        rollout(replace(CONFIG, sim=replace(CONFIG.sim, task="nope")), Brightness())


# In several processes.

SMALL = EncoderConfig(str(MODELS / "encoder-small"), device="cpu", threads=1)
BC_SMALL = {"bundle": str(MODELS / "bc-small")}
BY_BC = RolloutConfig("bc", SimConfig(seed=40, episode_steps=STEPS), BC_SMALL, episodes=5, batch_size=2)


@pytest.mark.slow
def test_scores_do_not_depend_on_the_number_of_processes_even_if_one_is_killed():
    encoder, ended = load_encoder(SMALL), []
    expected, _ = rollout(BY_BC, encoder)

    def on_episode(number, score):
        if not ended:
            multiprocessing.active_children()[0].kill()
        ended.append(number)

    scores, info, durations = rollout_in_workers(BY_BC, SMALL, 2, on_episode)
    assert scores == expected, "to the bit, with the novelty of every latent"
    assert info == encoder.info()
    assert sorted(ended) == list(range(5))
    assert len(durations) == 5 * STEPS


@pytest.mark.slow
def test_an_interruption_gives_the_episodes_before_the_first_that_has_not_ended():
    ended = []

    def interrupt(number, score):
        ended.append(number)
        if 0 in ended:
            raise KeyboardInterrupt

    scores, _, _ = rollout_in_workers(replace(BY_BC, episodes=50), SMALL, 2, interrupt)
    assert 2 <= len(scores) < 50, "a whole batch"
    assert not multiprocessing.active_children()


def test_an_interruption_before_the_first_episode_has_ended_gives_nothing(monkeypatch):
    def interrupted(work, units, workers, on_result, advice):
        on_result(1, ({1: None}, [], {}))
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "run_workers", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rollout_in_workers(BY_BC, SMALL, 2, lambda number, score: None)


# From the stack's parameters to a rollout.


@pytest.fixture
def parameters(monkeypatch):
    """The stack's parameters, with the encoder for tests in the real one's place; what it was asked for is kept."""
    asked = SimpleNamespace(config=None)

    def load(config):
        asked.config = config
        return Brightness()

    monkeypatch.setattr("vjepa_training.evaluation.evaluate.load_encoder", load)
    return {
        "sim_bridge": {"task": "reacher-easy", "image_size": [16, 16], "lockstep_retry_s": 1.0, "use_sim_time": True},
        "vjepa_perception": {"encoder": "small", "grid": 0, "input_transport": "raw"},
        "vjepa_planner": {"planners": ["random", "expert"], "planner": "expert", "expert.damping": 1, "random.x": 1},
        "asked": asked,
    }


PROTOCOL = Protocol("test", STEPS, None)


def test_an_evaluation_follows_the_stacks_parameters(parameters):
    progress = []
    scores, info, _ = evaluate(parameters, PROTOCOL, 2, 40, 2, lambda *done: progress.append(done))
    assert info == {"model": "brightness"}
    assert [score.steps for score in scores] == [STEPS] * 2
    assert parameters["asked"].config == EncoderConfig("small", grid=0)
    assert [done for done, _ in progress] == [1, 2]
    assert progress[-1][1] == np.mean([score.episode_return for score in scores])


@pytest.mark.parametrize(
    ("node", "name", "value", "message"),
    [
        ("sim_bridge", "task", "nope", r"unknown task 'nope'; valid are: .*reacher-easy"),
        ("sim_bridge", "taks", "reacher-easy", r"unknown parameter of sim_bridge: 'taks'; valid are: .*task"),
        ("sim_bridge", "image_size", [64], r"'image_size' of sim_bridge has 1 values; expected 2"),
        ("sim_bridge", "effort_limit", "1", r"'effort_limit' of sim_bridge is '1'; expected a value of type float"),
        ("vjepa_perception", "gird", 4, r"unknown parameter of vjepa_perception: 'gird'; valid are: .*grid"),
        ("vjepa_perception", "grid", "4", r"'grid' of vjepa_perception is '4'; expected a value of type int"),
        ("vjepa_perception", "device", "xyz", r"unknown device 'xyz'; valid are: auto, cpu, cuda, cuda:N"),
        ("vjepa_perception", "dtype", "int8", r"unknown dtype 'int8'; valid are: auto, bfloat16, float16, float32"),
        ("vjepa_perception", "device", 3, r"'device' of vjepa_perception is 3; expected a value of type str"),
        ("vjepa_planner", "planner", "nope", r"unknown planner 'nope'; valid are: .*expert"),
        ("vjepa_planner", "planners", ["nope"], r"unknown planner 'nope'; valid are: .*expert"),
        ("vjepa_planner", "fallbacks", ["nope"], r"unknown planner 'nope'; valid are: .*expert"),
        ("vjepa_planner", "plannr", "x", r"unknown parameter of vjepa_planner: 'plannr'; valid are: .*planner"),
        ("vjepa_planner", "nope.kp", 1.0, r"unknown parameter of vjepa_planner: 'nope.kp'"),
        ("vjepa_planner", "expert.kq", 1.0, r"unknown option of planner 'expert': 'kq'; valid are: .*damping"),
        (
            "vjepa_planner",
            "expert.damping",
            "x",
            r"option 'damping' of planner 'expert' is 'x'; expected a value of type float",
        ),
    ],
)
def test_what_a_node_would_refuse_an_evaluation_refuses(parameters, node, name, value, message):
    parameters[node][name] = value
    with pytest.raises(VjepaError, match=message):
        evaluate(parameters, PROTOCOL, 1, 0)
