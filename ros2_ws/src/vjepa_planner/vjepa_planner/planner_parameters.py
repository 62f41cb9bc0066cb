"""The parameters of the node `vjepa_planner`: without ROS, and without torch."""

from dataclasses import dataclass
from typing import Annotated

from vjepa_interfaces.parameters import LIVE, Range, check_ranges


@dataclass(frozen=True)
class PlannerParameters:
    """Parameters of `vjepa_planner`.

    Attributes:
        planners: names of the planners to load and warm up; options of one are the parameters `NAME.OPTION`. Where
            these are set while the node runs, it is loaded anew, and setting `planner` to its name swaps the new one
            in.
        planner: the one that drives; setting it swaps.
        fallbacks: names of planners that drive, in this order, when the chosen one cannot; with a camera none by
            default.
        fallback_steps: latents for which they drive at most before the chosen one is tried again; as many that the
            chosen one drives without failing make its next failure count as the first.
        disagreement_limit: a plan whose ensemble disagrees by more is not sent; 0 for no limit.
        novelty_limit: a plan whose latent is further from those of the planner's training is not sent, where 1 is as
            far as one in a thousand of these; 0 for no limit.
        seed: episode i resets the planner with seed + i.
        lockstep: join joint states and target by equal stamp, without a deadline.
        joint_names: joints of the arm, in the order of an action.
        effort_limit: torque of an action of 1, N·m.
        control_period_s: one control step, seconds; also the planner's deadline in real time.
        latent_timeout_s: in real time, silence of latents longer than this means zero torque.
        joint_state_max_age_s: in real time, the oldest joint state or target that may be joined to a latent.
        derive_velocity: velocities are those between the last two positions of a joint, whatever its driver sends; as
            `dataset build --derive-velocity`.
        device: where a planner's networks run.
        threads: processor threads of a planner's networks; 0 leaves it to torch.
    """

    planners: tuple[str, ...] = ("random", "expert-p", "expert")
    planner: Annotated[str, LIVE] = "expert"
    fallbacks: tuple[str, ...] = ()
    fallback_steps: Annotated[int, Range(low=1)] = 25
    disagreement_limit: Annotated[float, Range(low=0.0)] = 0.0
    novelty_limit: Annotated[float, Range(low=0.0)] = 0.0
    seed: Annotated[int, Range(low=0)] = 0
    lockstep: bool = False
    joint_names: tuple[str, ...] = ("shoulder", "wrist")
    effort_limit: Annotated[float, Range(above=0.0)] = 0.05
    control_period_s: Annotated[float, Range(above=0.0)] = 0.02
    latent_timeout_s: Annotated[float, Range(above=0.0)] = 0.5
    joint_state_max_age_s: Annotated[float, Range(above=0.0)] = 0.1
    derive_velocity: bool = False
    device: str = "cpu"
    threads: Annotated[int, Range(low=0)] = 1

    def __post_init__(self) -> None:
        """Refuse numbers out of their range, with a ParameterError."""
        check_ranges(self)
