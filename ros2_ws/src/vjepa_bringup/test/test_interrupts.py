"""Signals interrupt once, and never where something would be left half done."""

import signal

import pytest
from std_msgs.msg import String

from vjepa_bringup.domains import hold_domain
from vjepa_bringup.interrupts import interruptible, postponed
from vjepa_bringup.monitor import Monitor
from vjepa_interfaces import topics
from vjepa_interfaces.managed_node import qos_profile


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


def test_a_postponed_signal_is_handled_when_the_context_has_ended():
    done = []

    def work() -> None:
        with postponed():
            signal.raise_signal(signal.SIGINT)
            done.append("the context")
        done.append("what follows")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["the context"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_while_a_message_is_made_interrupts_the_wait_as_itself(monkeypatch):
    """rclpy makes a message by calling its class, and calls what that raises an argument it cannot convert."""
    made = []

    def interrupted(self, make=String.__init__, **fields):
        make(self, **fields)
        made.append(self)
        signal.raise_signal(signal.SIGINT)

    with hold_domain(None, {"planner": "(interrupts)"}) as domain, Monitor(domain) as monitor:
        topic = topics.ACTIVE_PLANNER  # Whoever listens later gets it too.
        monitor.node.create_publisher(String, topic.name, qos_profile(topic)).publish(String())
        monkeypatch.setattr(String, "__init__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            monitor.wait_until(lambda: False, 10.0)
    assert made
