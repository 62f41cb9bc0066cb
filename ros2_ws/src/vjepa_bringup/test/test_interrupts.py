"""Signals interrupt once, and never where something would be left half done."""

import signal

import pytest

from vjepa_bringup.interrupts import interruptible


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_interrupts_what_lets_it_in(number):
    with interruptible() as interrupts:
        with pytest.raises(KeyboardInterrupt), interrupts.let_in():
            signal.raise_signal(number)
        assert interrupts.count == 1


def test_clean_up_is_not_interrupted():
    with interruptible() as interrupts:
        with interrupts.let_in():
            pass
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert interrupts.count == 2


def test_what_came_too_early_interrupts_at_the_first_chance():
    reached = False
    with interruptible() as interrupts:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt), interrupts.let_in():
            reached = True
    assert not reached


def test_a_second_signal_is_counted_and_does_not_raise_again():
    def clean_up_under_fire():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)
            cleaned.append(True)

    cleaned: list[bool] = []
    with interruptible() as interrupts:
        with pytest.raises(KeyboardInterrupt), interrupts.let_in():
            clean_up_under_fire()
        assert interrupts.count == 2
    assert cleaned


def test_handlers_are_as_before_afterwards():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    with interruptible():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert [signal.getsignal(number) for number in numbers] == before


def test_under_nohup_a_hang_up_stays_ignored_and_in_a_background_job_an_interrupt_does_not():
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGHUP, signal.SIGINT)}
    try:
        with interruptible() as interrupts:
            signal.raise_signal(signal.SIGHUP)
            assert interrupts.count == 0
            signal.raise_signal(signal.SIGINT)
            assert interrupts.count == 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
