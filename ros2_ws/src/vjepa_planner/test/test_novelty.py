"""How far a latent is from those of a training: what the distance means, its file, and that a plan carries it."""

import numpy as np
import pytest

from vjepa_interfaces.bundle import BundleError, write_bundle
from vjepa_planner.contract import Observation, Plan, Planner, PlannerContext
from vjepa_planner.models.novelty import NOVELTY_FILE, Novelty, copy_novelty, load_novelty, save_novelty

ROWS, DIMENSION = (0, 2), 3


def known(limit: float = 2.0) -> Novelty:
    """Latents that vary by 2 along their first value, by 0.5 along their second, and by 0.1 along the other four."""
    directions = np.eye(6, dtype=np.float32)[:2]
    variances = np.float32([4.0, 0.25])
    return Novelty(ROWS, np.full((2, DIMENSION), 5.0, np.float32), directions, variances, rest=0.01, limit=limit)


def latent(*away: float) -> np.ndarray:
    """A latent of three rows so far away from the mean in the values of the two rows that are looked at."""
    values = np.full((3, DIMENSION), 5.0, np.float32)
    values[list(ROWS)] += np.float32(away).reshape(2, DIMENSION)
    values[1] = 1e6
    return values


@pytest.mark.parametrize(
    ("away", "deviations"),
    [
        ((0, 0, 0, 0, 0, 0), 0.0),
        ((2, 0, 0, 0, 0, 0), 1.0),
        ((0, -0.5, 0, 0, 0, 0), 1.0),
        ((0, 0, 0, 0, 0, 0.1), 1.0),
        ((6, 2, 0, 0, 0, 0), 5.0),
    ],
)
def test_the_distance_counts_deviations_in_every_direction_in_units_of_the_limit(away, deviations):
    assert known(limit=2.0).of(latent(*away)) == pytest.approx(deviations / 2.0, abs=1e-5)


def test_many_latents_at_once_have_the_distances_of_each():
    latents = np.random.default_rng(0).normal(5.0, 1.0, (4, 7, 3, DIMENSION)).astype(np.float32)
    together = known().of(latents)
    assert together.shape == (4, 7)
    assert together[3, 6] == pytest.approx(known().of(latents[3, 6]))


def test_a_bundle_keeps_it_and_hands_it_on(tmp_path):
    bundle = write_bundle(tmp_path / "one", {"kind": "policy"}, "card")
    assert load_novelty(bundle, ROWS, DIMENSION) is None
    save_novelty(bundle.path, known(), "train bc")
    copy_novelty(bundle, write_bundle(tmp_path / "two", {"kind": "actor"}, "card").path)
    for name in ("one", "two"):
        found = load_novelty(write_bundle(tmp_path / name, {"kind": "policy"}, "card"), ROWS, DIMENSION)
        assert found is not None
        assert found.of(latent(1, 2, 3, 4, 5, 6)) == known().of(latent(1, 2, 3, 4, 5, 6))


def test_a_copy_of_nothing_leaves_nothing_of_what_was_known_before(tmp_path):
    bundle = write_bundle(tmp_path / "one", {"kind": "dynamics"}, "card")
    actor = write_bundle(tmp_path / "two", {"kind": "actor"}, "card")
    save_novelty(actor.path, known(), "train dreamer")
    copy_novelty(bundle, actor.path)
    assert load_novelty(actor, ROWS, DIMENSION) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.write_bytes(b"no safetensors"), "is not readable: .*; remove it, or get the whole bundle"),
        (
            lambda file: save_novelty(file.parent, Novelty(**(vars(known()) | {"rest": 0.0})), ""),
            "variances .* not above 0",
        ),
        (lambda file: save_novelty(file.parent, Novelty(**(vars(known()) | {"mean": np.ones((3, 3))})), ""), "shapes"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, change, message):
    bundle = write_bundle(tmp_path, {"kind": "policy"}, "card")
    change(tmp_path / NOVELTY_FILE)
    with pytest.raises(BundleError, match=f"{NOVELTY_FILE} .*{message}"):
        load_novelty(bundle, ROWS, DIMENSION)


class Still(Planner):
    """Stays where it is."""

    def _act(self, observation, deadline_s):
        return Plan(np.zeros(2))


def test_a_plan_carries_how_novel_its_latent_is_where_the_planner_knows():
    planner = Still(None, PlannerContext(2, 0.02))
    planner.reset(0)
    observation = Observation(0, latent(6, 2, 0, 0, 0, 0))
    assert planner.plan(observation).novelty is None
    planner.novelty = known(limit=2.0)
    assert planner.plan(observation).novelty == pytest.approx(2.5)
