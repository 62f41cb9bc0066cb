"""Small datasets of real simulated episodes, made once for all tests of this package."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from sim_bridge.env import SimConfig
from vjepa_interfaces.bundle import file_sha256
from vjepa_perception.encoder import EncoderConfig
from vjepa_training.data.collect import CollectConfig, collect
from vjepa_training.data.dataset import Dataset
from vjepa_training.trainers.configs import EncoderTraining

TINY_MODEL = {
    "crop_size": 32,
    "patch_size": 8,
    "tubelet_size": 2,
    "frames_per_clip": 4,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "mlp_ratio": 2.0,
    "pred_hidden_size": 32,
    "pred_num_hidden_layers": 1,
    "pred_num_attention_heads": 2,
    "pred_num_mask_tokens": 2,
}


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory) -> Path:
    """The bundle of a very small untrained encoder."""
    folder = tmp_path_factory.mktemp("tiny") / "tiny"
    folder.mkdir()
    config = {
        "kind": "encoder",
        "architecture": "vjepa2",
        "clip_frames": 4,
        "init_seed": 0,
        "model": TINY_MODEL,
        "preprocessing": {"resize": 32, "crop": 32},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def training(tiny_encoder) -> EncoderTraining:
    """Settings of a short training of an encoder."""
    return EncoderTraining(
        encoder=str(tiny_encoder),
        steps=6,
        batch_size=8,
        warmup_steps=2,
        grid=2,
        checkpoint_every=3,
        validation_share=0.2,
    )


@pytest.fixture
def as_version_1():
    """Return a function that copies a dataset in format version 1: `action` in N·m, no `effort`, one effort limit."""

    def copied(dataset: Dataset, folder: Path) -> Dataset:
        shutil.copytree(dataset.folder, folder)
        for file in folder.glob("data-*.arrow"):
            table = pa.ipc.open_stream(file.read_bytes()).read_all()
            index = table.schema.get_field_index("action")
            table = table.set_column(index, table.schema.field("action"), table["effort"]).drop_columns(["effort"])
            with pa.ipc.new_stream(str(file), table.schema) as stream:
                stream.write_table(table)
        description = json.loads((folder / "info.json").read_text())
        hashes = {name: file_sha256(folder / name) for name in description["files"]}
        (limit,) = set(description["effort_limit"])
        description |= {"format_version": 1, "effort_limit": limit, "sha256": hashes}
        (folder / "info.json").write_text(json.dumps(description))
        return Dataset(folder)

    return copied


@pytest.fixture(scope="session")
def small_data(tmp_path_factory, tiny_encoder) -> Dataset:
    """Twenty short episodes of the expert with noise, with frames and the tiny encoder's latents."""
    folder = tmp_path_factory.mktemp("data") / "small"
    config = CollectConfig(
        sim=SimConfig(episode_steps=20, image_size=(32, 32), seed=500),
        behaviour="expert",
        epsilon=0.3,
        hold=4,
        frames=True,
    )
    return collect(
        folder, config, EncoderConfig(str(tiny_encoder), clip_frames=4, grid=2), 20, 1, {"made": "by a test"}
    )
