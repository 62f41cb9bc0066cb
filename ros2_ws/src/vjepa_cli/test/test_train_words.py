"""What a training shows while it runs: where it goes on, and how each round of epochs ended."""

import pytest

from vjepa_cli.cli import main
from vjepa_cli.commands.train import _Rounds, _show
from vjepa_training.progress import Progress


def test_each_round_of_epochs_has_a_line_when_it_has_ended(capsys):
    with _Rounds(epochs=5, patience=2) as rounds:
        for validation in (0.5, 0.4, 0.6, 0.7):
            rounds.on_epoch({"round": 0, "epoch": 0, "train": 0.3, "validation": validation})
        rounds.on_round(1, [10.0, 20.0])
        for validation in (0.5, 0.4, 0.3, 0.2, 0.1):
            rounds.on_epoch({"round": 1, "epoch": 0, "train": 0.3, "validation": validation})
    assert capsys.readouterr().out.splitlines() == [
        "round 0: stopped at epoch 4 of 5: no better for 2; validation 0.4000",
        "round 1: 2 episodes rolled out, mean return 15.0",
        "round 1: all 5 epochs; validation 0.1000",
    ]


def test_a_training_that_goes_on_tells_from_where(capsys):
    with Progress("training", "steps") as bar:
        _show(bar, 400, 1000, {}, 4)
        _show(bar, 450, 1000, {"loss": 0.5}, 4)
        _show(bar, 500, 1000, {"validation_loss": 0.25}, 4)
    assert capsys.readouterr().out.splitlines() == [
        "continuing from step 400 of 1000",
        "step 500 of 1000: validation_loss 0.25",
    ]


def test_a_cloning_that_goes_on_tells_from_which_round_and_step(capsys):
    with _Rounds(epochs=5, patience=2, last_round=2) as rounds:
        rounds.on_resume(1, "rollouts")
        rounds.on_resume(2, "policy")
        rounds.on_resume(2, "")
    assert capsys.readouterr().out.splitlines() == [
        "continuing from round 1 of 2: rolling out",
        "continuing from round 2 of 2: training",
        "all rounds are trained already; nothing is trained again",
    ]


@pytest.mark.parametrize("words", [["bc"], ["dreamer", "--dynamics", "d"]])
def test_a_training_that_processes_cannot_share_is_refused_under_torchrun(monkeypatch, capsys, words):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit) as ended:
        main(["train", *words, "--data", "data", "--out", "out"])
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("vjepa: torchrun started several processes, which only train encoder and")
