"""A run recorded over ROS becomes the dataset that the same seeds give without ROS, with the latents that were live."""

import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from vjepa_bags.bag_reader import Bag, topic_names
from vjepa_cli.cli import main
from vjepa_interfaces.messages import latent_of
from vjepa_interfaces.stamps import to_nanoseconds
from vjepa_perception.encoder import EncoderConfig, load_encoder
from vjepa_training.data.dataset import IMAGE, LATENT, Dataset
from vjepa_training.data.encode import encoded_batches, episode_clips

EPISODES, STEPS, SEED = 2, 36, 11
RATE_HZ, PERIOD_NS = 25, 40_000_000
"""Another rate than the task's own, so that a clip is of frames that are as far apart live as in the data."""


def vjepa(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code == 0


@pytest.fixture
def recorded(lockstep_stack, tmp_path):
    stack = lockstep_stack(
        planner="expert",
        light=False,
        episodes=EPISODES,
        episode_steps=STEPS,
        seed=SEED,
        rate=str(RATE_HZ),
        device="cpu",
        record=True,
        bag_dir=str(tmp_path / "bags"),
    )
    stack.wait_for(lambda: stack.monitor.sim_finished, "the end", 150.0)
    stack.supervisor.stop()
    (bag,) = (tmp_path / "bags").iterdir()
    return bag


def live_latents(bag) -> np.ndarray:
    """The latents that were on the wire, (T, rows, dimension) float32, in the order of their stamps."""
    found = {}
    with AnyReader([bag], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
        connections = [c for c in reader.connections if c.topic == "/vjepa_perception/latent"]
        for connection, _, data in reader.messages(connections):
            message = reader.deserialize(data, connection.msgtype)
            found[to_nanoseconds(message.header.stamp)] = latent_of(message)
    return np.stack([found[stamp] for stamp in sorted(found)])


def test_a_recorded_run_is_the_dataset_of_its_seeds_with_the_latents_that_were_live(recorded, tmp_path, capsys):
    vjepa("dataset", "build", recorded, "--out", tmp_path / "built", "--frames", "--device", "cpu", "--strict")
    said = capsys.readouterr().out
    built = Dataset(tmp_path / "built")
    frames = str(EPISODES * (STEPS + 1))
    assert [frames, frames, str(EPISODES), str(recorded)] in [line.split() for line in said.splitlines()]
    assert "of it reading" in said
    assert built.info.sources[0]["recorded_with"]["planners"] == "expert"
    assert built.info.control_period_ns == PERIOD_NS
    for start, stop in built.episodes:
        assert set(np.diff(built["stamp_ns"][start:stop])) == {PERIOD_NS}

    live = live_latents(recorded)
    encoder = load_encoder(EncoderConfig(Bag(recorded, topic_names()).about["encoder"], device="cpu", threads=1))
    latents = []
    for start, stop in built.episodes:
        frames = zip(built["stamp_ns"][start:stop].tolist(), built[IMAGE][start:stop], strict=True)
        latents += encoded_batches(encoder, episode_clips(encoder, frames))
    again = np.concatenate(latents)
    assert built.info.encoder == encoder.info()
    errors = np.linalg.norm(again - live, axis=-1) / np.linalg.norm(live, axis=-1)
    assert errors.max() <= 1e-3
    np.testing.assert_allclose(np.asarray(built[LATENT], np.float32), live, rtol=2e-3, atol=1e-3)

    vjepa(
        *("collect", "--behaviour", "expert", "--episodes", EPISODES, "--episode-steps", STEPS, "--seed", SEED),
        *("--rate-hz", RATE_HZ, "--workers", 1, "--out", tmp_path / "collected", "--frames", "--device", "cpu"),
    )
    collected = Dataset(tmp_path / "collected")
    assert not built.info.differences(collected.info)
    np.testing.assert_array_equal(built.episodes, collected.episodes)
    for name in built.info.columns():
        if name == LATENT:
            ours, theirs = (np.asarray(dataset[name], np.float32) for dataset in (built, collected))
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)
        elif name != "target_size":  # No topic says it.
            np.testing.assert_array_equal(np.asarray(built[name]), np.asarray(collected[name]), name)

    vjepa("dataset", "merge", tmp_path / "built", tmp_path / "collected", "--out", tmp_path / "merged")
    vjepa("dataset", "encode", tmp_path / "merged", "--out", tmp_path / "encoded", "--device", "cpu")
    encoded = Dataset(tmp_path / "encoded")
    assert len(encoded.episodes) == 2 * EPISODES
    latents = np.concatenate([np.asarray(built[LATENT]), np.asarray(collected[LATENT])])
    np.testing.assert_allclose(
        np.asarray(encoded[LATENT], np.float32), latents.astype(np.float32), rtol=2e-3, atol=1e-3
    )
    capsys.readouterr()
    vjepa("dataset", "info", tmp_path / "encoded")
    said = capsys.readouterr().out
    assert f"{4 * (STEPS + 1)} rows in 4 episodes" in said
    assert encoder.fingerprint in said
