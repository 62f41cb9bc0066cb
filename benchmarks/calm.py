"""The changes of the scripted expert's torque in the target, also if commands land late."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.figures import Figure, command_of, mean_with_interval, record
from sim_bridge.action_change import ActionChange
from sim_bridge.env import SimConfig, SimEnv
from vjepa_planner.contract import Observation, Planner, PlannerContext
from vjepa_planner.registry import load_planner
from vjepa_training.evaluation.score import protocol_named

CHANGE_AIM = 0.06
RETURN_AIM = 975.0
TASKS = ("reacher-easy", "reacher-hard")
LATE_STEPS = (0, 1, 2)


def measure(episodes: int, protocol: str, seed: int) -> dict[str, Any]:
    """Drive both reacher tasks by `expert` in one process, without camera and encoder, and return the record."""
    steps = protocol_named(protocol).episode_steps
    runs = [drive(task, late, range(seed, seed + episodes), steps) for task in TASKS for late in LATE_STEPS]
    command = command_of("calm", calm_episodes=episodes, expert_protocol=protocol, seed=seed)
    return record("calm", figures(runs, steps), command, range(seed, seed + episodes), runs=runs)


def drive(task: str, late: int, seeds: Sequence[int], steps: int) -> dict[str, Any]:
    """Return returns and action changes at rest, one for each episode, if commands land `late` control steps late."""
    changes, returns = [], []
    with SimEnv(SimConfig(task=task, episode_steps=steps)) as env:
        planner = load_planner("expert", {}, PlannerContext.of(env.limits, env.control_period_s))
        for seed in seeds:
            episode_return, change = _episode(env, planner, seed, late)
            returns.append(episode_return)
            changes.append(change.mean)
    return {"task": task, "late_steps": late, "returns": returns, "action_change_at_rest": changes}


def _episode(env: SimEnv, planner: Planner, seed: int, late: int) -> tuple[float, ActionChange]:
    """Return the return of an episode and its action change. Actions are zero until the first command has landed."""
    planner.reset(seed)
    step = env.reset(seed)
    nothing = np.zeros((1, 1), np.float32)
    waiting = [np.zeros(len(env.limits.joint_names))] * late
    episode_return, change = 0.0, ActionChange()
    for _ in range(env.config.episode_steps):
        seen = Observation(step.stamp_ns, nothing, step.joint_position, step.joint_velocity, step.target)
        waiting.append(planner.plan(seen).action)
        action = waiting.pop(0)
        step = env.step(env.limits.effort_of(action))
        episode_return += step.reward
        change.add(step.reward, action)
    return episode_return, change


def figures(runs: Sequence[dict[str, Any]], steps: int) -> list[Figure]:
    """Return the figures of the runs, whose episodes have `steps` steps."""
    found = []
    for run in runs:
        sample = f"{len(run['returns'])} episodes of {steps} steps"
        where = f"`expert`, {run['task']}, commands {run['late_steps']} steps late"
        known = [change for change in run["action_change_at_rest"] if change is not None]
        change, interval = mean_with_interval(known)
        what = f"change of the action a step at rest, of 2: {where}"
        found.append(Figure(what, change, "", sample, CHANGE_AIM, False, interval, "bootstrap over episodes"))
        value, interval = mean_with_interval(run["returns"])
        what, aim = f"mean return: {where}", RETURN_AIM - 1000 + steps
        found.append(Figure(what, value, "", sample, aim, True, interval, "bootstrap over episodes"))
    return found
