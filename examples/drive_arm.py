"""Drive the simulated arm from Python, without ROS, in a Gymnasium environment with the encoder's latents.

    ./vjepa --with train --exec python examples/drive_arm.py --episodes 2

The shipped policy acts on the camera's frames; its score is printed beside the score of random actions. Any library for
reinforcement learning can use the same environment.
"""

import argparse
from pathlib import Path

import numpy as np

from sim_bridge.env import SimConfig
from vjepa_perception.encoder import EncoderConfig, load_encoder
from vjepa_planner.contract import Observation, PlannerContext
from vjepa_planner.registry import load_planner
from vjepa_training.envs.gym_env import ReacherLatents

MODELS = Path(__file__).resolve().parents[1] / "models"


def main(arguments: list[str] | None = None) -> None:
    """Drive some episodes with the policy and with random actions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=3, help="default 3")
    parser.add_argument("--steps", type=int, default=200, help="control steps of an episode (default 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the first episode (default 0)")
    given = parser.parse_args(arguments)

    encoder = load_encoder(EncoderConfig(str(MODELS / "encoder-small"), threads=1))
    env = ReacherLatents(SimConfig(episode_steps=given.steps), encoder)
    context = PlannerContext.of(env.arm, env.control_period_s)
    policy = load_planner("bc", {"bundle": str(MODELS / "bc-small")}, context)
    # A policy only understands the latents of its own encoder.
    policy.check_encoder(encoder.fingerprint, encoder.name)
    env.action_space.seed(given.seed)

    for driver in ("bc", "random"):
        for episode in range(given.episodes):
            observation, _ = env.reset(seed=given.seed + episode)
            policy.reset(given.seed + episode)
            score, over = 0.0, False
            while not over:
                if driver == "bc":
                    action = policy.plan(Observation(stamp_ns=0, **observation)).action
                else:
                    action = env.action_space.sample()
                observation, reward, terminated, truncated, _ = env.step(action.astype(np.float32))
                score += reward
                over = terminated or truncated
            print(f"{driver:8} episode {given.seed + episode}: return {score:.1f} of at most {given.steps}")
    env.close()


if __name__ == "__main__":
    main()
