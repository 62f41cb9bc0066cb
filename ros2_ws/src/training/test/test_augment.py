"""Changes of clips in training: each does something, to all frames alike, and what moves still moves."""

import numpy as np
import pytest

from vjepa_training.trainers.augment import CHANGES, UNCHANGED, add_noise, augmented


@pytest.fixture
def clips() -> np.ndarray:
    """Return clips of a bright square on a smooth ground, which moves down by two pixels a frame in every other one."""
    rows, columns = np.mgrid[:64, :64]
    ground = np.stack((rows * 2, columns * 2, rows + columns), -1).astype(np.uint8)
    out = np.broadcast_to(ground, (32, 8, 64, 64, 3)).copy()
    for number, clip in enumerate(out):
        for at, frame in enumerate(clip):
            top = 20 + 2 * at * (number % 2)
            frame[top : top + 12, 26:38] = (250, 240, 200)
    return out


@pytest.mark.parametrize("change", [change for change, _ in CHANGES], ids=lambda change: change.__name__)
def test_a_change_is_of_the_whole_clip_and_drawn_anew(change, clips):
    still = clips[0]
    one, other = (change(still, clips[1, -1], np.random.default_rng(seed)) for seed in (0, 1))
    assert one.shape == still.shape
    assert one.dtype == np.uint8
    assert not np.array_equal(one, still)
    assert not np.array_equal(one, other)
    if change is not add_noise:
        assert all(np.array_equal(frame, one[0]) for frame in one), "what stood still stands still"
    np.testing.assert_array_equal(change(still, clips[1, -1], np.random.default_rng(0)), one)


def test_a_step_has_its_changes_whoever_draws_them(clips):
    before = clips.copy()
    one = augmented(clips, (3, 7))
    np.testing.assert_array_equal(clips, before)
    np.testing.assert_array_equal(one, augmented(clips, (3, 7)))
    assert not np.array_equal(one, augmented(clips, (3, 8)))
    unchanged = [
        np.array_equal(a, b) for seed in range(20) for a, b in zip(augmented(clips, (0, seed)), clips, strict=True)
    ]
    assert UNCHANGED / 2 < np.mean(unchanged) < 1.5 * UNCHANGED
