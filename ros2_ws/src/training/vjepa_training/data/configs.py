"""Settings of collecting, building and pushing, for the command line's options: no torch and no pyarrow here."""

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from vjepa_interfaces.effort import EffortLimit
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.parameters import Range, check_choices, check_ranges

MIX = "mix"
MAX_NAME = 96
"""Characters that the Hub allows in the name of a repository."""
_NAME = re.compile(r"\w([\w.-]*\w)?", re.ASCII)


@dataclass(frozen=True)
class CollectOptions:
    """Settings of a collection, whatever is simulated; `collect.CollectConfig` adds the simulation.

    Attributes:
        behaviour: a planner, or `mix`: a scripted planner that knows the task or `random`, drawn for each episode.
        epsilon: share of control steps with a uniformly random action instead of the behaviour's.
        hold: control steps for which a random action of `epsilon` is held, so that the arm moves far.
        plain_share: share of the episodes with the task's own look, whatever is drawn at random.
        latents: keep an encoder's latents.
        frames: keep the frames, so that the encoder can be changed.
        plain_frames: keep beside each frame the frame of the same state without look and shadows.
    """

    behaviour: str = MIX
    epsilon: Annotated[float, Range(low=0, high=1)] = 0.0
    hold: Annotated[int, Range(low=1)] = 1
    plain_share: Annotated[float, Range(low=0, high=1)] = 0.0
    latents: bool = True
    frames: bool = False
    plain_frames: bool = False

    def __post_init__(self) -> None:
        """Refuse impossible numbers with a VjepaError."""
        check_ranges(self)


@dataclass(frozen=True)
class BuildConfig:
    """Settings of a build from bags.

    Attributes:
        names: topics in the bags by the stack's names, see `bag_reader.topic_names`.
        frames: keep the frames, so that the encoder can be changed.
        strict: refuse bags with any fault, before encoding.
        task: dm_control task; empty for the task in the bags.
        effort_limit: torque of an action of 1, N·m, one number or one for each joint; None for the task's.
        control_period_s: seconds from one control step to the next; None for the bags', else the task's, else the
            frames' distance.
        joint_state_max_age_s: largest age of a joint state of an independent sensor that is joined to a frame, seconds.
        joint_names: joints of the arm; empty for the task's, else those of the bags.
        derive_velocity: take velocities from positions and their stamps, whatever the driver sends; see `JointStates`.
    """

    names: dict[str, str]
    frames: bool = False
    strict: bool = False
    task: str = ""
    effort_limit: Annotated[EffortLimit | None, Range(above=0)] = None
    control_period_s: Annotated[float | None, Range(low=1e-4, high=60)] = None
    joint_state_max_age_s: Annotated[float, Range(above=0, high=60)] = 0.1
    joint_names: tuple[str, ...] = ()
    derive_velocity: bool = False

    def __post_init__(self) -> None:
        """Refuse impossible numbers with a VjepaError."""
        check_ranges(self)


@dataclass(frozen=True)
class PushConfig:
    """Settings of a push: its content and its target.

    Attributes:
        repo: `owner/name` of the dataset repository, or `owner/name@BRANCH`; without a branch the main one.
        format: `native`, the dataset's own columns as Parquet, or `lerobot`, LeRobot v3.0.
        license: identifier that the Hub knows, such as `apache-2.0`; the owner of the data chooses it.
        private: let only the owner see the repository, if this push creates it.
        update: replace the data of a repository that exists.
    """

    repo: str
    format: Literal["native", "lerobot"] = "native"
    license: str = "unknown"
    private: bool = False
    update: bool = False

    def __post_init__(self) -> None:
        """Refuse an invalid repository or format with a VjepaError."""
        if self.name.count("/") != 1 or not all(self.name.split("/")):
            raise VjepaError(f"'{self.repo}' is not a repository; expected owner/name, or owner/name@BRANCH")
        if reason := _refused_name(self.name):
            raise VjepaError(f"'{self.repo}' is not a name that the Hub allows: {reason}")
        if "@" in self.repo and not self.branch:
            raise VjepaError(f"'{self.repo}' has no branch behind the @; expected owner/name@BRANCH, or owner/name")
        check_choices(self)

    @property
    def name(self) -> str:
        """Return the repository alone, `owner/name`."""
        return self.repo.partition("@")[0]

    @property
    def branch(self) -> str:
        """Return the branch of the push; empty for the main one."""
        return self.repo.partition("@")[2]


def _refused_name(repository: str) -> str:
    """Return the rule of the Hub that `owner/name` breaks; empty if it is a valid name.

    Source: `validate_repo_id` of huggingface_hub.
    """
    length = len(repository.partition("/")[2])
    if length > MAX_NAME:
        return f"its name has {length} characters; expected at most {MAX_NAME}"
    if repository.endswith(".git"):
        return "it ends in .git; leave that out"
    for part in repository.split("/"):
        if not _NAME.fullmatch(part):
            return f"'{part}' is no word of letters, digits and '_', with '-' and '.' within"
        if "--" in part or ".." in part:
            return f"'{part}' has two '-' or '.' in a row"
    return ""
