"""Build a dataset from rosbag2 bags: join frames with their messages, cut episodes, encode, and write rows.

An episode begins at a FIRST timestep, behind a LAST one, and where `stamps.begins_episode` is true. Its frames pass the
clip of a live node, so its latents equal those of a live node. Memory holds the frames of one batch of clips and the
rows of one piece, whatever the length of an episode.
"""

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from sim_bridge.tasks import arm_of
from vjepa_bags.bag_frames import (
    FINGERTIP,
    IMAGE,
    JOINT_COMMAND,
    JOINT_STATES,
    OF_THE_SIM,
    REWARD,
    TARGET,
    TIMESTEP,
    Frame,
)
from vjepa_bags.bag_reader import Bag
from vjepa_interfaces.effort import EffortLimits
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.image_codec import DamagedJpegError, ImageCodecError, compressed_to_rgb, image_to_rgb
from vjepa_interfaces.messages import FIRST, LAST, Timestep
from vjepa_interfaces.stamps import EPISODE_GAP_NS, begins_episode
from vjepa_interfaces.transport_label import ImageLabelError
from vjepa_perception.encoder import Encoder
from vjepa_training.data.configs import BuildConfig
from vjepa_training.data.dataset import IMAGE as IMAGE_COLUMN
from vjepa_training.data.dataset import (
    LATENT,
    Dataset,
    DatasetError,
    DatasetInfo,
    EpisodeWriter,
    Source,
    claim_parts,
    discarded_if_empty,
    finish_dataset,
)
from vjepa_training.data.encode import encoded_batches, episode_clips

HEAD_FRAMES = 100
"""Number of frames whose median distance in time is the control period of an unknown task."""
PIECE_BYTES = 2**24
"""Size in bytes from which rows of an episode are written before its end."""
COLUMN_OF = {"velocity": "observation.joint_velocity", "effort": "action"}
CONTROL_PERIOD = "control_period_s"
"""The entry of a bag's metadata with the control period of its simulation, s."""
GAP_PERIODS = 1.5
"""Number of control periods beyond which a frame is not the next control step of the frame before."""
_NOWHERE = np.full(3, np.nan)


@dataclass
class BagReport:
    """The result of reading one bag.

    Attributes:
        bag: its path.
        frames: frames read.
        rows: rows of these frames in the dataset.
        episodes: episodes begun.
        kept: episodes with a row, which are in the dataset.
        faults: numbers of faults, by their description in words; incomplete steps are left out.
        notes: numbers of remarks that are no faults, likewise.
    """

    bag: str
    frames: int = 0
    rows: int = 0
    episodes: int = 0
    kept: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)


class Stopwatch:
    """Measure the seconds of the steady clock for each activity; nested activities are not counted twice."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._what, self._since = "", 0.0

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        """Add the duration of the context to the activity `what`."""
        outer = self._switch(what)
        try:
            yield
        finally:
            self._switch(outer)

    def share(self, what: str) -> float:
        """Return the share of the whole time that was spent on `what`, 0 to 1."""
        return self.seconds.get(what, 0.0) / (sum(self.seconds.values()) or 1.0)

    def _switch(self, what: str) -> str:
        now = time.perf_counter()
        if self._what:
            self.seconds[self._what] = self.seconds.get(self._what, 0.0) + now - self._since
        before, self._what, self._since = self._what, what, now
        return before


class _Step(NamedTuple):
    """One row before its next row is known: its columns as arrays and numbers."""

    stamp_ns: int
    position: np.ndarray
    velocity: np.ndarray
    effort: np.ndarray
    command: np.ndarray
    target: np.ndarray
    fingertip: np.ndarray
    timestep: Timestep


def build_dataset(
    folder: Path | str,
    bags: Iterable[Bag],
    config: BuildConfig,
    encoder: Encoder | None,
    source: Source,
    on_frame: Callable[[], None] = lambda: None,
    making: Mapping[str, Any] | None = None,
) -> tuple[Dataset | None, list[BagReport], Stopwatch]:
    """Build the dataset `folder` from `bags`, or continue a killed build: whole episodes are not encoded again.

    Args:
        folder: folder of the dataset.
        bags: the bags, in the order of their episodes.
        config: settings of the build.
        encoder: encoder of the latents; None for no latents.
        source: entry of the dataset's `sources` for each bag: the command and the versions.
        on_frame: called after each frame.
        making: inputs of the dataset; a build of other inputs is not continued, see `claim_parts`.

    Returns:
        The dataset, or None if no bag has a row; the report of each bag; the times of the activities.

    Raises:
        DatasetError: `folder` contains a finished dataset or parts of another one.
        VjepaError: the arm is unknown, or differs between bags; with `strict`, any fault of a bag.
    """
    bags = list(bags)
    info = describe(bags, config, encoder)
    if config.strict:
        _refuse_faults([_survey(bag, info, config) for bag in bags])
    watch = Stopwatch()
    reports: list[BagReport] = []
    first = 0
    with ExitStack() as exits:
        exits.enter_context(discarded_if_empty(folder, info))
        if making is not None:
            claim_parts(folder, making)
        writer = exits.enter_context(EpisodeWriter(folder, info))
        for bag in bags:
            reading = _BagReading(bag, info, config, watch, on_frame)
            for number, frames in reading.episodes(first):
                new = number not in writer.episodes
                pieces = reading.pieces(frames, encoder if new else None, config.frames and new)
                if new:
                    with watch("writing"):
                        writer.add_pieces(number, pieces)
                else:
                    deque(pieces, maxlen=0)
                reading.report.kept += number in writer.episodes
            reports.append(reading.report)
            first += reading.report.episodes
        if not writer.episodes:
            return None, reports, watch
    sources = tuple(_source(source, bag, report) for bag, report in zip(bags, reports, strict=True))
    with watch("writing"):
        dataset = finish_dataset(folder, replace(info, sources=sources))
    return dataset, reports, watch


def _source(source: Source, bag: Bag, report: BagReport) -> Source:
    counts = {**vars(report), "faults": dict(report.faults), "notes": dict(report.notes)}
    return cast(Source, {**source, **counts, "recorded_with": bag.about})


def describe(bags: list[Bag], config: BuildConfig, encoder: Encoder | None) -> DatasetInfo:
    """Return the description of the rows of a dataset of `bags`, from the settings, the bags and their frames.

    Raises:
        VjepaError: no bag has frames and joint states, the bags are of several tasks, or the effort limit is unknown.
    """
    if encoder is None and not config.frames:
        raise VjepaError("neither latents nor frames are kept; keep one of them or both")
    task = _task(bags, config)
    arm = arm_of(task) if task else {}
    bag = _usable_bag(bags, config)
    effort_limit = config.effort_limit or arm.get("effort_limit")
    if effort_limit is None:
        raise VjepaError(f"{bag.path} does not state its task; give --task, or --effort-limit in N·m")
    joints = config.joint_names or tuple(arm.get("joint_names", ())) or _joint_names(bag)
    head = _head(bag, config, joints, is_arm_known=bool(arm))
    image_shape = _image_shape(head, bag)
    return DatasetInfo(
        joint_names=joints,
        effort_limit=EffortLimits.of(joints, effort_limit).limits,
        control_period_ns=_control_period_ns(
            head, config.control_period_s or _recorded_period_s(bags) or arm.get("control_period_s"), bag
        ),
        latent_shape=tuple(encoder.shape) if encoder else None,
        image_shape=image_shape if config.frames else None,
        encoder=encoder.info() if encoder else None,
        task=task,
    )


class _Waiting:
    """The steps of one episode that are not written yet. Each needs the step behind it, so the newest always waits.

    Attributes:
        steps: the known values of each step.
        images: the frame of each, (height, width, 3) uint8; empty if frames are not kept.
        latents: the latents encoded so far, (rows, dimension) float16 each; empty if latents are not kept.
    """

    def __init__(self, info: DatasetInfo, keep_images: bool, keep_latents: bool):
        self.steps: deque[_Step] = deque()
        self.images: deque[np.ndarray] = deque()
        self.latents: deque[np.ndarray] = deque()
        self._info, self._keep_images, self._keep_latents = info, keep_images, keep_latents
        row_bytes = sum(kind.itemsize * math.prod(shape) for kind, shape in info.columns().values())
        self._piece = max(1, PIECE_BYTES // row_bytes)
        self._written, self._first_ns = 0, 0

    def full(self) -> Iterator[dict[str, np.ndarray]]:
        """Yield the rows of the steps that make a whole piece."""
        while len(self.steps) > self._piece:
            yield self._take(self._piece)

    def rest(self) -> Iterator[dict[str, np.ndarray]]:
        """Yield the rows of all steps; the last one has no next row."""
        yield from self.full()
        if self.steps:
            yield self._take(len(self.steps))

    def _take(self, count: int) -> dict[str, np.ndarray]:
        """Remove the first steps and return their rows."""
        if not self._written:
            self._first_ns = self.steps[0].stamp_ns
        rows = {name: values[:count] for name, values in self._columns(list(islice(self.steps, count + 1))).items()}
        self._written += count
        for _ in range(count):
            self.steps.popleft()
        if self._keep_images:
            rows[IMAGE_COLUMN] = np.stack([self.images.popleft() for _ in range(count)])
        if self._keep_latents:
            rows[LATENT] = np.stack([self.latents.popleft() for _ in range(count)])
        return rows

    def _columns(self, steps: list[_Step]) -> dict[str, np.ndarray]:
        """Return the columns of consecutive whole steps of an episode, without frames and latents."""
        stamps = np.array([step.stamp_ns for step in steps])
        has_next = np.append(np.diff(stamps) <= GAP_PERIODS * self._info.control_period_ns, False)

        def of_next(values: list[Any]) -> np.ndarray:
            """Return each row's value from the row behind it; NaN if that row is not its next control step."""
            following = np.roll(np.array(values, np.float64), -1, axis=0)
            following[~has_next] = np.nan
            return following

        effort = of_next([step.effort for step in steps])
        command = np.stack([step.command for step in steps])
        command[~has_next] = np.nan
        return {
            "frame_index": np.arange(len(steps)) + self._written,
            "stamp_ns": stamps - self._first_ns,
            "observation.joint_position": np.stack([step.position for step in steps]),
            "observation.joint_velocity": np.stack([step.velocity for step in steps]),
            "target": np.stack([step.target for step in steps]),
            "fingertip": np.stack([step.fingertip for step in steps]),
            "target_size": np.full(len(steps), np.nan),
            "action": self._info.arm.to_action(effort),
            "effort": effort,
            "command": command,
            "next.reward": of_next([step.timestep.reward for step in steps]),
            "next.discount": of_next([step.timestep.discount for step in steps]),
            "next.done": of_next([step.timestep.step_type for step in steps]) == LAST,
            "has_next": has_next,
        }


class _BagReading:
    """The reading of one bag: its frames in episodes, and an episode's frames as rows."""

    def __init__(
        self, bag: Bag, info: DatasetInfo, config: BuildConfig, watch: Stopwatch, on_frame: Callable[[], None]
    ):
        self.report = BagReport(str(bag.path), faults=Counter(bag.faults), notes=Counter(bag.notes))
        self._bag, self._info, self._watch, self._on_frame = bag, info, watch, on_frame
        self._keep_frames, self._derives = config.frames, config.derive_velocity
        self._max_age_ns = round(config.joint_state_max_age_s * 1e9)
        self._needed = [name for name in OF_THE_SIM if name in bag.present]
        self._unknown = np.full(len(info.joint_names), np.nan)
        self._commands = 0

    def episodes(self, first: int) -> Iterator[tuple[int, Iterator[Frame]]]:
        """Yield the number, from `first` on, and the frames of each episode; take the frames before the next one."""
        for number, numbered in groupby(self._numbered(first), key=lambda pair: pair[0]):
            self.report.episodes += 1
            yield number, (frame for _, frame in numbered)

    def pieces(
        self, frames: Iterator[Frame], encoder: Encoder | None, keep_frames: bool
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yield the rows of one episode in pieces of about `PIECE_BYTES`, for `EpisodeWriter.add_pieces`.

        Faults are counted even without an encoder and without keeping frames.
        """
        waiting = _Waiting(self._info, keep_frames, encoder is not None)
        whole: list[bool] = []

        def decoded() -> Iterator[tuple[int, np.ndarray]]:
            for frame in frames:
                self.report.frames += 1
                self._on_frame()
                try:
                    with self._watch("decoding"):
                        rgb = _picture(frame)
                        step = self._step(frame, rgb)
                except ImageCodecError as error:  # A live node leaves such a frame out of the clip too.
                    self.report.faults[f"undecodable image{_reason(error)}"] += 1
                    continue
                whole.append(step is not None)
                if step is not None:
                    self.report.rows += 1
                    waiting.steps.append(step)
                    if keep_frames:
                        waiting.images.append(np.array(rgb))
                yield frame.stamp_ns, rgb

        batches = encoded_batches(encoder, episode_clips(encoder, decoded())) if encoder else (None for _ in decoded())
        while True:
            with self._watch("encoding" if encoder else "decoding"):
                try:
                    latents = next(batches)
                except StopIteration:
                    break
            if latents is not None:
                waiting.latents.extend(latents[whole].astype(np.float16))
            whole.clear()
            yield from waiting.full()
        yield from waiting.rest()

    def _numbered(self, first: int) -> Iterator[tuple[int, Frame]]:
        """Yield the frames with the number of their episode, and count the missing frames between them."""
        frames = self._bag.frames(
            self._max_age_ns, self.report.faults, self._info.joint_names, self._derives, self.report.notes
        )
        number, previous_ns, ended = first - 1, None, False
        period_ns = self._info.control_period_ns
        while True:
            with self._watch("reading"):
                frame = next(frames, None)
            if frame is None:
                if JOINT_COMMAND in self._bag.present and not self._commands:
                    self.report.faults[f"no {JOINT_COMMAND} has the stamp of a frame: NaN in command"] += 1
                return
            kind = frame.timestep.step_type if frame.timestep else None
            by_stamp = begins_episode(previous_ns, frame.stamp_ns)
            if by_stamp or ended or kind == FIRST:
                number += 1
            if previous_ns is not None and not ended and kind != FIRST:
                distance_ns = frame.stamp_ns - previous_ns
                if not by_stamp and distance_ns > GAP_PERIODS * period_ns:
                    self.report.faults["frame missing (gap)"] += round(distance_ns / period_ns) - 1
                elif distance_ns > EPISODE_GAP_NS and TIMESTEP in self._bag.present:
                    self.report.faults["episode cut by a gap above 0.5 s"] += 1
                elif distance_ns < 0:
                    self.report.faults[
                        "episode cut where a frame is stamped before the one that arrived before it"
                    ] += 1
            previous_ns, ended = frame.stamp_ns, kind == LAST
            yield number, frame

    def _step(self, frame: Frame, rgb: np.ndarray) -> _Step | None:
        """Return the values of the frame's row; if one is missing, count the reason and return None."""
        joints = frame.joint_state
        fault = self._fault(frame, rgb)
        if fault or joints is None:
            self.report.faults[fault] += 1
            return None
        timestep = frame.timestep or Timestep(np.nan, np.nan, -1)
        if REWARD in self._bag.present:
            timestep = timestep._replace(reward=self._reward(frame))
        return _Step(
            stamp_ns=frame.stamp_ns,
            position=joints.position,
            velocity=self._finite("velocity", joints.velocity),
            effort=self._finite("effort", joints.effort),
            command=self._command(frame),
            target=_NOWHERE if frame.target is None else frame.target,
            fingertip=_NOWHERE if frame.fingertip is None else frame.fingertip,
            timestep=timestep,
        )

    def _fault(self, frame: Frame, rgb: np.ndarray) -> str:
        """Return the reason why a frame has no row; empty if it has one."""
        if self._keep_frames and rgb.shape != self._info.image_shape:
            return f"image of another size than {self._info.image_shape}"
        parts = {TIMESTEP: frame.timestep, TARGET: frame.target, FINGERTIP: frame.fingertip}
        found = {JOINT_STATES: frame.joint_state, **{name: parts[name] for name in self._needed}}
        return next((f"frame without {name}" for name, part in found.items() if part is None), "")

    def _finite(self, name: str, values: np.ndarray) -> np.ndarray:
        """Return the velocities or efforts of a joint state; if they are not finite, count that and return NaN."""
        if not np.isfinite(values).all():
            self.report.faults[f"row without {name} of each joint: NaN in {COLUMN_OF[name]}"] += 1
        return np.where(np.isfinite(values), values, np.nan)

    def _command(self, frame: Frame) -> np.ndarray:
        """Return the commanded efforts, (n,) N·m in the dataset's order of joints; NaN if unknown."""
        if frame.command is None:
            return self._unknown
        self._commands += 1
        command = self._by_joint(frame.command.name, frame.command.effort)
        if command is None:
            self.report.faults[f"{JOINT_COMMAND} without an effort of each joint"] += 1
        elif not np.isfinite(command).all():
            self.report.faults[f"{JOINT_COMMAND} that is not finite: NaN in command"] += 1
            command = None
        return self._unknown if command is None else command

    def _reward(self, frame: Frame) -> float:
        """Return the reward of a frame; if it has no finite reward, count the reason and return NaN."""
        if frame.reward is not None and math.isfinite(frame.reward):
            return frame.reward
        lacks = "without a reward" if frame.reward is None else "with a reward that is not finite"
        self.report.faults[f"frame {lacks}: NaN in next.reward"] += 1
        return math.nan

    def _by_joint(self, names: list[str], values: np.ndarray) -> np.ndarray | None:
        """Return `values`, one for each name, in the dataset's order of joints, or None if one is missing."""
        known = dict(zip(names, values, strict=False)) if len(names) == len(values) else {}
        if not set(self._info.joint_names) <= known.keys():
            return None
        return np.array([known[name] for name in self._info.joint_names], np.float64)


def _task(bags: list[Bag], config: BuildConfig) -> str:
    """Return the requested task, or the task of the bags; empty if neither is known."""
    tasks = {bag.about["task"] for bag in bags if bag.about.get("task")}
    if not config.task and len(tasks) > 1:
        raise VjepaError(f"the bags are of the tasks {', '.join(sorted(tasks))}; build one dataset for each task")
    return config.task or "".join(tasks)


def _usable_bag(bags: list[Bag], config: BuildConfig) -> Bag:
    """Return the bag with the most frames among the bags with frames and joint states."""
    usable = [bag for bag in bags if {IMAGE, JOINT_STATES} <= bag.present]
    if not usable:
        raise VjepaError(
            f"no bag has messages on both {config.names[IMAGE]} and {config.names[JOINT_STATES]}; "
            f"give their names with --namespace or --topics{_listed(_union(bags))}"
        )
    return max(usable, key=lambda bag: bag.frame_count)


def _joint_names(bag: Bag) -> tuple[str, ...]:
    """Return the joint names in the joint states of a bag."""
    faults = Counter(bag.faults)
    joints = bag.joint_names(faults)
    if not joints:
        listed = _listed(faults)
        raise VjepaError(f"{bag.path}: no joint state names a joint; name the joints of the arm with --joints{listed}")
    return joints


def _union(bags: list[Bag]) -> Counter[str]:
    return sum((bag.faults for bag in bags), Counter())


def _listed(faults: Counter[str]) -> str:
    """Return the faults with their counts as the end of a message; empty if there are none."""
    found = [f"{fault} ({count})" for fault, count in sorted(faults.items()) if not fault.startswith("no topic ")]
    return "".join(f"\n  {line}" for line in found)


def _survey(bag: Bag, info: DatasetInfo, config: BuildConfig) -> BagReport:
    """Read a bag without encoding or keeping anything, and return its report."""
    reading = _BagReading(bag, info, config, Stopwatch(), lambda: None)
    for _, frames in reading.episodes(0):
        deque(reading.pieces(frames, None, False), maxlen=0)
    return reading.report


def _refuse_faults(reports: list[BagReport]) -> None:
    found = [f"{report.bag}: {fault} ({count})" for report in reports for fault, count in report.faults.items()]
    if found:
        raise DatasetError("\n  ".join([f"{len(found)} faults, and --strict allows none:", *found]))


def _picture(frame: Frame) -> np.ndarray:
    """Return the frame's picture, (height, width, 3) uint8; raise ImageCodecError if its bytes are not a picture."""
    return compressed_to_rgb(frame.image) if hasattr(frame.image, "format") else image_to_rgb(frame.image)


def _reason(error: ImageCodecError) -> str:
    """Return why a picture cannot be decoded, as the end of a line that is equal for pictures of the same kind."""
    if isinstance(error, DamagedJpegError):
        return ": damaged JPEG, of which a part alone can be decoded"
    return f": {error}" if isinstance(error, ImageLabelError) else ""


class _Head(NamedTuple):
    """The facts of one of the first frames of a bag, without its picture: a hundred pictures take gigabytes.

    Attributes:
        stamp_ns: stamp of the frame, nanoseconds.
        is_joined: whether it has a joint state.
        shape: shape of the picture; None if it cannot be decoded.
        problem: the reason for that.
    """

    stamp_ns: int
    is_joined: bool
    shape: tuple[int, int, int] | None
    problem: str

    @classmethod
    def of(cls, frame: Frame) -> "_Head":
        shape, problem = None, ""
        try:
            height, width, channels = _picture(frame).shape
            shape = height, width, channels
        except ImageCodecError as error:
            problem = str(error)
        return cls(frame.stamp_ns, frame.joint_state is not None, shape, problem)


def _head(bag: Bag, config: BuildConfig, joints: tuple[str, ...], is_arm_known: bool) -> list[_Head]:
    """Return the facts of the first frames of a bag; for an unknown arm, one of them must have a joint state."""
    faults = Counter(bag.faults)
    frames = bag.frames(round(config.joint_state_max_age_s * 1e9), faults, joints, config.derive_velocity)
    head = [_Head.of(frame) for frame in islice(frames, HEAD_FRAMES)]
    frames.close()
    if not head:
        raise VjepaError(f"{bag.path}: no frame could be read{_listed(faults)}")
    if not is_arm_known and not any(frame.is_joined for frame in head) and len(head) < HEAD_FRAMES:
        raise VjepaError(f"{bag.path}: none of its {len(head)} frames has a joint state{_listed(faults)}")
    return head


def _image_shape(head: list[_Head], bag: Bag) -> tuple[int, int, int]:
    """Return the most frequent shape of the first frames; of two equally frequent shapes, the first."""
    shapes = Counter(frame.shape for frame in head if frame.shape is not None)
    if shapes:
        return shapes.most_common(1)[0][0]
    raise VjepaError(f"{bag.path}: none of the first {len(head)} frames can be decoded: {head[-1].problem}")


def _recorded_period_s(bags: list[Bag]) -> float | None:
    """Return the control period of the simulation in the bags, s; None if no bag states it."""
    stated = {bag.about[CONTROL_PERIOD] for bag in bags if bag.about.get(CONTROL_PERIOD)}
    if not stated:
        return None
    if len(stated) > 1:
        raise VjepaError(f"the bags are of the control periods {', '.join(sorted(stated))} s; build a dataset of each")
    try:
        return BuildConfig(names={}, control_period_s=float(*stated)).control_period_s
    except (ValueError, VjepaError) as error:
        raise VjepaError(
            f"the bags' metadata has {CONTROL_PERIOD} '{''.join(stated):.100}'; expected seconds: give them as "
            "--control-period"
        ) from error


def _control_period_ns(head: list[_Head], known_s: float | None, bag: Bag) -> int:
    if known_s is not None:
        return round(known_s * 1e9)
    distances = np.diff([frame.stamp_ns for frame in head])
    distances = distances[(distances > 0) & (distances <= EPISODE_GAP_NS)]
    if not len(distances):
        raise VjepaError(f"{bag.path} has too few frames for a control period; give --control-period in seconds")
    return round(float(np.median(distances)))
