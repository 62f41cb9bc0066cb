"""`vjepa dataset build` as it is typed: a build that is refused leaves nothing."""

import pytest

from tests.foreign_bags import arm, frames, in_order, write_mcap
from vjepa_cli.cli import main

BUILD = ("dataset", "build", "--no-latents", "--effort-limit", "1.0")


@pytest.mark.parametrize(
    ("entries", "more", "message"),
    [
        (frames() + arm()[:150], ("--strict",), "and --strict allows none"),
        (frames() + arm(behind_ms=5000), (), "none of its 90 frames has a joint state"),
    ],
)
def test_a_refused_build_leaves_no_folder(tmp_path, capsys, entries, more, message):
    bag = write_mcap(tmp_path / "bag.mcap", in_order(entries))
    with pytest.raises(SystemExit) as ended:
        main([*BUILD, str(bag), "--out", str(tmp_path / "ds"), *more])
    assert ended.value.code == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "ds").exists()


def test_strict_takes_a_bag_of_a_real_arm_without_commands(tmp_path):
    bag = write_mcap(tmp_path / "bag.mcap", in_order(frames() + arm()))
    with pytest.raises(SystemExit) as ended:
        main([*BUILD, str(bag), "--out", str(tmp_path / "ds"), "--strict"])
    assert ended.value.code == 0


def test_a_bag_that_is_named_twice_is_refused(tmp_path, capsys):
    bag = write_mcap(tmp_path / "bag.mcap", in_order(frames() + arm()))
    with pytest.raises(SystemExit) as ended:
        main([*BUILD, str(bag), str(tmp_path / "." / "bag.mcap"), "--out", str(tmp_path / "ds")])
    assert ended.value.code == 1
    assert "is named twice; name each bag once" in capsys.readouterr().err
