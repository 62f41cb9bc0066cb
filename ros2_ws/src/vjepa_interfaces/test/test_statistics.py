"""What nodes say of their rates and latencies is what happened."""

import math

import pytest

from vjepa_interfaces.statistics import Counts, Durations, Failure, RateMeter


def test_percentiles_are_those_of_the_durations_in_milliseconds():
    durations = Durations()
    for ms in range(101):
        durations.add(ms * 1e-3)
    assert durations.percentiles(0, 50, 99, 100) == pytest.approx((0, 50, 99, 100))
    assert len(durations) == 101


def test_without_durations_percentiles_are_not_numbers():
    assert all(math.isnan(value) for value in Durations().percentiles(50, 99))
    assert len(Durations()) == 0


def test_the_oldest_durations_are_forgotten():
    durations = Durations(max_samples=3)
    for seconds in (9.0, 8.0, 0.001, 0.002, 0.003):
        durations.add(seconds)
    assert len(durations) == 3
    assert durations.percentiles(0, 100) == pytest.approx((1.0, 3.0))


def test_percentiles_may_be_of_the_last_durations_alone():
    durations = Durations(max_samples=3)
    assert math.isnan(durations.percentiles(50, last=2)[0])
    for seconds in (0.007, 0.001, 0.009, 0.003, 0.002):
        durations.add(seconds)
        assert durations.percentiles(50, last=1) == pytest.approx((1e3 * seconds,))
    assert durations.percentiles(0, 100, last=2) == pytest.approx((2.0, 3.0))
    assert durations.percentiles(0, 100, last=9) == pytest.approx((2.0, 9.0))


def test_the_rate_is_that_of_the_window():
    meter = RateMeter(window_s=5.0)
    for i in range(1000):
        meter.tick(i * 0.02)
    assert meter.rate(999 * 0.02) == pytest.approx(50.0)


def test_the_rate_falls_as_soon_as_events_stop():
    meter = RateMeter(window_s=5.0)
    for i in range(51):
        meter.tick(i * 0.02)
    assert meter.rate(1.0) == pytest.approx(50.0)
    assert meter.rate(4.0) == pytest.approx(50 / 4)
    assert meter.rate(6.5) == 0.0


def test_the_rate_is_the_same_in_whatever_order_two_threads_count():
    meter = RateMeter()
    for time_s in (1.0, 0.5, 1.5):
        meter.tick(time_s)
    assert meter.rate(1.5) == pytest.approx(2.0)


@pytest.mark.parametrize("ticks", [[], [1.0]])
def test_fewer_than_two_events_have_no_rate(ticks):
    meter = RateMeter()
    for tick in ticks:
        meter.tick(tick)
    assert meter.rate(1.0) == 0.0


def test_events_at_one_instant_have_a_finite_rate():
    meter = RateMeter()
    meter.tick(1.0)
    meter.tick(1.0)
    assert math.isfinite(meter.rate(1.0))


def test_what_was_never_counted_is_zero():
    counts = Counts()
    assert counts["skipped"] == 0
    counts["skipped"] += 1
    assert counts["skipped"] == 1


def test_a_failure_is_said_as_long_as_it_lasts():
    failure = Failure()
    assert failure.report() == ""
    failure.begin("no latent")
    assert [failure.report(), failure.report()] == ["no latent"] * 2
    failure.end()
    assert failure.report() == ""


def test_a_failure_that_is_over_before_it_was_said_is_said_once():
    failure = Failure()
    failure.begin("foreign latent")
    failure.end()
    assert [failure.report(), failure.report()] == ["foreign latent", ""]
