"""The parameters of the node `vjepa_planner`, without ROS and without torch."""

from dataclasses import dataclass
from typing import Annotated

from vjepa_interfaces.effort import EffortLimit
from vjepa_interfaces.parameters import LIVE, Range, check_ranges


@dataclass(frozen=True)
class PlannerParameters:
    """Parameters of `vjepa_planner`.

    Attributes:
        planners: names of the planners to load and warm up; their options are the parameters `NAME.OPTION`. A change of
            options loads a new instance, and setting `planner` to its name swaps that in.
        planner: name of the planner that drives; setting it swaps.
        fallbacks: names of planners that drive, in this order, when the chosen one fails; with a camera none by
            default.
        fallback_steps: longest time in latents until the chosen planner is tried again. After as many latents without a
            failure, its next failure counts as the first.
        disagreement_limit: largest disagreement of the ensemble in a plan that is sent; 0 for no limit.
        novelty_limit: largest novelty of a latent whose plan is sent; 0 for no limit. One in a thousand latents of the
            training is above 1.
        seed: episode i resets the planner with seed + i.
        lockstep: join joint states and target by equal stamp, without a deadline.
        joint_names: joints of the arm, in the order of an action.
        effort_limit: torque of an action of 1, N·m, one number or one for each joint.
        control_period_s: one control step, seconds; also the planner's deadline in real time.
        latent_timeout_s: in real time, seconds without a latent after which torque is zero.
        joint_state_max_age_s: in real time, largest age in seconds of a joint state or target that joins a latent.
        derive_velocity: compute velocities from the last two positions of a joint and ignore its driver's; as in
            `dataset build --derive-velocity`.
        device: device of the planners' networks.
        threads: processor threads of the planners' networks; 0 for torch's own choice.
        trace: publish on the topic `trace` when each frame passed the parts of this node.
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
    effort_limit: Annotated[EffortLimit, Range(above=0.0)] = 0.05
    control_period_s: Annotated[float, Range(above=0.0)] = 0.02
    latent_timeout_s: Annotated[float, Range(above=0.0)] = 0.5
    joint_state_max_age_s: Annotated[float, Range(above=0.0)] = 0.1
    derive_velocity: bool = False
    device: str = "cpu"
    threads: Annotated[int, Range(low=0)] = 1
    trace: bool = False

    def __post_init__(self) -> None:
        """Check the range of each number.

        Raises:
            ParameterError: a number is out of its range.
        """
        check_ranges(self)
