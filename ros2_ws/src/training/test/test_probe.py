"""Probes read off what is there, and nothing else: known answers on synthetic latents, then a small real run."""

import dataclasses

import numpy as np
import pytest
import torch

from sim_bridge.env import SimConfig, SimEnv
from sim_bridge.gl import choose_gl_backend
from vjepa_interfaces.bundle import write_bundle
from vjepa_interfaces.errors import VjepaError
from vjepa_perception.encoder import EncoderConfig, load_encoder
from vjepa_training.data.collect import CollectConfig, Collector
from vjepa_training.data.dataset import IMAGE, EpisodeWriter, finish_dataset
from vjepa_training.probes import probe as module
from vjepa_training.probes import probe_suite
from vjepa_training.probes.attentive_probe import AttentiveConfig, AttentiveTarget, attentive_probe
from vjepa_training.probes.probe import (
    RIDGES,
    ProbeError,
    accuracy_score,
    fit_classes,
    fit_ridge,
    r2_score,
    rmse_score,
)
from vjepa_training.probes.probe_suite import (
    STRIDE,
    ProbeConfig,
    encoded_rows,
    pixel_rows,
    probed_rows,
    run_probes,
    untrained_twin,
)
from vjepa_training.probes.probe_targets import (
    ProbeTarget,
    hue_classes,
    motion_sectors,
    probe_targets,
    target_hues,
    target_scores,
)

choose_gl_backend()

TINY = {
    "kind": "encoder",
    "architecture": "vjepa2",
    "clip_frames": 4,
    "init_seed": 5,
    "model": {
        "crop_size": 32,
        "patch_size": 8,
        "tubelet_size": 2,
        "frames_per_clip": 4,
        "hidden_size": 32,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
    },
    "preprocessing": {"crop": 32, "resize": 32},
}


@pytest.fixture
def random():
    return np.random.default_rng(0)


def linear_data(random, rows=600, features=40, noise=0.0):
    """Return features far from zero, of very unlike scales, one of them constant, and targets linear in them."""
    x = random.normal(size=(rows, features)) * np.logspace(-2, 2, features) + 30.0
    x[:, 3] = 7.0
    weight = random.normal(size=(features, 2)) / np.logspace(-2, 2, features)[:, None]
    y = x @ weight + [1.0, -5.0]
    return x, y + noise * random.normal(size=y.shape)


# Linear probes.

HELD = np.arange(600) // 10 % 4 == 0
"""Rows that choose a penalty, by episodes of ten rows."""


def test_what_is_linear_is_read_off_whole(random):
    x, y = linear_data(random)
    predicted = fit_ridge(x[:400], y[:400], HELD[:400])(x[400:])
    assert r2_score(predicted, y[400:], np.arange(200)).value == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(predicted, y[400:], atol=0.05)


def test_noise_is_not_read_off(random):
    x, _ = linear_data(random)
    y = random.normal(size=600)
    probe = fit_ridge(x[:400], y[:400], HELD[:400])
    assert r2_score(probe(x[400:]), y[400:, None], np.arange(200)).value == pytest.approx(0.0, abs=0.15)
    assert probe.ridges[0] == max(RIDGES), "the largest penalty is best where there is nothing to learn"


def test_more_features_than_rows_are_held_in_check(random):
    z = random.normal(size=(300, 5))
    x = z @ random.normal(size=(5, 500)) + 0.1 * random.normal(size=(300, 500))
    predicted = fit_ridge(x[:200], z[:200], HELD[:200])(x[200:])
    assert min(r2_score(predicted[:, [i]], z[200:, [i]], np.arange(100)).value for i in range(5)) > 0.98


def test_each_target_has_the_penalty_that_is_best_for_it_on_the_rows_held_out(random):
    x, y = linear_data(random, noise=0.5)
    y[:, 1] = random.normal(size=600)
    held = np.arange(600) % 4 == 0
    chosen = fit_ridge(x, y, held).ridges
    centre, scale = x[~held].mean(0), x[~held].std(0)
    scale[scale < 1e-9] = 1.0
    fit, rest = (x[~held] - centre) / scale, (x[held] - centre) / scale
    for column in range(2):
        errors = []
        for ridge in RIDGES:
            mean = y[~held, column].mean()
            gram = fit.T @ fit / len(fit) + ridge * np.eye(40)
            weight = np.linalg.solve(gram, fit.T @ (y[~held, column] - mean) / len(fit))
            errors.append(np.square(rest @ weight + mean - y[held, column]).mean())
        assert chosen[column] == RIDGES[int(np.argmin(errors))]


def test_the_final_fit_uses_the_rows_held_out_too(random):
    x, y = linear_data(random, noise=1.0)
    held = np.arange(600) % 4 == 0
    probe = fit_ridge(x, y[:, :1], held)
    centred = x - x.mean(0)
    penalty = probe.ridges[0] * np.square(centred).sum(0)
    penalty[3] = 1.0
    expected = np.linalg.solve(centred.T @ centred + np.diag(penalty), centred.T @ y[:, :1])
    np.testing.assert_allclose(probe.weight.numpy(), expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("kind", [np.float16, np.float32, torch.float32])
def test_rows_may_be_of_any_type_and_shape_and_are_read_in_blocks(random, monkeypatch, kind):
    x = random.normal(size=(300, 3, 4)).astype(np.float16)
    y = x.reshape(300, 12).astype(float) @ random.normal(size=(12, 2))
    whole = fit_ridge(x[:200], y[:200], HELD[:200])(x[200:])
    monkeypatch.setattr(module, "_BLOCK_VALUES", 12 * 7)
    other = torch.as_tensor(x).to(kind) if kind is torch.float32 else x.astype(kind)
    blocks = fit_ridge(other[:200], y[:200], HELD[:200])(other[200:])
    np.testing.assert_allclose(blocks, whole, atol=1e-9)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda x, y, h: (x, np.where(np.arange(len(y)) == 3, np.nan, y), h), "1 target values are not finite"),
        (lambda x, y, h: (np.where(np.arange(len(x))[:, None] == 3, np.inf, x), y, h), "features have values that are"),
        (lambda x, y, h: (x, y[:-1], h), "60 rows of features, 59 of targets"),
        (lambda x, y, h: (x, y, h[:-1]), "60 of targets and 59 of the split"),
        (lambda x, y, h: (x, y, np.zeros(60, bool)), "0 of 60 rows are held out"),
    ],
)
def test_what_cannot_be_probed_is_refused(random, damage, message):
    x, y, held = damage(random.normal(size=(60, 3)), random.normal(size=60), HELD[:60])
    with pytest.raises(VjepaError, match=message):
        fit_ridge(x, y, held)


def test_classes_of_a_circle_and_between_two_others_are_told_apart(random):
    angle = random.uniform(-np.pi, np.pi, 2000)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1) @ random.normal(size=(2, 30))
    sectors = np.round(angle / (np.pi / 4)).astype(int) % 8
    line = np.linspace(-1, 1, 2000)[:, None] * random.normal(size=(1, 30))
    thirds = np.repeat([0, 1, 2], [667, 666, 667])
    for features, classes, least in ((circle, sectors, 0.95), (line, thirds, 0.95)):
        features = features + 0.01 * random.normal(size=features.shape)
        test = random.random(2000) < 0.3
        held = random.random((~test).sum()) < 0.2
        probe = fit_classes(features[~test], classes[~test], held)
        assert np.mean(probe(features[test]).argmax(1) == classes[test]) > least


def test_a_class_without_a_row_is_never_the_answer(random):
    x = random.normal(size=(200, 4))
    probe = fit_classes(x, np.where(x[:, 0] > 0, 0, 2), np.arange(200) % 4 == 0)
    assert set(probe(x).argmax(1)) == {0, 2}


# Splits and intervals.


def test_figures_are_those_of_their_definitions(random):
    truth = random.normal(size=(200, 2)) + 5.0
    predicted = truth + 0.5 * random.normal(size=(200, 2))
    episodes = np.arange(200) // 10
    error, variation = np.square(predicted - truth).sum(), np.square(truth - truth.mean(0)).sum()
    assert r2_score(predicted, truth, episodes).value == pytest.approx(1 - error / variation)
    assert rmse_score(predicted - truth, episodes).value == pytest.approx(np.sqrt(error / 400))
    assert accuracy_score(np.array([1, 2, 3]), np.array([1, 2, 0]), np.arange(3)).value == pytest.approx(2 / 3)


def test_an_interval_holds_the_truth_as_often_as_it_claims_though_an_episodes_rows_are_alike(random):
    episodes = np.repeat(np.arange(60), 20)
    covered = 0
    for _ in range(100):
        spread = random.uniform(0.5, 1.5, 60)[episodes]
        score = rmse_score((spread * random.normal(size=1200))[:, None], episodes)
        covered += score.interval_95[0] <= np.sqrt(np.mean([13 / 12])) <= score.interval_95[1]
    assert 86 <= covered <= 100


# Attentive probes.


def test_attention_finds_what_one_row_holds_wherever_that_is(random):
    """A marked row carries the value; it lies elsewhere in each sample, so no matrix can pick it out."""
    latents = random.normal(size=(3000, 6, 8)).astype(np.float32)
    place, value = random.integers(0, 6, 3000), random.normal(size=3000)
    latents[:, :, 0] = 0.0
    latents[np.arange(3000), place, 0] = 5.0
    latents[np.arange(3000), place, 1] = value
    targets = [AttentiveTarget(value[:, None] * 3 + 10), AttentiveTarget((value > 0).astype(int), classes=2)]
    fit, held, test = np.split(np.arange(3000), [2000, 2400])
    config = AttentiveConfig(epochs=20, learning_rate=5e-3, batch_size=100)
    read, sign = attentive_probe(latents, targets, fit, held, test, config=config)
    assert read.shape == (600, 1)
    assert r2_score(read, targets[0].values[test], test).value > 0.9
    assert np.mean(sign == targets[1].values[test]) > 0.9
    linear = fit_ridge(latents[:2400], targets[0].values[:2400], np.arange(2400) >= 2000)(latents[test])
    assert r2_score(linear, targets[0].values[test], test).value < 0.5


def test_attentive_probes_are_the_same_each_time_and_pass_over_unknown_values(random):
    latents = random.normal(size=(120, 3, 4)).astype(np.float16)
    values = latents[:, 1, :2].astype(float)
    values[::5] = np.nan
    classes = np.where(np.arange(120) % 7 == 0, -1, latents[:, 0, 0] > 0)
    targets = [AttentiveTarget(values), AttentiveTarget(classes, classes=2)]
    fit, held, test = np.split(np.arange(120), [70, 90])
    config = AttentiveConfig(epochs=2)
    state = torch.random.get_rng_state()
    once, again = (attentive_probe(latents, targets, fit, held, test, 3, config=config) for _ in range(2))
    for one, other in zip(once, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.isfinite(once[0]).all()
    assert torch.equal(torch.random.get_rng_state(), state), "the caller's random numbers are left alone"


# Targets.


def test_errors_of_angles_are_counted_around_the_circle():
    def circle(angles):
        return np.stack([np.sin(angles), np.cos(angles)], axis=1)

    true, read = np.array([3.1, -3.1, 0.0]), np.array([-3.1, 3.1, 0.1])
    target = ProbeTarget("joint angles", "angles", "rad", circle(true), ("sin", "cos"))
    scores = target_scores(target, np.arange(3), circle(read), np.arange(3))
    wrapped = 2 * np.pi - 6.2
    assert scores["rmse"] == pytest.approx(np.sqrt((2 * wrapped**2 + 0.01) / 3))
    assert scores["components"].keys() == {"sin", "cos"}


def test_distance_is_that_between_points():
    truth = np.array([[0.0, 0.0], [0.1, 0.2]])
    target = ProbeTarget("target", "position", "m", truth, ("x", "y"))
    scores = target_scores(target, np.arange(2), truth + np.array([0.03, 0.04]), np.arange(2))
    assert scores["distance_rms"] == pytest.approx(0.05)
    assert scores["rmse"] == pytest.approx(np.sqrt((0.03**2 + 0.04**2) / 2))
    assert scores["rmse_each"] == pytest.approx([0.03, 0.04])


def test_sectors_are_those_of_the_fingertips_motion(random):
    directions = np.deg2rad([0, 45, 90, 181, -89, 44])
    steps = np.stack([np.cos(directions), np.sin(directions), np.zeros(6)], axis=1) * 0.01
    steps[5] *= 0.1  # 0.05 m/s: it stands still.
    rows = {"fingertip": np.concatenate([np.zeros((1, 3)), np.cumsum(steps, axis=0)]), "stamp_ns": np.arange(7) * 20e6}
    assert motion_sectors(rows, np.arange(1, 7), [0, 1]).tolist() == [0, 1, 2, 4, 6, -1]
    upright = {**rows, "fingertip": rows["fingertip"][:, [0, 2, 1]]}
    assert motion_sectors(upright, np.arange(1, 7), [0, 2]).tolist() == [0, 1, 2, 4, 6, -1]


def test_the_hue_said_of_a_target_is_the_one_seen():
    """The drawn colours are compared with the target's own pixels, but for those that are overexposed."""
    seeds = list(range(5, 11))
    seen = []
    for seed in seeds:
        with SimEnv(SimConfig(seed=seed, image_size=(128, 128), randomize_appearance=True)) as env:
            target = env.reset().target
            pixels_per_m = env.focal_length_px / (0.75 - target[2])
            column, row = 64 + target[:2] * [1, -1] * pixels_per_m
            rows, columns = np.mgrid[:128, :128] + 0.5
            disc = np.hypot(columns - column, rows - row) < 0.045 * pixels_per_m
            colours = env.render()[disc].astype(float)
        red, green, blue = colours[colours.max(axis=1) < 255].T
        seen.append(np.median(np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue)))
    hues = target_hues("reacher-easy", seeds)
    np.testing.assert_allclose(seen, hues, atol=0.01)
    assert np.ptp(hues) > 0.2


def test_hue_classes_part_the_training_rows_equally():
    hues = np.concatenate([np.linspace(0, 1, 30), [9.0, -9.0]])
    classes = hue_classes(hues, np.arange(30))
    assert np.bincount(classes[:30]).tolist() == [10, 10, 10]
    assert classes[30:].tolist() == [2, 0]


# The whole, on a few short episodes.


def collected(folder, config, encoder):
    """Return a dataset of five episodes, simulated in this process."""
    collector = Collector(config, encoder)
    with EpisodeWriter(folder, collector.info({})) as writer:
        for number in range(5):
            writer.add(number, collector.episode(number))
    collector.close()
    return finish_dataset(folder, writer.info)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> str:
    return str(write_bundle(tmp_path_factory.mktemp("encoder") / "tiny", TINY, "").path)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    sim = SimConfig(seed=70, image_size=(32, 32), episode_steps=12)
    what = CollectConfig(sim=sim, behaviour="expert", latents=False, frames=True)
    return collected(tmp_path_factory.mktemp("probe") / "data", what, None)


@pytest.fixture(scope="module")
def encoder_config(bundle):
    return EncoderConfig(bundle, device="cpu", clip_frames=4)


@pytest.fixture(scope="module")
def encoder(encoder_config):
    return load_encoder(encoder_config)


def test_probed_rows_have_clips_of_their_own_episode(dataset):
    rows, episodes = probed_rows(dataset, 8)
    assert (dataset["episode_index"][rows] == episodes).all()
    assert (dataset["frame_index"][rows] >= 7).all()
    assert (np.diff(rows)[np.diff(episodes) == 0] == STRIDE).all()
    with pytest.raises(ProbeError, match="no frame with a full clip of 64"):
        probed_rows(dataset, 64)


def test_a_latent_is_that_of_the_clip_that_ends_with_its_frame(dataset, encoder):
    rows, _ = probed_rows(dataset, encoder.clip_frames)
    latents = encoded_rows(encoder, dataset, rows, "test")
    row = int(rows[3])
    clip = [encoder.preprocess(dataset[IMAGE][i]) for i in range(row - 3, row + 1)]
    np.testing.assert_allclose(latents[3], encoder.encode([clip])[0], atol=0.02)


def test_pixels_are_the_clips_first_and_last_frame(dataset):
    rows, _ = probed_rows(dataset, 8)
    pixels = pixel_rows(dataset, rows, 8)
    images = dataset[IMAGE][np.array([rows[2] - 7, rows[2]])]
    assert pixels.shape[:3] == (len(rows), 2, 3)
    np.testing.assert_allclose(pixels[2].mean(axis=(2, 3)), images.mean(axis=(1, 2)) / 255, atol=0.02)


def test_the_untrained_twin_differs_in_its_weights_alone(encoder, encoder_config):
    twin = untrained_twin(encoder_config)
    assert twin.untrained
    assert twin.fingerprint != encoder.fingerprint
    assert (twin.shape, twin.clip_frames, twin.parameters) == (encoder.shape, encoder.clip_frames, encoder.parameters)


def test_a_run_on_a_dataset_scores_every_target_on_every_source(dataset, bundle, monkeypatch):
    monkeypatch.setattr("vjepa_training.probes.probe_suite.PIXELS", 8)
    config = ProbeConfig(encoder=bundle, device="cpu", data=str(dataset.folder))
    report = run_probes(config)
    result = report.result
    assert result["left_out"].keys() == {"target size", "colour class"}
    names = {"fingertip", "target", "joint angles", "joint velocities", "motion direction"}
    probes = {(score["source"], score["rows"], score["probe"]) for score in result["scores"]}
    assert probes == {
        *(("encoder", rows, "linear") for rows in ("grid", "mean")),
        *(("untrained", rows, "linear") for rows in ("grid", "mean")),
        ("pixels", "two frames", "linear"),
        *((source, "grid", "attentive") for source in ("encoder", "untrained")),
    }
    assert len(result["scores"]) == len(probes) * len(names)
    assert {score["target"] for score in result["scores"]} == report.predictions.keys() == names
    sizes = [result["frames"][part]["episodes"] for part in ("train", "validation", "test")]
    assert sizes == [3, 1, 1]
    again = run_probes(dataclasses.replace(config, attentive=False)).result["scores"]
    np.testing.assert_equal(again, [score for score in result["scores"] if score["probe"] == "linear"])


def test_latents_alone_are_probed_without_baselines(tmp_path, bundle, encoder):
    what = CollectConfig(sim=SimConfig(seed=70, image_size=(32, 32), episode_steps=12), behaviour="expert")
    folder = tmp_path / "latents"
    collected(folder, what, encoder)
    result = run_probes(ProbeConfig(data=str(folder), attentive=False)).result
    assert {score["source"] for score in result["scores"]} == {"encoder"}
    assert result["encoder"] == "tiny"
    assert {"untrained", "pixels"} <= result["left_out"].keys()
    with pytest.raises(ProbeError, match="has no frames for tiny to encode"):
        run_probes(ProbeConfig(encoder=bundle, data=str(folder)))


@pytest.mark.slow
def test_randomised_episodes_bring_size_and_colour(bundle, monkeypatch):
    monkeypatch.setattr("vjepa_training.probes.probe_suite.PIXELS", 8)
    config = ProbeConfig(bundle, "cpu", episodes=6, episode_steps=10, seed=3, randomize=True, attentive=False)
    result = run_probes(dataclasses.replace(config, workers=1)).result
    assert result["left_out"] == {}
    assert {"target size", "colour class"} <= {score["target"] for score in result["scores"]}
    assert (result["data"]["seed"], result["data"]["episodes"]) == (3, 6)


@pytest.mark.slow
def test_simulated_episodes_look_as_told(bundle, encoder):
    seen = []
    nominal = ProbeConfig(bundle, "cpu", episodes=2, episode_steps=3, seed=3, workers=1)
    for config in (nominal, dataclasses.replace(nominal, look="background:hard", render="dm_control")):
        with probe_suite._data(config, encoder, lambda text: None) as dataset:
            seen.append(dataset[IMAGE][:].astype(int))
            data = probe_suite._provenance(config, dataset)
        assert (data["look"], data["render"]) == (config.look, config.render)
    assert np.abs(seen[0] - seen[1]).mean() > 5


def test_neither_encoder_nor_latents_is_refused(dataset):
    with pytest.raises(ProbeError, match="neither an encoder nor a dataset"):
        run_probes(ProbeConfig())
    with pytest.raises(ProbeError, match="frames and no latents; name the encoder"):
        run_probes(ProbeConfig(data=str(dataset.folder)))


def test_what_is_known_in_too_few_rows_is_left_out(dataset):
    rows, _ = probed_rows(dataset, 8)
    parts = np.array_split(np.arange(len(rows)), 3)
    assert "fingertip" in [target.name for target in probe_targets(dataset, rows, parts, None)[0]]
    parts[1] = parts[1][:0]
    targets, left_out = probe_targets(dataset, rows, parts, None)
    assert targets == []
    assert left_out["fingertip"] == "it is not known in any row to choose with"
