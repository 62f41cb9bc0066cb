"""The records of a probe's result. This module has no torch, because a command line imports it."""

from typing import Any, NotRequired, TypedDict


class TargetScores(TypedDict):
    """The scores of predictions of a target.

    Attributes:
        measure: `r2`, over all components, or `accuracy`.
        value: figure of this measure.
        interval_95: its 95 % interval.
        commonest_class: of classes, accuracy of always predicting the commonest class.
        components: of a quantity, R² of each component.
        rmse: of a quantity, over coordinates, or joints; of angles, from their sine and cosine.
        rmse_interval_95: its 95 % interval.
        rmse_each: of a quantity, by coordinate or joint.
        unit: unit of the errors of a quantity.
        distance_rms: of a position, root mean square distance, m.
        distance_rms_interval_95: its 95 % interval.
        test_rows: number of rows.
        test_episodes: number of episodes of these rows.
    """

    measure: str
    value: float
    interval_95: list[float]
    commonest_class: NotRequired[float]
    components: NotRequired[dict[str, float]]
    rmse: NotRequired[float]
    rmse_interval_95: NotRequired[list[float]]
    rmse_each: NotRequired[list[float]]
    unit: NotRequired[str]
    distance_rms: NotRequired[float]
    distance_rms_interval_95: NotRequired[list[float]]
    test_rows: int
    test_episodes: int


class ProbeScores(TargetScores):
    """The scores of one probe of one target.

    Attributes:
        target: name of the target.
        source: source of the features: `encoder`, `untrained` or `pixels`.
        rows: rows of the latent that are read: `mean` or `grid`; `two frames` of pixels.
        probe: `linear` or `attentive`.
        fit_rows: number of training rows.
        fit_episodes: number of episodes of these rows.
        ridges: chosen penalties of a linear probe.
    """

    target: str
    source: str
    rows: str
    probe: str
    fit_rows: int
    fit_episodes: int
    ridges: list[float]


class ProbeResult(TypedDict):
    """All figures of the probes, with the origin of the data, the sizes of samples, and seeds.

    Attributes:
        data: the dataset, or the settings of the simulated episodes.
        frames: sizes of the parts `train`, `validation` and `test`, in `rows` and `episodes`, and how rows were chosen.
        left_out: reasons for missing targets and baselines, by name.
        scores: an entry for each probe of each target.
    """

    encoder: str
    encoder_fingerprint: str
    encoder_untrained: bool
    clip_frames: int
    latent_shape: list[int]
    data: dict[str, Any]
    frames: dict[str, Any]
    seeds: dict[str, int]
    left_out: dict[str, str]
    scores: list[ProbeScores]
