"""Make the targets of probes: quantities of a dataset's rows with their units, and scores of predictions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from sim_bridge.randomize import Randomizer
from sim_bridge.tasks import plane_of, task_named
from vjepa_training.data.dataset import Dataset
from vjepa_training.probes.probe import Score, accuracy_score, r2_score, rmse_score
from vjepa_training.probes.probe_result import TargetScores

SECTORS = 8
"""Directions of motion, the first along +x, the next towards +y, or towards +z if the arm moves upright."""

MOVING_M_S = 0.1
"""The fingertip counts as moving if it is faster than this."""

HUE_CLASSES = 3
"""Classes of the target's colour, from purplish to orange, with equally many training episodes in each."""

_CONSTANT = 1e-9

POSITION, ANGLES, PLAIN, CLASSES = "position", "angles", "plain", "classes"


@dataclass(frozen=True)
class ProbeTarget:
    """A quantity to read from latents.

    Attributes:
        name: its name.
        kind: `position` (coordinates), `angles` (sine and cosine of each joint in turn), `plain`, or `classes`.
        unit: unit of its errors; empty for classes.
        values: (N, k) float, NaN if unknown; for classes (N,) whole numbers, -1 if unknown.
        components: name of each of the k values; for classes of each class.
    """

    name: str
    kind: str
    unit: str
    values: np.ndarray
    components: tuple[str, ...]

    @property
    def known(self) -> np.ndarray:
        """Return which rows have a known value, (N,) bool."""
        return self.values >= 0 if self.kind == CLASSES else np.isfinite(self.values).all(axis=1)


def probe_targets(
    dataset: Dataset, rows: np.ndarray, parts: Sequence[np.ndarray], hues: np.ndarray | None
) -> tuple[list[ProbeTarget], dict[str, str]]:
    """Return the targets that can be probed, and the reasons why others cannot.

    Args:
        dataset: dataset of the rows.
        rows: (N,) row numbers, none the first of its episode.
        parts: which of the N to train on, to choose with and to test on, as numbers from 0.
        hues: (N,) hue of the target in each row's episode, radians; None if unknown or constant.
    """
    column = {name: np.asarray(dataset[name])[rows] for name in ("target", "fingertip", "target_size")}
    position = dataset["observation.joint_position"][rows]
    velocity = dataset["observation.joint_velocity"][rows]
    joints = dataset.info.joint_names
    circle = np.stack([np.sin(position), np.cos(position)], axis=2).reshape(len(rows), -1)
    plane = plane_of(dataset.info.task)
    axes = tuple("xyz"[axis] for axis in plane)
    found = [
        ProbeTarget("fingertip", POSITION, "m", column["fingertip"][:, plane], axes),
        ProbeTarget("target", POSITION, "m", column["target"][:, plane], axes),
        ProbeTarget("joint angles", ANGLES, "rad", circle, tuple(f"{f} {j}" for j in joints for f in ("sin", "cos"))),
        ProbeTarget("joint velocities", PLAIN, "rad/s", velocity, joints),
        ProbeTarget("target size", PLAIN, "m", column["target_size"][:, None], ("radius",)),
        ProbeTarget("motion direction", CLASSES, "", motion_sectors(dataset, rows, plane), _sector_names()),
    ]
    left_out = {}
    if hues is None:
        left_out["colour class"] = "the seeds of the episodes are not known, or their colours are all the same"
    else:
        names = ("purplish", "red", "orange")
        found.append(ProbeTarget("colour class", CLASSES, "", hue_classes(hues, parts[0]), names))
    kept = []
    for target in found:
        known = [target.values[part][target.known[part]] for part in parts]
        empty = [
            use for use, values in zip(("train on", "choose with", "test on"), known, strict=True) if not len(values)
        ]
        if empty:
            left_out[target.name] = f"it is not known in any row to {' or to '.join(empty)}"
        elif np.ptp(known[0], axis=0).max() < _CONSTANT:
            left_out[target.name] = "it is the same in every row"
        else:
            kept.append(target)
    return kept, left_out


def motion_sectors(dataset: Dataset, rows: np.ndarray, plane: Sequence[int]) -> np.ndarray:
    """Return the sector, (N,) from 0, into which the fingertip moved since the row before; -1 if it stands still.

    A sector is centred on its direction in the `plane`; rows with an unknown fingertip are -1 too.
    """
    fingertip, stamps = np.asarray(dataset["fingertip"]), np.asarray(dataset["stamp_ns"])
    moved = (fingertip[rows] - fingertip[rows - 1])[:, plane]
    seconds = (stamps[rows] - stamps[rows - 1]) * 1e-9
    angle = np.arctan2(moved[:, 1], moved[:, 0])
    moving = np.linalg.norm(moved, axis=1) > MOVING_M_S * seconds
    sector = np.round(np.where(moving, angle, 0.0) / (2 * np.pi / SECTORS)).astype(int) % SECTORS
    return np.where(moving, sector, -1)


def target_hues(task: str, seeds: list[int]) -> np.ndarray:
    """Return the hue of the target's material in the episodes of these seeds, radians, for a randomised appearance.

    The draws are repeated on a model of the task without rendering. Lights change brightness and not hue. So the
    material's hue is the hue of its pixels, except overexposed ones. 0 is red, positive towards yellow.
    """
    arm = task_named(task)
    environment = arm.load(seed=0)
    model = environment.physics.model
    material = model.geom_matid[model.name2id(arm.target.name, "geom")]
    randomizer = Randomizer(model.ptr, model.name2id(arm.camera, "camera"), camera=False, appearance=True)
    found = []
    for seed in seeds:
        randomizer.draw(seed)
        red, green, blue = model.mat_rgba[material, :3]
        found.append(np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue))
    environment.physics.free()
    return np.array(found)


def hue_classes(hues: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Return the class of each hue, (N,), with limits that divide the hues of the rows `training` into equal shares."""
    limits = np.quantile(hues[training], np.arange(1, HUE_CLASSES) / HUE_CLASSES)
    return np.searchsorted(limits, hues, side="right")


def target_scores(target: ProbeTarget, rows: np.ndarray, predicted: np.ndarray, episodes: np.ndarray) -> TargetScores:
    """Return the scores of `predicted` on the test rows `rows`.

    Args:
        target: the quantity.
        rows: (M,) row numbers of its values.
        predicted: (M, k), or (M,) classes.
        episodes: (M,) the episode of each row.
    """
    truth = target.values[rows]
    size = {"test_rows": len(rows), "test_episodes": len(np.unique(episodes))}
    if target.kind == CLASSES:
        score = accuracy_score(predicted, truth, episodes)
        commonest = np.bincount(truth).max() / len(truth)
        return cast(TargetScores, {**_figure("accuracy", score), "commonest_class": float(commonest), **size})
    errors = predicted - truth
    if target.kind == ANGLES:
        errors = _angles(predicted) - _angles(truth)
        errors = np.arctan2(np.sin(errors), np.cos(errors))
    rmse = rmse_score(errors, episodes)
    parts = [r2_score(predicted[:, i : i + 1], truth[:, i : i + 1], episodes).value for i in range(truth.shape[1])]
    result = {
        **_figure("r2", r2_score(predicted, truth, episodes)),
        "components": dict(zip(target.components, parts, strict=True)),
        "rmse": rmse.value,
        "rmse_interval_95": list(rmse.interval_95),
        "rmse_each": np.sqrt(np.square(errors).mean(axis=0)).tolist(),
        "unit": target.unit,
    }
    if target.kind == POSITION:
        distance = rmse_score(np.linalg.norm(errors, axis=1, keepdims=True), episodes)
        result |= {"distance_rms": distance.value, "distance_rms_interval_95": list(distance.interval_95)}
    return cast(TargetScores, {**result, **size})


def _figure(measure: str, score: Score) -> dict[str, Any]:
    return {"measure": measure, "value": score.value, "interval_95": list(score.interval_95)}


def _angles(circle: np.ndarray) -> np.ndarray:
    """Return the angles, (N, n) rad, of alternating sines and cosines, (N, 2 n)."""
    return np.arctan2(circle[:, 0::2], circle[:, 1::2])


def _sector_names() -> tuple[str, ...]:
    return tuple(f"{360 * i // SECTORS} degrees" for i in range(SECTORS))
