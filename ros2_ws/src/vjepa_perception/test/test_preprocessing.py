"""Preprocessing, against transformers' own video processor where torchvision is installed, and its refusals."""

import importlib.util

import numpy as np
import pytest
import torch

from vjepa_perception import preprocessing as preprocessing_module
from vjepa_perception.preprocessing import FrameError, Preprocessing, PreprocessingError

SIZES = [(64, 64), (256, 256), (292, 292), (480, 640), (333, 517), (517, 333), (31, 400), (1, 1)]


TORCHVISION_OPERATORS = torch.library.Library("torchvision", "FRAGMENT")


def random_frame(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def processor_class():
    """The real VJEPA2VideoProcessor on the real torchvision transforms.

    PyPI's torchvision wheels are linked with CUDA, so beside a CPU build of torch their compiled library does not load,
    and the import stops at registering shape functions for two detection operators, of which it then knows nothing.
    Declaring the two lets it go on; the transforms used here are pure Python on torch and are not touched by this.
    """
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip(
            "torchvision is not installed; beside a CPU torch: pip install --no-deps --target DIR torchvision==0.28.0, "
            "and put DIR on PYTHONPATH for this file's tests alone"
        )
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in ("nms", "qnms"):
            TORCHVISION_OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from transformers.models.vjepa2.video_processing_vjepa2 import VJEPA2VideoProcessor

    return VJEPA2VideoProcessor


@pytest.mark.parametrize("crop", [256, 64, 384])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_frames_equal_those_of_transformers_own_video_processor(processor_class, size, crop):
    processor = processor_class(crop_size=crop)
    frames = np.stack([random_frame(*size), random_frame(*size)[::-1]])
    theirs = processor(frames, return_tensors="pt", input_data_format="channels_last")["pixel_values_videos"][0]
    preprocessing = Preprocessing.from_video_processor(processor.to_dict())
    assert preprocessing.crop == crop
    for frame, expected in zip(frames, theirs, strict=True):
        torch.testing.assert_close(preprocessing.apply(frame), expected, rtol=0, atol=0)


def test_where_integers_are_not_interpolated_the_result_is_within_one_level(monkeypatch):
    frame = random_frame(120, 160)
    preprocessing = Preprocessing(64, 64, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    integers = preprocessing.apply(frame)
    monkeypatch.setattr(preprocessing_module, "_UINT8_ON_CPU", not preprocessing_module._UINT8_ON_CPU)
    difference = (preprocessing.apply(frame) - integers).abs().max()
    assert 0 < difference <= 1.01 / 255


def test_a_frame_of_the_bundles_own_size_is_only_normalised():
    frame = random_frame(64, 64)
    result = Preprocessing.from_bundle({"resize": 64, "crop": 64}).apply(frame)
    expected = (frame / 255.0 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    assert result.shape == (3, 64, 64)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.permute(1, 2, 0).numpy(), expected, atol=1e-5)


def test_the_crop_is_the_middle_of_the_resized_frame():
    frame = np.zeros((64, 128, 3), np.uint8)
    frame[16:48, 48:80] = 255  # the middle 32 x 32
    result = Preprocessing(resize=64, crop=32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)).apply(frame)
    assert result.min() == result.max() == 1.0


def test_an_odd_margin_is_cropped_on_the_far_side():
    frame = random_frame(65, 65)
    result = Preprocessing(resize=65, crop=64, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)).apply(frame)
    np.testing.assert_allclose(result.permute(1, 2, 0).numpy(), frame[:64, :64] / 255.0, atol=1e-6)


def test_a_pattern_finer_than_the_result_is_averaged_not_sampled():
    frame = np.zeros((256, 256, 3), np.uint8)
    frame[::8] = 200
    result = Preprocessing(resize=32, crop=32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)).apply(frame)
    np.testing.assert_allclose(result[:, 2:-2].numpy(), 25 / 255, atol=1.5 / 255)


def test_a_read_only_view_and_a_strided_view_of_a_frame_give_what_their_pixels_give():
    frame = random_frame(64, 64)
    preprocessing = Preprocessing(64, 64)
    expected = preprocessing.apply(frame)
    padded = np.zeros((64, 70, 3), np.uint8)
    padded[:, :64] = frame
    padded.flags.writeable = False
    assert torch.equal(preprocessing.apply(padded[:, :64]), expected)
    assert torch.equal(preprocessing.apply(frame[::-1][::-1]), expected)


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((64, 64), np.uint8),
        np.zeros((64, 64, 4), np.uint8),
        np.zeros((3, 64, 64), np.uint8),
        np.zeros((64, 64, 3), np.float32),
        np.zeros((0, 64, 3), np.uint8),
        np.zeros((64, 0, 3), np.uint8),
        np.zeros((1, 1000, 3), np.uint8),
        torch.zeros((64, 64, 3), dtype=torch.uint8),
        None,
    ],
    ids=["2d", "alpha", "channels-first", "float", "no-rows", "no-columns", "sliver", "tensor", "none"],
)
def test_what_is_no_frame_is_refused(frame):
    with pytest.raises(FrameError, match=r"^frame (is|has) .*expected"):
        Preprocessing(64, 64).apply(frame)


@pytest.mark.parametrize(
    "fields",
    [
        {"crop_size": {"height": 256, "width": 128}},
        {"crop_size": "large"},
        {"crop_size": 0},
        {"do_resize": False},
        {"do_center_crop": False},
        {"do_normalize": False},
        {"resample": 3},
        {"image_std": [0.2, 0.0, 0.2]},
        {"image_mean": [0.5]},
        {"image_mean": None},
        {"rescale_factor": -1.0},
    ],
    ids=str,
)
def test_a_processor_that_is_not_v_jepa_2s_is_refused(fields):
    with pytest.raises(PreprocessingError, match=r"^(preprocessing has|crop_size is) .*expected|square"):
        Preprocessing.from_video_processor(fields)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"resize": 64}, r"lacks \['crop'\]"),
        ({"resize": 64, "crop": 64, "interpolation": "nearest"}, r"unknown \['interpolation'\]"),
        ({"resize": 32, "crop": 64}, "crops 64 pixels out of 32"),
        ({"resize": "64", "crop": 64}, "resize '64'"),
        ({"resize": 64, "crop": 64, "mean": [float("nan"), 0, 0]}, "mean"),
    ],
)
def test_a_bundles_preprocessing_that_makes_no_sense_is_refused(fields, match):
    with pytest.raises(PreprocessingError, match=match):
        Preprocessing.from_bundle(fields)


def test_a_preprocessed_frame_can_be_looked_at():
    rgb = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    preprocessing = Preprocessing(resize=32, crop=32)
    np.testing.assert_array_equal(preprocessing.picture(preprocessing.apply(rgb)), rgb)
