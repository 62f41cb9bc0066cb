"""Goal latents: of a frame that the expert reached in an environment of its own, with the same target or another."""

from dataclasses import replace

import numpy as np

from sim_bridge.env import SimConfig, SimEnv
from vjepa_interfaces.messages import LAST
from vjepa_perception.clip import ClipBuffer
from vjepa_perception.encoder import Encoder
from vjepa_planner.contract import Observation, PlannerContext
from vjepa_planner.registry import load_planner

SAME, OTHER = "same", "other"
GOALS = (SAME, OTHER)
OTHER_SEED = 1_000_000_000
"""How far the seed of another target lies behind the episode's."""

EXPERT = "expert"


def goal_latent(sim: SimConfig, encoder: Encoder, episode: int, goal: str) -> np.ndarray:
    """Return the latent, float32 of (rows, dimension), of the last frame of an episode that the expert drove.

    Args:
        sim: the simulation whose episodes are to reach the goal; the expert's is as long as they are.
        encoder: whose latent; every frame passes a clip as theirs do.
        episode: number of the episode that is to reach it.
        goal: `same`: the expert drives the episode of that number, so target and start are the same; `other`: one of a
            seed far away, so they are not.

    Raises:
        VjepaError: the expert does not know the arm of the task.
    """
    seed = sim.seed + (OTHER_SEED if goal == OTHER else 0)
    with SimEnv(replace(sim, seed=seed)) as env:
        context = PlannerContext(len(env.limits.joint_names), env.control_period_ns * 1e-9)
        expert = load_planner(EXPERT, {}, context)
        expert.reset(seed + episode)
        clip = ClipBuffer(encoder.clip_frames)
        nothing = np.zeros((1, 1), np.float32)
        step = env.reset(episode)
        while True:
            frames = clip.push(step.stamp_ns, encoder.preprocess(env.render()))
            if step.step_type == LAST:
                return encoder.encode([frames])[0]
            seen = Observation(step.stamp_ns, nothing, step.joint_position, step.joint_velocity, step.target)
            effort, _ = env.limits.checked(None, env.limits.to_effort(expert.plan(seen).action))
            step = env.step(effort)
