"""Simulated episodes are those of their seeds, however many workers there are and whatever happens to one."""

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sim_bridge.env import SimConfig, SimEnv
from sim_bridge.gl import choose_gl_backend
from vjepa_interfaces.errors import VjepaError
from vjepa_perception.encoder import EncoderConfig, load_encoder
from vjepa_training.data.collect import CollectConfig, Collector, collect, collect_on_ray
from vjepa_training.data.dataset import IMAGE, LATENT, Dataset, DatasetError, EpisodeWriter
from vjepa_training.evaluation.rollout import RolloutConfig, rollout
from vjepa_training.ray_workers import refuse_workers_on_ray, run_on_ray

choose_gl_backend()  # Before any other test's module, read after this one, imports mujoco without it.

MODELS = Path(__file__).resolve().parents[4] / "models"
ENCODER = EncoderConfig(str(MODELS / "encoder-small"), device="cpu", threads=1)
EPISODES, STEPS = 5, 12
CONFIG = CollectConfig(
    sim=SimConfig(seed=40, image_size=(16, 16), episode_steps=STEPS), behaviour="mix", epsilon=0.3, hold=2, frames=True
)
FRAMES_ALONE = replace(CONFIG, latents=False)


def columns(dataset: Dataset) -> dict[str, np.ndarray]:
    return {name: np.asarray(dataset[name]) for name in dataset.info.columns()}


def assert_same(one: Dataset, other: Dataset) -> None:
    assert one.info.columns() == other.info.columns()
    for name, values in columns(one).items():
        np.testing.assert_array_equal(values, np.asarray(other[name]), name)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Dataset:
    return collect(tmp_path_factory.mktemp("collect") / "ds", FRAMES_ALONE, None, EPISODES, 1, {"command": "test"})


@pytest.mark.slow
def test_rows_do_not_depend_on_the_number_of_workers(tmp_path, undisturbed):
    counts: list[int] = []
    other = collect(tmp_path / "ds", FRAMES_ALONE, None, EPISODES, 3, {"command": "test"}, counts.append)
    assert_same(undisturbed, other)
    assert counts == list(range(EPISODES + 1))
    assert other.info == undisturbed.info


@pytest.mark.slow
def test_latents_are_those_of_one_process_whatever_the_number_of_workers(tmp_path):
    config = replace(CONFIG, sim=replace(CONFIG.sim, image_size=(64, 64)), frames=False)
    dataset = collect(tmp_path / "ds", config, ENCODER, 2, 2, {})
    collector = Collector(config, load_encoder(ENCODER))
    for number, (start, stop) in enumerate(dataset.episodes):
        latents = collector.episode(number)[LATENT]
        assert np.isfinite(latents.astype(np.float32)).all()
        np.testing.assert_array_equal(dataset[LATENT][start:stop], latents)
    collector.close()
    assert IMAGE not in dataset.info.columns()


def test_a_learned_policy_is_recorded_as_it_is_evaluated(tmp_path):
    sim = replace(CONFIG.sim, image_size=(64, 64))
    options = {"bundle": str(MODELS / "bc-small")}
    config = CollectConfig(sim=sim, behaviour="bc", options=options)
    dataset = collect(tmp_path / "ds", config, ENCODER, 2, 1, {})
    steps: dict[int, list] = {}
    latents: dict[int, list] = {}
    rollout(
        RolloutConfig("bc", sim, options, episodes=2),
        load_encoder(ENCODER),
        on_step=lambda episode, step: steps.setdefault(episode, []).append(step),
        on_latent=lambda episode, step, latent: latents.setdefault(episode, []).append(latent),
    )
    for episode, (start, stop) in enumerate(dataset.episodes):
        rows = dataset["observation.joint_position"][start:stop]
        np.testing.assert_array_equal(rows, [step.joint_position for step in steps[episode]])
        np.testing.assert_array_equal(dataset[LATENT][start : stop - 1], np.float16(latents[episode]))


def test_a_learned_policy_without_latents_is_refused():
    config = replace(FRAMES_ALONE, behaviour="bc", options={"bundle": str(MODELS / "bc-small")})
    with pytest.raises(VjepaError, match="policy 'bc' acts on latents, but there is no encoder"):
        Collector(config, None)


def test_rows_are_the_steps_of_the_simulation_of_each_seed(undisturbed):
    assert (np.diff(undisturbed.episodes, axis=1) == STEPS + 1).all()
    for number, (start, stop) in enumerate(undisturbed.episodes):
        rows = {name: values[start:stop] for name, values in columns(undisturbed).items()}
        with SimEnv(FRAMES_ALONE.sim) as env:
            step = env.reset(number)
            steps, pictures = [step], [env.render()]
            for effort in rows["command"][:-1]:
                steps.append(env.step(effort))
                pictures.append(env.render())
            np.testing.assert_array_equal(rows["target_size"], np.full(STEPS + 1, env.target_size))
        np.testing.assert_array_equal(rows["observation.joint_position"], [s.joint_position for s in steps])
        np.testing.assert_array_equal(rows["observation.joint_velocity"], [s.joint_velocity for s in steps])
        np.testing.assert_array_equal(rows["target"], [s.target for s in steps])
        np.testing.assert_array_equal(rows["fingertip"], [s.fingertip for s in steps])
        np.testing.assert_array_equal(rows["effort"][:-1], [s.joint_effort for s in steps[1:]])
        np.testing.assert_array_equal(rows["action"], rows["effort"] / 0.05)
        np.testing.assert_array_equal(rows["next.reward"][:-1], [s.reward for s in steps[1:]])
        np.testing.assert_array_equal(rows["stamp_ns"], [s.stamp_ns - steps[0].stamp_ns for s in steps])
        np.testing.assert_array_equal(rows[IMAGE], pictures)
        assert rows["next.done"].tolist() == [False] * (STEPS - 1) + [True, False]
        assert rows["has_next"].tolist() == [True] * STEPS + [False]
        assert np.isnan(rows["effort"][-1]).all()


@pytest.mark.slow
def test_a_killed_worker_costs_nothing_but_time(tmp_path, undisturbed):
    killed: list[int] = []

    def kill_one(count: int) -> None:
        if count >= 1 and not killed:
            process = multiprocessing.active_children()[0]
            os.kill(process.pid, signal.SIGKILL)
            killed.append(process.pid)

    dataset = collect(tmp_path / "ds", FRAMES_ALONE, None, EPISODES, 2, {"command": "test"}, kill_one)
    assert killed
    assert_same(undisturbed, dataset)


def test_a_killed_collection_goes_on_with_the_episodes_that_are_missing(tmp_path, undisturbed):
    collector = Collector(FRAMES_ALONE, None)
    with EpisodeWriter(tmp_path / "ds", collector.info({"command": "test"}), "1") as writer:
        for number in (1, 3):
            writer.add(number, collector.episode(number))
    collector.close()
    with open(tmp_path / "ds" / "parts" / "1.arrow", "ab") as file:
        file.write(b"an episode that was being written")
    counts: list[int] = []
    dataset = collect(tmp_path / "ds", FRAMES_ALONE, None, EPISODES, 2, {"command": "test"}, counts.append)
    assert counts == [2, 3, 4, 5]
    assert_same(undisturbed, dataset)
    with pytest.raises(DatasetError, match="finished dataset"):
        collect(tmp_path / "ds", FRAMES_ALONE, None, EPISODES, 2, {})


@pytest.mark.slow
def test_ctrl_c_while_workers_start_is_an_interruption_and_no_traceback(tmp_path):
    options = ["--no-latents", "--frames", "--episodes", "4", "--workers", "2", "--out", str(tmp_path / "ds")]
    command = subprocess.Popen(
        [sys.executable, "-P", "-m", "vjepa_cli.cli", "collect", *options],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while b"spawn_main" not in b"".join(map(command_line, children_of(command.pid))):
        assert command.poll() is None
    os.killpg(command.pid, signal.SIGINT)
    complained = command.communicate(timeout=60)[1]
    assert (command.returncode, complained.splitlines()[-1]) == (130, "vjepa: interrupted"), complained
    assert "Traceback" not in complained


def children_of(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def command_line(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_random_action_is_held_for_as_long_as_was_asked(tmp_path):
    sim = replace(CONFIG.sim, episode_steps=60, image_size=(4, 4))
    collector = Collector(replace(FRAMES_ALONE, sim=sim, behaviour="expert", epsilon=1.0, hold=5), None)
    commands = collector.episode(0)["command"][:-1].tolist()
    collector.close()
    runs = [len(list(run)) for _, run in itertools.groupby(commands)]
    assert max(runs) >= 5
    assert sum(length >= 5 for length in runs) >= 4


@pytest.mark.slow
def test_what_is_drawn_anew_each_episode_can_be_asked_for(tmp_path):
    sim = replace(CONFIG.sim, randomize_target_size=True, randomize_appearance=True, episode_steps=2)
    dataset = collect(tmp_path / "ds", replace(FRAMES_ALONE, sim=sim), None, 3, 1, {})
    assert len(set(np.asarray(dataset["target_size"]).tolist())) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"behaviour": "best"}, "unknown behaviour 'best'; valid are: bc, cem, .*expert, expert-p, expert-xy, mix"),
        ({"epsilon": 1.5}, "epsilon is 1.5"),
        ({"epsilon": float("nan")}, "epsilon is nan"),
        ({"hold": 0}, "hold is 0"),
        ({"latents": False, "frames": False}, "neither latents nor frames"),
    ],
)
def test_what_cannot_be_collected_is_refused(change, message):
    with pytest.raises(VjepaError, match=message):
        replace(CONFIG, **change)


def test_latents_without_an_encoder_are_refused(tmp_path):
    with pytest.raises(VjepaError, match="latents need an encoder"):
        collect(tmp_path / "ds", CONFIG, None, 1, 1, {})


def test_a_worker_that_cannot_do_its_work_says_why(tmp_path):
    sim = replace(CONFIG.sim, task="finger-spin", randomize_target_size=True)
    with pytest.raises(VjepaError, match=r"^finger-spin has no target, so its size cannot be drawn"):
        collect(tmp_path / "ds", replace(FRAMES_ALONE, sim=sim, behaviour="random"), None, 1, 1, {})


def test_rows_that_come_from_a_cluster_are_the_same_and_are_counted(tmp_path, undisturbed, monkeypatch):
    def run_here(make, units, address, on_result):
        unit = make()
        for number in units:
            on_result(number, unit(number))

    monkeypatch.setattr("vjepa_training.data.collect.run_on_ray", run_here)
    counts: list[int] = []
    dataset = collect_on_ray(tmp_path / "ds", FRAMES_ALONE, None, EPISODES, "an address", {}, counts.append)
    assert counts == list(range(EPISODES + 1))
    assert_same(undisturbed, dataset)


def test_without_ray_its_installation_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(VjepaError, match="pip install ray"):
        collect_on_ray(tmp_path / "ds", FRAMES_ALONE, None, 1, "auto", {})


def test_an_address_that_cannot_be_meant_is_refused():
    with pytest.raises(VjepaError, match="leave one of them out"):
        refuse_workers_on_ray(2, "auto")
    with pytest.raises(VjepaError, match="empty; expected the address of a Ray cluster"):
        run_on_ray(list, [0], "", print)
