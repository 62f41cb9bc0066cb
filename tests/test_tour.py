"""`vjepa tour` as a newcomer runs it."""

import re

import cv2
import pytest


@pytest.mark.slow  # The README's commands have it too.
@pytest.mark.timeout(180)
def test_the_tour_drives_swaps_records_and_draws(tmp_path, commands):
    commands.finish(commands.start("tour", "--out", "seen"))
    returns = {name: float(value) for name, value in re.findall(r"  (\w+): a return of (\d+) of 200", commands.said)}
    assert list(returns) == ["random", "bc", "cem"]
    assert max(returns["bc"], returns["cem"]) > returns["random"]
    counts = {name: int(count) for count, name in re.findall(r"(\d+) messages of /(\S+)", commands.said)}
    assert min(counts["camera/image_raw"], counts["joint_command"]) > 3 * 150
    assert counts["vjepa_planner/active_planner"] >= 3
    (bag,) = (tmp_path / "seen").glob("*/metadata.yaml")
    assert str(bag.parent.relative_to(tmp_path)) in commands.said
    assert cv2.imread(str(tmp_path / "seen/tour.png")).std() > 10
