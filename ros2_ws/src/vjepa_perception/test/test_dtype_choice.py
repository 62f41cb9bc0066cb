"""The number type of an encoder that runs live: bfloat16 where it is clearly faster, and never against the user."""

import dataclasses
import os
import platform
import re
import subprocess
import sys

import pytest
import torch

from vjepa_interfaces.bundle import find_bundle
from vjepa_perception import dtype_choice
from vjepa_perception.dtype_choice import shortest_times
from vjepa_perception.encoder import EncoderConfig, load_encoder

SMALL = EncoderConfig(find_bundle("encoder-small"), "cpu")
AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
}
"""These hold the libraries to the instructions of a processor with AVX2, where bfloat16 is emulated."""

CHOOSE = "from vjepa_perception.dtype_choice import faster_dtype; print(*faster_dtype(None, 8), sep=': ')"


@pytest.mark.parametrize(
    ("times_ms", "dtype"),
    [
        ([2.0, 1.0], torch.bfloat16),
        ([1.1, 1.0], torch.float32),
        ([1.0, 10.0], torch.float32),
    ],
    ids=["faster", "little faster", "slower"],
)
def test_auto_is_bfloat16_where_that_is_clearly_faster(times_ms, dtype, monkeypatch):
    monkeypatch.setattr(dtype_choice, "has_bfloat16_products", lambda: True)
    monkeypatch.setattr(dtype_choice, "shortest_times", lambda calls: [ms / 1e3 for ms in times_ms])
    encoder = load_encoder(SMALL, live=True)
    assert encoder.dtype == dtype
    wide, narrow = times_ms
    assert encoder.dtype_reason == f"a layer takes {wide:.2f} ms in float32 and {narrow:.2f} ms in bfloat16"


@pytest.mark.parametrize(("dtype", "live"), [("float32", True), ("bfloat16", True), ("auto", False)])
def test_a_type_that_was_set_and_an_encoder_offline_are_not_measured(dtype, live, monkeypatch):
    monkeypatch.setattr("vjepa_perception.encoder.faster_dtype", None)
    encoder = load_encoder(dataclasses.replace(SMALL, dtype=dtype), live=live)
    assert str(encoder.dtype) == f"torch.{dtype if dtype != 'auto' else 'float32'}"
    assert encoder.dtype_reason == ""


def test_a_layer_of_the_encoder_is_measured_in_both_types(monkeypatch):
    monkeypatch.setattr(dtype_choice, "has_bfloat16_products", lambda: True)
    encoder = load_encoder(SMALL, live=True)
    found = re.fullmatch(r"a layer takes ([\d.]+) ms in float32 and ([\d.]+) ms in bfloat16", encoder.dtype_reason)
    assert found
    assert min(map(float, found.groups())) > 0.0


@pytest.mark.skipif(platform.machine() != "x86_64", reason="AVX2 is of x86-64")
def test_a_processor_without_products_of_bfloat16_computes_in_float32():
    command = [sys.executable, "-c", CHOOSE]
    run = subprocess.run(command, env=os.environ | AVX2, capture_output=True, text=True, check=True)
    assert run.stdout == "torch.float32: this processor has no matrix products of bfloat16\n"


def test_calls_take_turns_behind_a_warm_up_until_the_time_is_over(monkeypatch):
    monkeypatch.setattr(dtype_choice, "LIMIT_S", 0.0)
    calls = []
    times = shortest_times([lambda: calls.append("a"), lambda: calls.append("b")])
    assert calls == ["a", "b", "a", "b"]
    assert all(0.0 <= time_s < float("inf") for time_s in times)
