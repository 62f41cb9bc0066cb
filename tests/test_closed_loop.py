"""The loop closes: a camera frame becomes a latent becomes a torque, over real topics between real processes."""

import time
from dataclasses import replace

import numpy as np
import pytest

from sim_bridge.score import Episode
from vjepa_bringup.graph import StackOptions, merged_parameters
from vjepa_interfaces import topics
from vjepa_interfaces.messages import FIRST, LAST, timestep_of
from vjepa_training.evaluation.evaluate import evaluate
from vjepa_training.evaluation.score import PROTOCOLS, Protocol, summarise


def test_the_expert_reaches_the_target_through_every_node(lockstep_stack):
    stack = lockstep_stack(planner="expert", episodes=3, episode_steps=200, seed=100)
    latents, commands = stack.tap(topics.LATENT), stack.tap(topics.JOINT_COMMAND)
    stack.wait_for_episodes(3)
    stack.wait_finished()
    assert [episode.in_target_at_end for episode in stack.scores.episodes] == [True] * 3
    assert all(episode.episode_return > 100 for episode in stack.scores.episodes)
    assert summarise(stack.scores.finished, PROTOCOLS["short"])["action_change_at_rest"] < 0.02
    stack.wait_for(lambda: set(commands.stamps) >= set(latents.stamps), "an answer to every latent, with its stamp")


def test_random_actions_do_not(lockstep_stack):
    stack = lockstep_stack(planner="random", episodes=3, episode_steps=200, seed=100)
    stack.wait_for_episodes(3)
    assert np.mean([episode.episode_return for episode in stack.scores.episodes]) < 100


def test_every_stamp_goes_from_frame_to_latent_to_command(lockstep_stack):
    stack = lockstep_stack(episodes=2, episode_steps=50)
    taps = {t: stack.tap(t) for t in (topics.IMAGE, topics.LATENT, topics.JOINT_COMMAND, topics.TIMESTEP)}
    stack.wait_for_episodes(2)
    for topic, tap in taps.items():
        stack.wait_for(lambda tap=tap: len(set(tap.stamps)) == 2 * 51, f"both episodes on {topic.name}")
    stamps = {topic.name: sorted(set(tap.stamps)) for topic, tap in taps.items()}
    assert len(stamps[topics.IMAGE.name]) == 2 * 51
    assert stamps[topics.IMAGE.name] == stamps[topics.LATENT.name] == stamps[topics.TIMESTEP.name]
    assert stamps[topics.JOINT_COMMAND.name] == stamps[topics.IMAGE.name]


def test_stamps_and_step_types_follow_the_interface(lockstep_stack):
    stack = lockstep_stack(episodes=2, episode_steps=20)
    timesteps, clock = stack.tap(topics.TIMESTEP), stack.tap(topics.CLOCK)
    stack.wait_for(lambda: len(timesteps.by_stamp()) == 2 * 21, "the steps of both episodes")
    by_stamp = timesteps.by_stamp()
    stamps = sorted(by_stamp)
    steps = [timestep_of(by_stamp[stamp]) for stamp in stamps]
    assert [step.step_type for step in steps] == ([FIRST] + [1] * 19 + [LAST]) * 2
    assert steps[0].reward == 0.0
    assert steps[0].discount == 1.0
    assert stamps[0] == 1_000_000_000
    assert np.diff(stamps).tolist() == [20_000_000] * 20 + [1_000_000_000] + [20_000_000] * 20
    ticks = [message.clock.sec * 10**9 + message.clock.nanosec for message in clock.messages]
    assert ticks == sorted(ticks), "/clock never runs backwards"


def joint_positions(stack) -> dict[int, list[float]]:
    return {stamp: list(m.position) for stamp, m in stack.items()}


def test_lockstep_is_reproducible_and_equals_the_run_in_one_process(lockstep_stack):
    runs, scores = [], []
    for planner in ("expert", "expert", "random"):
        stack = lockstep_stack(planner=planner, episodes=2, episode_steps=60, seed=7)
        joints = stack.tap(topics.JOINT_STATES)
        stack.wait_for_episodes(2)
        stack.wait_for(lambda joints=joints: len(joints.by_stamp()) == 2 * 61, "the joint states of both episodes")
        runs.append(joint_positions(joints.by_stamp()))
        scores.append(stack.scores.finished)
        stack.supervisor.stop()
    assert len(runs[0]) == 2 * 61
    assert runs[0] == runs[1], "the same seeds give the same joint positions, bit for bit"
    for planner, run, scored in (("expert", runs[0], scores[0]), ("random", runs[2], scores[2])):
        rows, episodes = in_one_process(planner, 2, 60, 7)
        assert [run[stamp] for stamp in sorted(run)] == rows
        assert scored == [replace(episode, distances=[], imagined=[], novelty=[]) for episode in episodes]


def in_one_process(planner: str, episodes: int, steps: int, seed: int) -> tuple[list[list[float]], list[Episode]]:
    rows = []
    parameters = merged_parameters(StackOptions(planner=planner))
    scores, _, _ = evaluate(
        parameters,
        Protocol("test", steps, None),
        episodes,
        seed,
        on_step=lambda _, s: rows.append(s.joint_position.tolist()),
    )
    return rows, scores


def test_a_namespace_moves_the_whole_stack(lockstep_stack):
    stack = lockstep_stack(episodes=1, episode_steps=20, namespace="left_arm")
    stack.wait_finished()
    names = dict(stack.node.get_topic_names_and_types())
    assert "/left_arm/joint_command" in names
    assert "/joint_command" not in names


def test_another_task_is_a_parameter(lockstep_stack):
    stack = lockstep_stack(task="reacher-hard", planner="expert", episodes=1, episode_steps=200, seed=3)
    stack.wait_for_episodes(1)
    assert stack.scores.episodes[0].in_target_at_end


@pytest.mark.real_time
def test_real_time_never_waits_and_accounts_for_every_frame(start_stack):
    stack = start_stack(planner="expert", episodes=1, episode_steps=150, seed=100)
    stack.wait_for_steps(1)
    seen, started_s = stack.steps, time.monotonic()
    stack.wait_finished()
    assert time.monotonic() - started_s > 0.9 * (150 - seen) * 0.02, "an arm is never faster than its clock"
    frames = stack.monitor.value("sim_bridge", "frames")
    assert frames == 151
    stack.wait_for_value("vjepa_perception", "frames", lambda count: count == frames)
    skipped = stack.monitor.value("vjepa_perception", "skipped_encodes")
    stack.wait_for_value("sim_bridge", "answered_frames", lambda count: count == frames - skipped)
    stack.wait_for_value("vjepa_planner", "commands", lambda count: count == frames - skipped)


def test_a_task_with_another_arm_runs_through_every_node(lockstep_stack):
    stack = lockstep_stack(task="point_mass-easy", planner="random", episodes=1, episode_steps=50)
    joints = stack.tap(topics.JOINT_STATES)
    stack.wait_finished()
    assert list(joints.messages[-1].name) == ["t1", "t2"]
    assert any(any(message.effort) for message in joints.messages), "the planner's torques reach the arm"
    assert stack.monitor.value("sim_bridge", "refused_commands") == 0


def test_topics_can_be_moved_one_by_one(lockstep_stack):
    stack = lockstep_stack(
        planner="expert", episodes=1, episode_steps=20, command_topic="arm/command", joint_states_topic="arm/joints"
    )
    stack.wait_finished()
    names = dict(stack.node.get_topic_names_and_types())
    assert "/arm/command" in names
    assert "/joint_command" not in names
