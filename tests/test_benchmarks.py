"""The benchmarks' arithmetic, their document, and one small run of all of them."""

import contextlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent

LOOP = {
    "steps": 200.0,
    "stale_steps": 4.0,
    "command_age_p50_periods": 0.0,
    "command_age_p99_periods": 1.0,
    "latency_p50_ms": 12.0,
    "latency_p99_ms": 15.0,
    "response_p50_ms": 9.0,
    "response_p99_ms": 11.0,
    "encode_p50_ms": 5.0,
    "encode_p99_ms": 6.0,
    "plan_p50_ms": 1.0,
    "achieved_rate_hz": 50.0,
}
PING = {"p50_ms": 1.0, "p99_ms": 2.0, "count": 100, "unanswered": 0}


@pytest.fixture(autouse=True)
def _benchmarks_importable(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def test_a_figure_meets_its_aim_from_the_right_side_and_never_where_it_was_not_measured():
    from benchmarks.figures import Figure

    assert Figure("rate", 975.0, "", "", 975.0, at_least=True).met
    assert not Figure("rate", 974.9, "", "", 975.0, at_least=True).met
    assert Figure("share", 0.01, "%", "", 0.01).met
    assert not Figure("share", 0.0101, "%", "", 0.01).met
    assert not Figure("share", math.nan, "%", "", 0.01).met
    assert not Figure("rate", math.nan, "", "", 975.0, at_least=True).met


@pytest.mark.parametrize(
    ("successes", "count", "expected"),
    [(20, 20, (0.8389, 1.0)), (0, 10, (0.0, 0.2775)), (5, 10, (0.2366, 0.7634))],
)
def test_wilson_intervals_are_those_of_the_tables(successes, count, expected):
    from vjepa_training.evaluation.score import wilson_interval

    assert wilson_interval(successes, count) == pytest.approx(expected, abs=1e-4)


def test_transport_is_what_encoder_and_planner_leave_over_the_mean_of_the_pings_around_it():
    from benchmarks.transport import figures, ratios, transport_ms

    assert transport_ms(LOOP) == pytest.approx(3.0)
    pings = [{"p50_ms": value} for value in (1.0, 3.0, 5.0)]
    loops = [LOOP, {**LOOP, "response_p50_ms": 14.0}]
    assert ratios(pings, loops) == pytest.approx([3.0 / 2.0, 8.0 / 4.0])
    (figure,) = figures(pings, loops)
    assert figure.value == pytest.approx(1.75)
    assert figure.interval_95 == pytest.approx((1.5, 2.0))


def test_every_run_of_the_stack_needs_a_ping_on_either_side():
    from benchmarks.transport import ratios

    with pytest.raises(ValueError, match="shorter"):
        ratios([PING, PING], [LOOP, LOOP])


def test_real_time_pools_stale_steps_and_takes_the_worst_age():
    from benchmarks.real_time import figures

    slow = {**LOOP, "steps": 600.0, "stale_steps": 0.0, "command_age_p99_periods": 3.0, "latency_p50_ms": 16.0}
    stale, age, beyond_encoder = figures([LOOP, slow])
    assert stale.value == pytest.approx(4 / 800)
    assert stale.interval_95 == pytest.approx((0.0, 0.02))
    assert (age.value, age.met) == (3.0, False)
    assert beyond_encoder.value == pytest.approx((7.0 + 11.0) / 2)


def test_the_experts_figures_are_those_of_its_evaluation():
    from benchmarks.expert import figures

    result = {"episodes": 4, "episode_steps": 1000, "mean_return": 980.0, "interval_95": [970.0, 990.0]}
    mean_return, at_end = figures({**result, "in_target_at_end": [True, True, True, False]})
    assert (mean_return.value, mean_return.interval_95, mean_return.met) == (980.0, (970.0, 990.0), True)
    assert (at_end.value, at_end.met) == (0.75, False)


def test_calm_hands_are_measured_over_the_episodes_that_had_a_rest():
    from benchmarks.calm import drive, figures

    run = {"task": "reacher-easy", "late_steps": 1, "returns": [180.0, 170.0], "action_change_at_rest": [0.1, None]}
    change, mean_return = figures([run], steps=200)
    assert (change.value, change.met) == (0.1, False)
    assert (mean_return.value, mean_return.aim, mean_return.met) == (175.0, 175.0, True)
    driven = drive("reacher-easy", 1, [0, 1], 60)
    assert len(driven["returns"]) == 2
    assert max(driven["action_change_at_rest"]) < 0.1


def test_memory_is_what_a_process_keeps_for_itself_and_a_failure_is_told(tmp_path):
    from benchmarks.memory import figures, peak_private_gib
    from vjepa_interfaces.errors import VjepaError

    keep = "import time; kept = bytearray(200 << 20); kept[::4096] = bytes([1]) * len(kept[::4096]); time.sleep(1)"
    assert 0.19 < peak_private_gib([sys.executable, "-c", keep], tmp_path / "said") < 0.3
    with pytest.raises(VjepaError, match="ended with 3: out of cheese"):
        peak_private_gib([sys.executable, "-c", "import sys; print('out of cheese'); sys.exit(3)"], tmp_path / "said")
    runs = [{"transitions": count, "peak_gib": peak} for count, peak in ((100, 0.5), (1000, 0.9))]
    assert [(figure.value, figure.met) for figure in figures(runs)] == [(0.9, True), (1.8, False)]


def test_a_soak_tells_of_the_process_that_grew_most_once_all_had_settled():
    from benchmarks.soak import figures, summary

    def samples(first_mib: float, last_mib: float, files: float):
        """Sixty samples: much growth in the first fifth, then a straight line."""
        settled = np.linspace(first_mib, last_mib, 48)
        return [
            {"minutes": i / 2, "memory_mib": 5.0 * i if i < 12 else settled[i - 12], "files": files, "threads": 3}
            for i in range(60)
        ]

    leaking = [*samples(100.0, 104.7, 20)[:-1], {"minutes": 29.5, "memory_mib": 104.7, "files": 23, "threads": 3}]
    processes = [summary("planner", leaking), summary("sim", samples(80.0, 80.0, 9))]
    assert processes[0]["growth_mib"] == pytest.approx(4.7, rel=1e-3)
    assert processes[1]["growth_mib"] == pytest.approx(0.0, abs=1e-9)
    growth, files, threads, unheard = figures(processes, {"steps": 90000, "timeout_steps": 2}, 30.0)
    assert (growth.value, growth.met) == (pytest.approx(4.7, rel=1e-3), False)
    assert (files.value, files.met) == (3, False)
    assert (threads.value, threads.met) == (0, True)
    assert (unheard.value, unheard.met) == (2, False)


def test_the_page_of_reliability_has_the_figures_of_the_committed_soak_and_guard():
    from benchmarks.figures import read_records
    from benchmarks.report import with_figures

    page, records = (ROOT / "docs" / "reliability.md").read_text(), read_records(ROOT / "results")
    assert with_figures(page, records) == page, "run: ./vjepa --exec python -m benchmarks.report"
    assert page.count("Not measured yet.") == 2 - len({"soak", "guard"} & records.keys())


def test_a_guard_is_told_by_fault_with_its_longest_time():
    from benchmarks.guard import FAULTS, figures

    times = {fault.what: [0.5 * fault.within_s, 0.1 * fault.within_s] for fault in FAULTS}
    told = figures(times)
    assert [figure.value for figure in told] == [pytest.approx(500 * fault.within_s) for fault in FAULTS]
    assert all(figure.met for figure in told)
    assert not figures({**times, FAULTS[0].what: [2 * FAULTS[0].within_s]})[0].met


def test_recovery_is_told_by_node():
    from benchmarks.recovery import figures

    planner, simulation = figures({"vjepa_planner": [3.0, 4.0], "sim_bridge": [5.0, 6.0]})
    assert (planner.what, planner.value, planner.met) == ("torque again after a SIGKILL of `vjepa_planner`", 3.5, True)
    assert (simulation.value, simulation.met, simulation.interval_95) == (5.5, False, (5.0, 6.0))


def test_an_exponent_is_that_of_the_growth_and_is_held_to_the_expected_one_within_a_tolerance():
    from benchmarks.sweeps import FLAT, LINEAR, Sweep, exponent

    assert exponent([1, 10, 100], [3.0, 300.0, 30000.0]) == pytest.approx(2.0)
    linear = Sweep("x", "p", "n", "s", LINEAR, {2.0: [4.0, 4.0], 8.0: [16.0, 32.0]})
    value, interval = linear.exponent()
    assert (value, interval) == (pytest.approx(1.25), pytest.approx((1.0, 1.5)))
    assert (linear.figure().aim, linear.figure().met) == (1.1, False)
    flat = Sweep("x", "p", "n", "MiB", FLAT, {1.0: [100.0], 16.0: [110.0]})
    assert (flat.figure().met, flat.figure().interval_95) == (True, None)
    rate = Sweep("x", "p", "n", "1/s", LINEAR, {1.0: [1.0], 2.0: [1.7]}, gain=True)
    assert (rate.figure().aim, rate.figure().at_least, rate.figure().met) == (0.9, True, False)


def test_memory_of_tensors_is_that_of_the_peak():
    import torch

    from benchmarks.sweeps import peak_tensors_mib

    assert 8.0 <= peak_tensors_mib(lambda: torch.zeros(2**20) + torch.zeros(2**20)) <= 13.0


def test_collection_and_evaluation_are_timed_beyond_their_start_for_each_number_of_workers(monkeypatch, tmp_path):
    from benchmarks import scale_data

    def on_two_cores(episodes, workers, seed):
        if workers == "two nodes":
            return 9.0 + episodes / 1.8, 0.0
        return 5.0 + episodes / min(workers, 2), 100.0 * workers

    monkeypatch.setattr(scale_data, "FOLDER", tmp_path)
    monkeypatch.setattr(scale_data, "ray_nodes", lambda count: contextlib.nullcontext("two nodes"))
    for name in ("collected", "evaluated"):
        monkeypatch.setattr(scale_data, name, on_two_cores)
    content = scale_data.measure(2, 3, 0, lambda _: None)
    values = [figure["value"] for figure in content["figures"]]
    assert values == pytest.approx([1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.9, 0.9], abs=1e-9)
    times, _, of_collect, _, of_eval, _ = content["sweeps"]
    assert [(point["x"], point["values"]) for point in times["points"]] == [(x, [x, x]) for x in (3.0, 6.0, 12.0)]
    for rates in (of_collect, of_eval):
        assert [point["values"] for point in rates["points"]] == [[1.0, 1.0], [2.0, 2.0]]
    assert all(figure["met"] for figure in content["figures"])
    assert len(scale_data.measure(1, 3, 0, lambda _: None)["figures"]) == 6, "a quick run has no crowd"
    monkeypatch.setattr(scale_data, "FOLDER", tmp_path / "none")
    assert len(scale_data.measure(2, 3, 0, lambda _: None)["figures"]) == 8, "without Ray"


def test_the_loops_memory_is_of_all_nodes_but_the_recorder():
    from benchmarks.scale_loop import sweeps_of

    run = {"episode_recorder": [60.0, 61.0], "vjepa_planner": [200.0, 201.0], "sim_bridge": [100.0, 101.0]}
    recorder, loop = sweeps_of([run, run], [10.0, 20.0])
    assert recorder.points == {10.0: [60.0, 60.0], 20.0: [61.0, 61.0]}
    assert loop.points == {10.0: [300.0, 300.0], 20.0: [302.0, 302.0]}


def test_a_familys_memory_is_read_of_every_process_of_it():
    from benchmarks.memory import family, private_bytes

    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert child.pid in family(os.getpid())
        assert private_bytes(child.pid) > 0
    finally:
        child.communicate(b"\n")
    assert private_bytes(child.pid) == 0


def test_the_pictures_are_of_every_figure_and_every_sweep(tmp_path):
    from benchmarks import report
    from benchmarks.figures import Figure, record, write_record
    from benchmarks.pictures import LEAST, MOST, ratios
    from benchmarks.sweeps import LINEAR, Sweep

    figures = [
        Figure("none", 0.0, "", "", 2.0),
        Figure("missing", math.nan, "", "", 2.0),
        Figure("speed", 3.0, "times", "", 2.0, at_least=True, interval_95=(2.0, 400.0)),
    ]
    made = record("scale", figures, "./vjepa", [0])["figures"]
    assert ratios(made) == [("none", LEAST, LEAST, LEAST, False, True), ("speed", 1.5, 1.0, MOST, True, True)]
    sweep = Sweep("a cost", "costs", "sizes", "s", LINEAR, {1.0: [1.0, 2.0], 10.0: [10.0, 20.0]})
    content = record("scale", [sweep.figure()], "./vjepa", [0], sweeps=[sweep.content()])
    write_record(tmp_path, {**content, "load_average_at_start": 0.1})
    report.write(tmp_path, tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    assert "| growth of a cost | at most exponent 1.1 | exponent 1 | 1 to 1 | yes |" in page
    assert "| a cost | 10 sizes | 15 s | 1 |" in page
    for name in (report.RATIOS_PICTURE, report.SWEEPS_PICTURE):
        assert f"({name})" in page
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_a_check_names_the_ratios_that_are_worse_than_the_committed_ones_beyond_noise():
    from benchmarks.figures import Figure, record
    from benchmarks.run import regressions

    def records(speed_up, cost, error, growth=1.0):
        figures = [
            Figure("growth", growth, "exponent", "", 1.1),
            Figure("speed-up", speed_up, "times", "", 2.0, at_least=True),
            Figure("cost", cost, "times", "", 1.0),
            Figure("time", error, "ms", "", 1.0),
        ]
        return {"one": record("one", figures, "./vjepa", [0])}

    assert regressions(records(2.0, 1.0, 5.0), records(1.7, 1.2, 50.0)) == []
    assert regressions(records(2.0, 1.0, 5.0), records(1.5, 1.3, 5.0)) == [
        "speed-up: 1.5 times, committed is 2",
        "cost: 1.3 times, committed is 1",
    ]
    assert regressions(records(2.0, 1.0, 5.0), records(2.0, 1.0, 5.0, growth=1.09)) == []
    assert regressions(records(2.0, 1.0, 5.0), records(2.0, 1.0, 5.0, growth=1.2)) == [
        "growth: 1.2 exponent, committed is 1"
    ]


def test_a_stages_figure_is_its_time_over_that_of_its_floor():
    from benchmarks.data import FLOORS, figures

    runs = [{"what": what, "stage_ms": stage, "floor_ms": 10.0} for what in FLOORS for stage in (11.0, 13.0)]
    assert [(figure.value, figure.met) for figure in figures(runs)] == [(pytest.approx(1.2), False)] * len(FLOORS)


def test_stages_are_told_apart_by_when_each_message_was_sent_and_heard():
    from benchmarks.stages import WARM_UP, answered_share, stages

    begins = {20 * i: 20.0 * i for i in range(WARM_UP + 5)}
    times = {
        "frame": {stamp: (at, at + 1) for stamp, at in begins.items()},
        "latent": {stamp: (at + 9, at + 10) for stamp, at in begins.items()},
        "command": {stamp: (at + 11, at + 13) for stamp, at in list(begins.items())[:-1]},
    }
    assert answered_share(times) == pytest.approx(4 / 5)
    assert [stage["p50_ms"] for stage in stages(times)] == pytest.approx([1, 9, 1, 2, 2, 13, 0])
    assert stages(times)[1]["count"] == 5


def test_a_budget_is_of_each_process_its_threads_and_its_work_bare():
    from benchmarks.budget import Sample, difference, figures, rows

    def spent(seconds: float, *names: str):
        return {name: {"main 1": seconds, "dds.ev.0 2": seconds / 4, "llvmpipe-0 3": seconds / 2} for name in names}

    before, after = spent(1.0, "sim_bridge", "stack_manager"), spent(2.0, "sim_bridge", "stack_manager")
    ending = Sample(120, 110, spent(9.0, "sim_bridge"))  # One process has ended.
    ran = difference([Sample(10, 9, before), Sample(110, 107, after), ending], episodes=1)
    assert (ran.steps, ran.answered) == (100, 98)
    assert ran.spent["sim_bridge"] == pytest.approx({"main 1": 1.0, "dds.ev.0 2": 0.25, "llvmpipe-0 3": 0.5})
    runs = rows(ran, {("sim_bridge", "render"): 4.0, ("sim_bridge", "physics"): 1.0})
    by_part = {(run["process"], run["what"]): run["cpu_ms"] for run in runs}
    assert by_part["sim_bridge", "all"] == pytest.approx(17.5)
    threads = [by_part["sim_bridge", which] for which in ("main thread", "DDS threads", "other threads")]
    assert threads == pytest.approx([10.0, 2.5, 5.0])
    assert by_part["sim_bridge", "rest"] == pytest.approx(17.5 - 2.5 - 5.0)
    whole, over_floor = figures(runs, "a test's")
    assert (whole.value, whole.met) == (pytest.approx(35.0), False)
    assert (over_floor.value, over_floor.met) == (pytest.approx(3.5), False)


def test_a_budget_needs_two_samples_of_a_moving_arm():
    from benchmarks.budget import Sample, difference
    from vjepa_interfaces.errors import VjepaError

    with pytest.raises(VjepaError, match="1 samples of a run of 1 short episodes; expected 2: use more episodes"):
        difference([Sample(10, 10, {"sim_bridge": {"main 1": 1.0}})], episodes=1)


def test_the_processes_of_a_run_are_named_after_their_nodes_and_their_threads_after_themselves():
    from benchmarks.budget import COMMAND_LINE, processes, spent_by

    code = "import time; end = time.process_time() + 0.1\nwhile time.process_time() < end: pass\nprint(); input()"
    command = [sys.executable, "-c", code, "--ros-args", "-r", "__node:=sim_bridge"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        child.stdout.readline()
        pids = processes(os.getpid())
        assert (pids[COMMAND_LINE], pids["sim_bridge"]) == (os.getpid(), child.pid)
        (time_s,) = spent_by(pids)["sim_bridge"].values()
        assert time_s >= 0.09
    finally:
        child.communicate(b"\n")
    assert "sim_bridge" not in spent_by({"sim_bridge": child.pid})


def test_both_searches_of_the_benchmark_choose_the_same_action():
    from benchmarks.planning import LATENT_SHAPE, observations, planner

    plans = []
    for plain in (False, True):
        search = planner(plain=plain)
        search.reset(0)
        plans.append([search.plan(observation, None).action for observation in observations(LATENT_SHAPE, 0)[:3]])
    assert np.allclose(*plans, atol=1e-3)


def test_the_published_search_is_given_our_world_of_one_network():
    import torch

    from benchmarks import published
    from benchmarks.planning import LATENT_SHAPE, MPPI, observations, planner, single

    calls = {}

    class Search:
        def __init__(self, dynamics, cost, size, noise, **options):
            calls.update(options, dynamics=dynamics, cost=cost)

        def command(self, state, shift_nominal_trajectory):
            calls.setdefault("states", []).append((state, shift_nominal_trajectory))
            return torch.tensor([3.0, 0.5])

    ours = single(planner(MPPI))
    world, config = ours._world, ours.config
    observation = observations(LATENT_SHAPE, 0)[0]
    search = published.search(type("package", (), {"MPPI": Search}), world, config)
    assert search(observation).tolist() == [1.0, 0.5]
    assert [shift for _, shift in calls["states"]] == [True] + [False] * (config.iterations - 1)
    assert (calls["num_samples"], calls["horizon"]) == (config.samples, config.horizon)
    state = calls["states"][0][0]
    actions = 2 * torch.rand(1, config.samples, config.horizon, 2) - 1
    with torch.inference_mode():
        imagined = world.imagine(state[None], actions)
        expected = world.costs(imagined, actions, config.distance_weight)[0]
        total, reached = torch.zeros(config.samples), state.expand(config.samples, -1)
        for step in range(config.horizon):
            reached = calls["dynamics"](reached, actions[0, :, step])
            total = total + calls["cost"](reached, actions[0, :, step])
    assert torch.allclose(total, expected, atol=1e-4)
    ours.reset(0)
    assert ours.plan(observation, None).disagreement is None


def test_the_fastest_of_the_other_runtimes_is_set_against_this_stacks_code():
    from benchmarks.runtimes import COMPILED, ONNX, OPENVINO, OWN, figures

    times = {OWN: [2.0, 4.0], COMPILED: [3.0, 5.0], ONNX: [1.0, 3.0], OPENVINO: []}
    runs = [
        {"model": "small", "runtime": name, "rounds_ms": ms, "relative_error": 1e-6 * len(ms) if ms else None}
        for name, ms in times.items()
    ]
    over_own, error = figures(runs)
    assert (over_own.value, over_own.met) == (pytest.approx((1 / 2 + 3 / 4) / 2), False)
    assert over_own.sample.startswith(ONNX)
    assert (error.value, error.met) == (pytest.approx(2e-6), True)


def test_products_of_8_bit_integers_are_near_those_of_floats():
    import torch
    from torch.nn import functional

    from benchmarks.int8 import Int8Weight

    torch.manual_seed(0)
    inputs, weight, bias = torch.randn(5, 64), torch.randn(32, 64), torch.randn(32)
    exact, found = (functional.linear(inputs, *linear) for linear in ((weight, bias), (Int8Weight(weight, bias), None)))
    assert functional.cosine_similarity(found, exact, dim=-1).min() > 0.999


def test_the_page_says_whether_8_bit_integers_are_worth_having():
    from benchmarks.encoder import OWN, int8_beside
    from benchmarks.report import _int8

    def said(int8_ms, cosine):
        times = {"int8": int8_ms, "bfloat16": [4.0, 5.0]}
        runs = [{"what": OWN, "batch": 1, "dtype": name, "rounds_ms": ms} for name, ms in times.items()]
        return _int8(int8_beside(runs, {"int8_cosine": cosine}))

    assert "takes 1.10 times as long" in said([4.4, 5.5], 0.9995)
    assert said([4.4, 5.5], 0.9995).endswith("is 0.9995: no part of the stack.")
    assert said([2.0, 2.5], 0.9995).endswith("worth having.")
    assert said([2.0, 2.5], 0.99).endswith("no part of the stack.")


def test_a_clip_is_timed_by_threads_and_by_operation():
    import torch

    from benchmarks.encoder_threads import by_threads

    before, square = torch.get_num_threads(), torch.ones(256, 256)
    runs = by_threads({"float32": lambda: square @ square}, (1, 2), rounds=1)
    assert torch.get_num_threads() == before
    assert [(run["dtype"], run["threads"]) for run in runs] == [("float32", 1), ("float32", 2)]
    assert all(run["median_ms"] > 0.0 and run["operations_ms"]["aten::mm"] > 0.0 for run in runs)


def test_the_page_has_the_operations_that_take_a_clips_time():
    from benchmarks.report import _by_threads

    runs = [
        {"dtype": "float32", "threads": 1, "median_ms": 9.0, "operations_ms": {"mm": 8.0, "add": 0.1, "mul": 0.1}},
        {"dtype": "float32", "threads": 2, "median_ms": 5.0, "operations_ms": {"mm": 4.0, "add": 0.2, "copy": 0.1}},
    ]
    assert _by_threads({"threads": runs}).splitlines() == [
        "|  | float32, 1 | float32, 2 |",
        "| --- | --- | --- |",
        "| one clip, without the profiler | 9.00 | 5.00 |",
        "| `add` | 0.10 | 0.20 |",
        "| `mm` | 8.00 | 4.00 |",
        "| other operations | 0.10 | 0.10 |",
    ]


def test_a_planner_that_is_not_installed_is_not_measured():
    from benchmarks.planning import OWN, PLAIN, PUBLISHED, SINGLE, figures
    from benchmarks.report import RUN_COLUMNS, _runs

    timed = {OWN: [1.0], PLAIN: [2.0], SINGLE: [1.0]}
    assert len(figures(timed)) == 2
    assert figures({**timed, PUBLISHED: [1.5]})[2].value == 1.5
    assert f"| 1 | {PUBLISHED} | not measured |" in _runs(
        RUN_COLUMNS["planning"], [{"what": PUBLISHED, "median_ms": None}]
    )


def test_a_ping_leaves_out_its_warm_up_and_counts_what_stayed_unanswered():
    from benchmarks.ping import WARM_UP, summarise

    answered = {stamp: 9.0 for stamp in range(1, WARM_UP + 1)}
    answered |= {WARM_UP + i: 0.001 * i for i in (1, 2, 3, 5)}
    summary = summarise(answered)
    assert summary["p50_ms"] == pytest.approx(2.5)
    assert (summary["count"], summary["unanswered"]) == (4, 1)


def test_time_on_processors_is_counted_behind_the_warm_up(monkeypatch):
    from benchmarks import ping

    monkeypatch.setattr(ping.time, "process_time", iter([0.01 * i**2 for i in range(ping.WARM_UP + 2)]).__next__)
    clock = ping.CpuClock()
    for _ in range(ping.WARM_UP):
        clock.tick()
    assert math.isnan(clock.per_message_ms())
    clock.tick()
    clock.tick()
    begin, end = (0.01 * i**2 for i in (ping.WARM_UP - 1, ping.WARM_UP + 1))
    assert clock.per_message_ms() == pytest.approx(1e3 * (end - begin) / 2)


def test_executors_are_compared_round_by_round():
    from benchmarks.executors import NAMES, figures

    times = {"single": [2.0, 6.0], "multi": [9.0, 9.0], "events": [1.0, 2.0]}
    runs = [{"what": NAMES[name], "p50_ms": times[name][i], "cpu_ms": 1.0} for i in (0, 1) for name in NAMES]
    trip, cpu = figures(runs)
    assert (trip.value, trip.interval_95, trip.met) == (2.5, pytest.approx((2.0, 3.0)), True)
    assert cpu.value == 1.0


def test_sizes_are_those_of_the_protocol_unless_asked_otherwise():
    from benchmarks.run import QUICK, Sizes, build_parser, sizes_of

    assert sizes_of(build_parser().parse_args([])) == Sizes()
    assert sizes_of(build_parser().parse_args(["--quick"])) == QUICK
    changed = sizes_of(build_parser().parse_args(["--expert-episodes", "3", "--seed", "7"]))
    assert (changed.expert_episodes, changed.seed, changed.runs) == (3, 7, Sizes.runs)


def test_the_document_shows_every_figure_against_its_aim_and_every_run(tmp_path):
    from benchmarks import real_time, report, transport
    from benchmarks.figures import record, write_record

    loops = [LOOP, {**LOOP, "steps": 123.0}]
    command = "./vjepa --exec measure"
    runs = [{**loop, "transport_ms": transport.transport_ms(loop)} for loop in loops]
    for content in (
        record("real-time", real_time.figures(loops), command, range(3, 5), runs=loops),
        record("transport", transport.figures([PING] * 3, loops), command, [0, 1], runs=runs, pings=[PING] * 3),
    ):
        write_record(tmp_path, {**content, "load_average_at_start": 0.1})
    document = report.render(tmp_path)
    lines = document.splitlines()
    (stale,) = [line for line in lines if line.startswith("| control steps without")]
    assert "| at most 1 % | 2.477 % | 2 % to 3.252 % | **no** |" in stale
    assert command in stale
    (ratio,) = [line for line in lines if line.startswith("| image to latent to command")]
    assert "| at most 1.5 times | 3 times | 3 to 3 times | **no** |" in ratio
    assert "seeds 3 to 4" in document
    assert sum(line.startswith("| 2 | 123 |") for line in lines) == 1
    assert sum(line.startswith("| 3 | 100 | 1.00 | 2.00 | 0 |") for line in lines) == 1


def test_a_start_is_told_with_the_help():
    from benchmarks.start_up import figures

    asked, started = figures([{"help_s": 0.1, "first_torque_s": 2.0}, {"help_s": 0.3, "first_torque_s": 5.0}])
    assert (asked.value, asked.met) == (pytest.approx(0.2), True)
    assert (started.value, started.met) == (pytest.approx(3.5), False)


def test_the_document_has_a_column_for_each_further_machine_that_measured_the_same(tmp_path):
    from benchmarks import report
    from benchmarks.figures import Figure, record, write_record

    def measured(value: float, machine: dict[str, str]) -> dict:
        figures = [Figure("a plan", value, "ms", "", 6.0)] if value else []
        content = record("planning", [*figures, Figure("cost", 1.0, "times", "", 2.0)], "./vjepa", [0], runs=[])
        return {**content, "machine": content["machine"] | machine, "load_average_at_start": 0.1}

    write_record(tmp_path, measured(5.0, {"cpu": "EPYC", "instructions": "AVX2"}))
    assert "| what | aim | measured | 95 % interval | met | command |" in report.render(tmp_path)
    (tmp_path / "other").mkdir()
    write_record(tmp_path / "other", measured(3.0, {"cpu": "Xeon", "instructions": "AVX512"}))
    page = report.render(tmp_path)
    assert "| what | aim | measured | on Xeon (AVX512) | 95 % interval | met | command |" in page
    assert "| a plan | at most 6 ms | 5 ms | 3 ms |  | yes |" in page
    assert "- EPYC (AVX2), " in page
    write_record(tmp_path / "other", measured(0.0, {"cpu": "Xeon", "instructions": "AVX512"}))
    assert "| a plan | at most 6 ms | 5 ms |  |  | yes |" in report.render(tmp_path)


def test_a_record_names_the_instruction_set_that_torch_uses():
    import torch

    from benchmarks.figures import machine, named

    assert named(machine()).endswith(f"({torch.backends.cpu.get_cpu_capability()})")
    assert named({"cpu": "AMD EPYC"}) == "AMD EPYC", "as in records of before"


def test_the_committed_document_is_that_of_the_committed_results():
    from benchmarks.report import render

    assert (ROOT / "docs/performance.md").read_text(encoding="utf-8") == render(ROOT / "results"), (
        "docs/performance.md is out of date; run: ./vjepa --exec python -m benchmarks.report"
    )


def test_the_large_encoder_is_given_every_frame_that_an_experiment_encodes():
    from benchmarks.large_encoder import GPU_TFLOPS, encoded, hours, stages
    from vjepa_cli.cli import parse

    def frames(words: str) -> int:
        return encoded(parse(words.split()))

    assert frames("collect --out x --episodes 500 --episode-steps 200") == 500 * 201
    assert frames("eval --planner bc --episodes 20 --protocol full") == 20 * 1001
    assert frames("eval --planner expert --episodes 20") == 20 * 201, "whoever drives"
    assert frames("eval --planner bc --looks nominal colour --episodes 20") == 2 * 20 * 201
    assert frames("train bc --data x --out y --dagger 3 --dagger-episodes 10 --dagger-steps 15") == 3 * 10 * 16
    assert frames("train dynamics --data x --out y") == 0
    by_name = {row["what"]: row for row in stages(width=1024)}
    # The world's data has the rows of the stack's own grid, of 1024 values of two bytes, for each frame.
    world = by_name["world: collect"]
    assert world["disk_gb"] == pytest.approx(world["frames"] * 17 * 1024 * 2 / 1e9)
    assert by_name["cem: eval"]["disk_gb"] == 0.0
    assert hours(3600, tflop=GPU_TFLOPS, clip_s=2.0) == pytest.approx({"here_hours": 2.0, "gpu_hours": 1.0})


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_quick_run_measures_and_documents_everything(tmp_path):
    command = [sys.executable, "-m", "benchmarks.run", "--quick", "--results", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1740, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    records = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    names = (
        "budget",
        "busy",
        "calm",
        "data",
        "encoder",
        "executors",
        "expert",
        "images",
        "memory",
        "planning",
        "real-time",
        "recovery",
        "runtimes",
        "scale",
        "scale-data",
        "scale-loop",
        "scale-trainer",
        "stages",
        "start-up",
        "transport",
    )
    assert set(records) - {"benchmark-encoder-gpu"} == {f"benchmark-{name}" for name in names}
    for content in records.values():
        assert all(math.isfinite(figure["value"]) for figure in content["figures"])
        assert content["seeds"] == [0]
        assert content["date"].startswith("20")
        assert content["machine"]["cores_used"] <= 2
        assert content["versions"]["rclpy"] != "not installed"
        assert content["command"].startswith("./vjepa ")
    assert records["benchmark-expert"]["result"]["in_target_at_end"] == [True]
    assert records["benchmark-transport"]["pings"][0]["count"] == 10
    by_name = {figure["what"]: figure for figure in records["benchmark-encoder"]["figures"]}
    assert by_name["relative error of the tokens in float32"]["met"]
    assert by_name["least cosine of a token in bfloat16"]["value"] > 0.99
    assert [run["transitions"] for run in records["benchmark-memory"]["runs"]] == [200, 2000]
    assert all(run["cpu_ms"] > 0 for run in records["benchmark-executors"]["runs"])
    document = (tmp_path / "performance.md").read_text()
    assert all(figure["what"] in document for content in records.values() for figure in content["figures"])
