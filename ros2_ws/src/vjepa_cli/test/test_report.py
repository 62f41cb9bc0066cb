"""The page of all results says what the JSON files say, and where there is none that nothing was measured."""

import json
import re

import pytest

from sim_bridge.score import Episode
from vjepa_cli.cli import main
from vjepa_cli.experiments.experiments import RESULT, read_experiments
from vjepa_training.evaluation.score import PROTOCOLS, summarise

EXPERIMENTS = read_experiments()


def evaluation(protocol: str, goal: str = "", through: str = "process", returns=(100.0, 180.0)) -> dict:
    ways = [4.0, 1.0, 3.0] if goal else []
    episodes = [Episode(value, 200, value < 150, True, True, list(ways)) for value in returns]
    return {
        "planner": "p",
        "encoder": "a-small-one",
        "encoder_fingerprint": "0123456789abcdef",
        "encoder_untrained": False,
        "through": through,
        "lockstep": False,
        "seed": 70,
        "command": "vjepa eval --of a-test",
        **summarise(episodes, PROTOCOLS[protocol]),
    }


def by_look(**returns: tuple[float, ...]) -> dict:
    """An evaluation by look."""
    looks = {look: {**evaluation("short", returns=values), "task": "t"} for look, values in returns.items()}
    return {"looks": looks, "command": "vjepa eval --of a-test"}


def imagining(content: dict) -> dict:
    """An evaluation of a planner that imagined, too near by 3 cm from 4 steps ahead on."""
    figures = {"imagined": 0.1, "happened": 0.13, "rmse": 0.03, "median_rmse": 0.02}
    figures |= {"no_change_rmse": 0.05, "no_change_median_rmse": 0.04, "count": 1180}
    example = {"steps": 4, "every": 8, "happened": [0.3, 0.2, 0.1], "imagined": [[0.3, 0.17], [0.1, 0.07]]}
    examples = [{"which": which, "episode": i, **example} for i, which in enumerate(("middle", "greatest"))]
    return {**content, "imagined": {"ahead": [{"steps": steps, **figures} for steps in (0, 4)], "examples": examples}}


def ahead(steps: int, error: float) -> dict:
    return {"steps": steps, "state": error, "no_change_state": 0.5, "metres": error / 10, "no_change_metres": 0.05}


TRAININGS = {
    "dynamics": {
        "command": "vjepa train dynamics --of a-test",
        "parameters": 1579520,
        "transitions": 89555,
        "validation": 0.01234,
        "open_loop": [ahead(1, 0.125), ahead(10, 0.25), ahead(20, 0.375)],
    },
    "reward": {
        "command": "vjepa train reward --of a-test",
        "rewarded": 0.276,
        "figures": {"reward_mse": 0.0153, "reward_variance": 0.21, "loss": 0.0153},
    },
    "sac": {"command": "vjepa train sac --of a-test"},
}
ROUNDS = {
    "command": "vjepa improve --of a-test",
    "settings": {"eval_episodes": 20, "protocol": "short"},
    "rounds": [
        {
            "round": number,
            "accepted": accepted,
            "incumbent_mean_return": 150.0,
            "incumbent_interval_95": [140.0, 160.0],
            "candidate_mean_return": 150.0 + difference,
            "candidate_interval_95": [130.0, 170.0],
            "difference": difference,
            "difference_interval_95": [difference - 2.5, difference + 2.5],
            "data": {"rows": 40000 * number},
        }
        for number, accepted, difference in ((1, True, 12.25), (2, False, -3.0))
    ],
}


def content_of(stage) -> dict:
    if "looks" in stage.config:
        return by_look(nominal=(180.0, 190.0), colour=(100.0, 150.0))
    if stage.kind == "eval":
        content = evaluation(stage.config["protocol"], stage.config.get("goal", ""))
        return imagining(content) if any(name.endswith(".imagine") for name in stage.params) else content
    return ROUNDS if stage.kind == "improve" else TRAININGS[stage.kind.removeprefix("train ")]


@pytest.fixture
def report(tmp_path, capsys):
    """Return a function that writes results by file name, reports them and returns the page and what was said."""

    def run(results: dict[str, dict]) -> tuple[str, str]:
        folder = tmp_path / "results"
        folder.mkdir(exist_ok=True)
        for name, content in results.items():
            (folder / name).write_text(json.dumps(content))
        page = tmp_path / "docs" / "results.md"
        with pytest.raises(SystemExit) as ended:
            main(["report", "--results", str(folder), "--out", str(page)])
        said = capsys.readouterr()
        assert ended.value.code == 0, said.err
        return page.read_text(), said.out

    return run


def line_of(page: str, *words: str) -> str:
    (line,) = [line for line in page.splitlines() if line.startswith("|") and all(word in line for word in words)]
    return line


def test_without_results_every_experiment_is_there_and_none_is_measured(report, tmp_path):
    page, said = report({})
    assert f"0 results of {len(EXPERIMENTS)} experiments" in said
    for experiment in EXPERIMENTS.values():
        assert f"| `{experiment.name}` | {experiment.what} |" in page
        assert experiment.earlier in page
    stages = [stage for experiment in EXPERIMENTS.values() for stage in experiment.stages]
    shown = sum(len(stage.results) for stage in stages if stage.kind != "train sac")  # Its curve is in no table.
    assert page.count("not measured") + page.count("Not measured") == shown
    assert [path.name for path in (tmp_path / "docs").iterdir()] == ["results.md"], "no picture of nothing"


def test_an_evaluation_is_told_with_its_interval_seeds_and_command(report):
    page, _ = report({"expert-short.json": evaluation("short")})
    line = line_of(page, "`expert`", "| short |")
    how = "lockstep, without ROS | plain | a-small-one 012345"
    assert f"| 140.0 (100.0 to 180.0) |  | 50 % |  | 2 | 1 | 70 to 71 | {how} |" in line
    assert "[expert-short.json](../results/expert-short.json)" in line
    assert "not measured" in line_of(page, "`expert`", "| full |")
    assert "](../results/expert-short.json): `vjepa eval --of a-test`" in page


def test_how_calm_the_hands_were_is_told_where_it_was_measured(report):
    calm = {"action_change_at_rest": 0.0123}
    page, _ = report(
        {
            "expert-short.json": {**evaluation("short"), **calm},
            "bc-full.json": {**evaluation("full"), "action_change_at_rest": None},
            "reacher-hard-bc-full.json": {**evaluation("full"), "task": "reacher-hard", **calm},
        }
    )
    assert "| 50 % | 0.012 | 2 |" in line_of(page, "`expert`", "expert-short.json")
    assert "| 100 % |  | 2 |" in line_of(page, "[bc-full.json]")
    assert "| 100 % | 0.012 | 2 |" in line_of(page, "reacher-hard-bc-full.json")


def test_the_same_measured_otherwise_stands_behind_it(report):
    results = {"expert-short.json": evaluation("short"), "expert-short-ros.json": evaluation("short", through="ros")}
    page, said = report({**results, "expert-p-short-ros.json": evaluation("short", through="ros"), "mine.json": {}})
    assert "real time, ROS graph" in line_of(page, "`expert`", "expert-short-ros.json")
    assert "expert-p-short-ros" not in page, "nobody's: what it is another measurement of is not there"
    assert said.split()[1] == "2"


def test_a_planner_is_compared_with_the_cloned_policy_on_the_same_episodes(report):
    page, _ = report(
        {
            "bc-full.json": evaluation("full", returns=(900.0, 950.0)),
            "cem-full.json": evaluation("full", returns=(910.0, 970.0)),
            "shooting-full.json": {**evaluation("full", returns=(910.0, 970.0)), "seed": 71},
        }
    )
    assert "| +15.0 (+10.0 to +20.0) |" in line_of(page, "`cem`", "cem-full.json")
    assert "+15.0" not in line_of(page, "`shooting`", "shooting-full.json")


@pytest.mark.parametrize("other", [{"render": "dm_control"}, {"encoder_fingerprint": "ffffff00"}])
def test_a_planner_is_not_compared_with_a_policy_on_other_pictures_or_latents(report, other):
    cem = {**evaluation("full", returns=(910.0, 970.0)), **other}
    page, _ = report({"bc-full.json": evaluation("full", returns=(900.0, 950.0)), "cem-full.json": cem})
    line = line_of(page, "`cem`", "cem-full.json")
    assert "| 940.0 (910.0 to 970.0) |  | 100 % |" in line
    assert ("| dm_control | a-small-one 012345 |" if "render" in other else "| plain | a-small-one ffffff |") in line


def test_evaluations_of_other_tasks_stand_by_themselves_and_are_not_compared(report):
    results = {
        "bc-full.json": evaluation("full"),
        "reacher-hard-bc-full.json": {**evaluation("full"), "task": "reacher-hard", "policy": "mine"},
        "finger-spin-sac-full.json": {
            **evaluation("full"),
            **{"task": "finger-spin", "success_rate": None, "started_in_target": [None, None]},
        },
    }
    page, _ = report(results)
    own, others = (page.partition(f"## {name}\n")[2].partition("\n## ")[0] for name in ("Returns", "Other tasks"))
    assert not any(name in own for name in ("reacher-hard", "finger-spin", "point_mass"))
    line = line_of(others, "reacher-hard-bc-full.json")
    assert "| `reacher-hard` | reacher-hard | `p` with `mine` | full | 140.0 (100.0 to 180.0) | 100 % |" in line
    assert "|  | 2 | 70 to 71 |" in line
    assert "| not defined |" in line_of(others, "finger-spin-sac-full.json")
    assert "not measured" in line_of(others, "`point_mass-easy`")


def test_a_search_for_a_goal_is_told_with_its_distances(report):
    meaning = {"target_distance": {"start": [0.2, 0.1], "end": [0.05, 0.15]}, "goal_correlation": 0.123}
    others, same = evaluation("baseline", "other"), {**evaluation("baseline", "same"), **meaning}
    page, _ = report({"baseline-cem-other.json": others, "baseline-cem-same.json": same})
    assert "| 25.0 % | 4, 1, 3 |  |  | 140.0 (100.0 to 180.0) | 100 % | 2 |" in line_of(
        page, "`baseline-cem`", "| other |"
    )
    assert "| 4, 1, 3 | 0.150, 0.100 | 0.12 | 140.0 (" in line_of(page, "`baseline-cem`", "| same |")


def test_looks_are_a_table_by_planner_with_the_size_below_it(report):
    bc = by_look(nominal=(180.0, 190.0), plain=(190.0, 190.0), colour=(100.0, 150.0))
    page, _ = report({"looks-bc-short.json": bc, "looks-cem-short.json": by_look(nominal=(170.0, 180.0))})
    section = page.partition("## Looks\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    assert rows[0] == "| look | `looks` | `looks-cem` |"
    assert rows[2:] == [
        "| nominal | 185.0 (180.0 to 190.0) | 175.0 (170.0 to 180.0) |",
        "| plain | 190.0 (190.0 to 190.0) [+5.0 (+0.0 to +10.0)] |  |",
        "| colour | 125.0 (100.0 to 150.0) [-60.0 (-80.0 to -40.0)] |  |",
    ]
    assert "- `looks`: planner `p`, task t, 2 episodes of 200 steps each, seeds 70 to 71, lockstep, without" in section
    assert "- `looks-dreamer`: not measured" in section
    assert "looks-bc-short.json" not in page.partition("## Returns\n")[2].partition("\n## ")[0]


def test_why_an_experiment_came_out_so_stands_there_once_it_is_measured(report):
    said = "- `baseline-cem`: "
    assert said not in report({})[0]
    assert said in report({"baseline-cem-same.json": evaluation("baseline", "same")})[0]


def test_what_was_imagined_is_told_beside_what_happened(report):
    page, _ = report({"cem-imagined.json": imagining(evaluation("short")), "cem-full.json": evaluation("full")})
    section = page.partition("## What a search imagined")[2].partition("\n## ")[0]
    assert "| 4 | 0.1000 | 0.1300 | 0.0300 (0.0500) | 0.0200 (0.0400) | 1,180 |" in line_of(section, "| 4 |")
    assert "`cem`" not in section, "of a planner that imagined nothing there is nothing to tell"


def test_trainings_are_told_with_their_errors(report):
    page, _ = report({"dynamics-mlp.json": TRAININGS["dynamics"], "baseline-reward.json": TRAININGS["reward"]})
    assert (
        "| 1,579,520 | 89,555 | 0.01234 | 1: 0.125 (0.5); 20: 0.375 (0.5) | 1: 0.0125 (0.05); 20: 0.0375 (0.05) |"
        in line_of(page, "`dynamics-mlp`", "../results")
    )
    assert "| 0.0153 | 0.21 | 27.6 % |  |" in line_of(page, "`baseline-reward`", "../results")


def test_rounds_are_told_with_what_was_kept(report):
    page, _ = report({"cem-rounds.json": ROUNDS})
    first, second = (line_of(page, "`cem-rounds`", f"| {number} | {number * 40},000 |") for number in (1, 2))
    assert "| 150.0 (140.0 to 160.0) | 162.2 (130.0 to 170.0) | +12.2 (+9.8 to +14.8) | the new one | 20 |" in first
    assert "| -3.0 (-5.5 to -0.5) | the old one |" in second


def test_with_all_results_nothing_is_left_to_measure_and_all_is_drawn(report, tmp_path):
    results = {
        path.removeprefix(RESULT): content_of(stage)
        for experiment in EXPERIMENTS.values()
        for stage in experiment.stages
        for path in stage.results
        if stage.kind != "probe"
    }
    page, _ = report(results)
    assert page.count("not measured") == 0
    for picture in ("results-returns.png", "results-imagined.png", "results-open-loop.png"):
        assert f"]({picture})" in page
        assert 1_000 < (tmp_path / "docs" / picture).stat().st_size < 200_000
    for name in results:
        assert re.search(rf"^- \[{re.escape(name)}\]", page, re.MULTILINE), name


def test_a_file_that_is_not_json_is_refused_by_name(tmp_path, capsys):
    (tmp_path / "expert-full.json").write_text("{")
    with pytest.raises(SystemExit) as ended:
        main(["report", "--results", str(tmp_path), "--out", str(tmp_path / "page.md")])
    assert ended.value.code == 1
    assert "expert-full.json is not readable JSON" in capsys.readouterr().err
