"""The picture of the looks shows the frames that the simulation gives."""

import numpy as np
import pytest

from vjepa_cli.views.look_pictures import draw_looks, look_frame
from vjepa_interfaces.errors import VjepaError
from vjepa_training.evaluation.appearance import Appearance


@pytest.mark.slow
def test_rows_are_looks_and_columns_levels_of_each_task():
    picture = draw_looks(["reacher-easy", "point_mass-easy"], 24, 3, "plain", "", looks=("occlusion",))
    assert picture.shape[1] == 96 + 6 * 24
    sim = {"image_size": (24, 24), "seed": 3}
    expected = [
        look_frame(Appearance.of(f"occlusion:{level}", "plain"), task=task, **sim)
        for task in ("reacher-easy", "point_mass-easy")
        for level in ("easy", "medium", "hard")
    ]
    found = [picture[:, 96 + i * 24 : 96 + (i + 1) * 24] for i in range(6)]
    for column, frame in zip(found, expected, strict=True):
        tops = range(column.shape[0] - 24 + 1)
        assert any(np.array_equal(column[top : top + 24], frame) for top in tops)


def test_a_folder_without_backgrounds_is_refused(tmp_path):
    with pytest.raises(VjepaError, match="has no backgrounds"):
        draw_looks(["reacher-easy"], 16, 0, None, str(tmp_path), looks=())
