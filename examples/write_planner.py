"""Write a planner: a class with one method. This one holds the arm in a pose by PD control of its joints.

    ./vjepa --exec python examples/write_planner.py --shoulder 1.0 --wrist 0.5

This command tries the planner on the bare simulation. `examples/pyproject.toml` registers it as `hold`, so the stack
finds it after the installation in `examples/README.md`. The rules for planners are in `vjepa_planner/contract.py`.
"""

import argparse
from dataclasses import dataclass

import numpy as np

from sim_bridge.env import SimConfig, SimEnv
from vjepa_planner.contract import JOINT_STATE, Observation, Plan, Planner, PlannerContext


@dataclass(frozen=True)
class HoldConfig:
    """The pose, rad, and the gains: action per rad and per rad/s."""

    shoulder: float = 0.0
    wrist: float = 0.0
    kp: float = 4.0
    kd: float = 0.4


class HoldPlanner(Planner):
    """Holds an arm of two joints in the pose of its options."""

    Config = HoldConfig
    needs = frozenset({JOINT_STATE})

    def _act(self, observation: Observation, deadline_s: float | None) -> Plan:
        error = np.array([self.config.shoulder, self.config.wrist]) - observation.joint_position
        return Plan(np.clip(self.config.kp * error - self.config.kd * observation.joint_velocity, -1.0, 1.0))


def main(arguments: list[str] | None = None) -> None:
    """Hold a pose on the bare simulation for some steps, and print the final joint angles."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("shoulder", "wrist"):
        parser.add_argument(f"--{option}", type=float, default=0.5, help="rad (default 0.5)")
    parser.add_argument("--steps", type=int, default=200, help="control steps of 20 ms (default 200)")
    given = parser.parse_args(arguments)

    env = SimEnv(SimConfig(episode_steps=given.steps))
    context = PlannerContext.of(env.limits, env.control_period_s)
    planner = HoldPlanner(HoldConfig(given.shoulder, given.wrist), context)
    planner.reset(seed=0)
    step, unseen = env.reset(0), np.zeros((1, 1), np.float32)  # The planner reads no latent.
    for _ in range(given.steps):
        plan = planner.plan(Observation(step.stamp_ns, unseen, step.joint_position, step.joint_velocity))
        step = env.step(env.limits.effort_of(plan.action))
    print("joints at", np.round(step.joint_position, 3), "rad, asked for", [given.shoulder, given.wrist])


if __name__ == "__main__":
    main()
