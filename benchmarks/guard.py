"""Faults that stop a guard, and the time until torque is zero at the arm's side, on the live process."""

import itertools
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lifecycle_msgs.msg import Transition

from benchmarks.figures import Figure, command_of, record
from benchmarks.guard_rig import TORQUE, ZERO, Rig
from benchmarks.stack import busy
from vjepa_interfaces import topics
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.guard_parameters import GuardParameters

AT_ONCE_S = 0.02
TICK_S = 1.0 / GuardParameters.rate_hz
COMMAND_S, ENABLE_S = GuardParameters.command_timeout_s, GuardParameters.enable_timeout_s
COMMAND_PERIOD_S = 0.02
DISCOVERY_S = 1.0
"""The longest time in which the middleware reports a new publisher to a guard."""
CALL_S = 0.5
"""The longest time in which a client finds a service of the guard and the guard fulfils its request."""
HOGS = 40
STALL_S = 1.0
HOUR_S = 3600.0
STAYS_S = 0.4
"""Torque must stay zero for this time after a fault's end, the switch held: longer than every timeout."""


@dataclass(frozen=True)
class Fault:
    """A fault on the live process.

    Attributes:
        what: description for the page.
        inflict: inflicts the fault on a rig that drives, and returns the steady time of the fault, s.
        within_s: bound on the time until torque is zero at the arm's side, where it stays zero while the switch is
            held.
        states: words that diagnostics must contain.
        parameters: parameters of the guard that differ from the rig's.
        mend: ends the fault, if further commands alone do not end it.
        lets_go: whether the fault is the switch's release; otherwise the switch is still held after it.
        real_time: whether the guard may ask for a real-time priority, as the measuring processes must.
        kills: whether the guard's process ends without a message; the middleware takes 20 s to forget it.
    """

    what: str
    inflict: Callable[[Rig], float]
    within_s: float
    states: str = ""
    parameters: Mapping[str, Any] | None = None
    mend: Callable[[Rig], Any] = lambda rig: None
    lets_go: bool = False
    real_time: bool = True
    kills: bool = False

    @property
    def rig(self) -> dict[str, Any]:
        """The parameters of the rig."""
        return {"real_time": self.real_time, **(self.parameters or {})}


def let_go(rig: Rig) -> float:
    """Release the switch."""
    return rig.hand.send(rate_hz=20.0, values=(0,))


def let_go_on_busy_cores(rig: Rig) -> float:
    """Release the switch while 40 processes compute; the processes of commander and hand have a higher priority."""
    rig.commander.send(rate_hz=50.0, values=TORQUE, real_time=True)
    rig.hand.send(rate_hz=20.0, values=(1,), real_time=True)
    with busy(HOGS):
        rig.monitor.spin(1.0)
        if not any(any(values) for _, values in rig.outputs[-5:]):
            raise VjepaError(f"the guard does not drive on busy cores: {rig.diagnostics()}")
        released = rig.hand.send(rate_hz=20.0, values=(0,), real_time=True)
        rig.monitor.spin(0.3)
    return released


def let_go_while(topic: topics.Topic, **mode: Any) -> Callable[[Rig], float]:
    """Return a fault: an endpoint sends on a topic, and the switch is released meanwhile."""

    def inflict(rig: Rig) -> float:
        talker = rig.commander if topic == topics.JOINT_COMMAND else rig.joints
        talker.send(**mode)
        rig.monitor.spin(1.0)
        return let_go(rig)

    return inflict


def sends(name: str, **mode: Any) -> Callable[[Rig], float]:
    """Return a fault: the commander or the hand sends in another mode."""
    return lambda rig: getattr(rig, name).send(**mode)


def stopped(name: str) -> Callable[[Rig], float]:
    """Return a fault: the process of the commander or the hand is stopped, as by a debugger."""

    def inflict(rig: Rig) -> float:
        os.kill(getattr(rig, name).process.pid, signal.SIGSTOP)
        return time.monotonic()

    return inflict


def goes_on(name: str) -> Callable[[Rig], None]:
    """Return a function that continues the stopped process."""
    return lambda rig: os.kill(getattr(rig, name).process.pid, signal.SIGCONT)


def rivals(topic: topics.Topic, **mode: Any) -> Callable[[Rig], float]:
    """Return a fault: another publisher of a topic appears and sends."""

    def inflict(rig: Rig) -> float:
        rig.another = rig.rival(topic)
        return rig.another.send(**mode)

    return inflict


def rival_goes(rig: Rig) -> None:
    """End the rival in good order, so that the middleware notices it at once."""
    rig.another.process.stdin.close()
    rig.another.process.wait()


def another_guard(rig: Rig) -> float:
    """Start a second publisher of torques to the arm, whose zeros leave the arm with the guard's torque alone."""
    rig.another = rig.rival(topics.EFFORT_ARRAY)
    return rig.another.send(rate_hz=50.0, values=ZERO)


def stalls(rig: Rig) -> float:
    """Stop the guard's process for a second, as on a sleeping computer; the fault begins when it continues."""
    rig.guard.send_signal(signal.SIGSTOP)
    time.sleep(STALL_S)
    went_on = time.monotonic()
    rig.guard.send_signal(signal.SIGCONT)
    return went_on


def deactivated(rig: Rig) -> float:
    """Deactivate the guard and activate it again, while the switch is held."""
    asked = time.monotonic()
    rig.transition(Transition.TRANSITION_DEACTIVATE)
    rig.transition(Transition.TRANSITION_ACTIVATE)
    return asked


def ended(number: signal.Signals) -> Callable[[Rig], float]:
    """Return a fault: a signal ends the guard, which is then started again.

    A killed guard sends nothing more, not even zero; the arm's own timeout must stop the arm.
    """

    def inflict(rig: Rig) -> float:
        began = time.monotonic()
        rig.guard.send_signal(number)
        rig.guard.wait()
        rig.start_guard()
        return time.monotonic() if number == signal.SIGKILL else began

    return inflict


def dry_run(rig: Rig) -> float:
    """Begin a dry run."""
    asked = time.monotonic()
    if rig.set_parameters(dry_run=True) != [True]:
        raise VjepaError("no dry run could be begun")
    return asked


def end_dry_run(rig: Rig) -> None:
    """End a dry run."""
    rig.set_parameters(dry_run=False)


def damps(rig: Rig, **mode: Any) -> float:
    """End the commands while joint states come; torque against the velocity must not last longer than `damp_s`."""
    rig.joints.send(rate_hz=100.0, **mode)
    return rig.commander.send(rate_hz=-1.0)


DAMP = {"on_timeout": "damp", "damping": [0.01, 0.01], "damp_s": 0.5}
SILENCE_S = COMMAND_S + COMMAND_PERIOD_S + 2 * TICK_S
"""Time from the last sane command, which may be a period old at the fault, to the tick that follows the timeout."""

LET_GO = (
    Fault("the switch is let go", let_go, AT_ONCE_S, "the switch is released", lets_go=True),
    Fault("let go, commands at 450 Hz", let_go_while(topics.JOINT_COMMAND, rate_hz=450.0, values=TORQUE), AT_ONCE_S),
    Fault(
        "let go, joint states without a pause (a loop without a sleep)",
        let_go_while(topics.JOINT_STATES, rate_hz=0.0, values=ZERO),
        AT_ONCE_S,
        mend=lambda rig: rig.joints.send(rate_hz=-1.0),
    ),
    Fault("let go, both cores busy with 40 processes", let_go_on_busy_cores, AT_ONCE_S),
)
LET_GO = tuple(replace(fault, lets_go=True) for fault in LET_GO)
NORMAL = tuple(
    replace(fault, what=f"{fault.what}, without a real-time priority", real_time=False) for fault in LET_GO[:-1]
)
"""If other processes use both cores, a guard of normal priority waits 40 ms and more for its turn."""

FAULTS = (
    *LET_GO,
    *NORMAL,
    Fault(
        "commands without a pause (a loop without a sleep)",
        sends("commander", rate_hz=0.0, values=TORQUE),
        COMMAND_S + 2 * TICK_S,
        "commands come faster than 500 a second",
    ),
    Fault(
        "messages of a held switch without a pause",
        sends("hand", rate_hz=0.0, values=(1,)),
        COMMAND_S + 2 * TICK_S,
        "messages of the switch come faster than 500 a second",
    ),
    Fault("the hand's process stops", stopped("hand"), ENABLE_S + 0.05 + 2 * TICK_S, mend=goes_on("hand")),
    Fault(
        "the hand repeats one message",
        sends("hand", rate_hz=20.0, values=(1,), stamp="frozen"),
        ENABLE_S + 0.05 + 2 * TICK_S,
        "a publisher that is stuck is not a hand",
    ),
    Fault("the commander's process stops", stopped("commander"), SILENCE_S, mend=goes_on("commander")),
    Fault("commands with stamp 0", sends("commander", rate_hz=50.0, values=TORQUE, stamp="zero"), SILENCE_S),
    Fault("commands with one stamp", sends("commander", rate_hz=50.0, values=TORQUE, stamp="frozen"), SILENCE_S),
    Fault(
        "commands of 1970",
        sends("commander", rate_hz=50.0, values=TORQUE, stamp="shifted", shift_s=-1e9),
        SILENCE_S,
    ),
    Fault(
        "commands an hour old, as after a clock that jumped ahead",
        sends("commander", rate_hz=50.0, values=TORQUE, stamp="shifted", shift_s=-HOUR_S),
        SILENCE_S,
    ),
    Fault(
        "commands an hour ahead, as after a clock that jumped back",
        sends("commander", rate_hz=50.0, values=TORQUE, stamp="shifted", shift_s=HOUR_S),
        SILENCE_S,
    ),
    Fault("commands that are not finite", sends("commander", rate_hz=50.0, values=(float("nan"), 0.0)), SILENCE_S),
    Fault("commands for three joints", sends("commander", rate_hz=50.0, values=(0.01, 0.01, 0.01)), SILENCE_S),
    Fault(
        "a second commander",
        rivals(topics.JOINT_COMMAND, rate_hz=50.0, values=TORQUE),
        DISCOVERY_S,
        "2 publishers of commands",
        mend=rival_goes,
    ),
    Fault(
        "a second switch",
        rivals(topics.ENABLE, rate_hz=20.0, values=(1,)),
        DISCOVERY_S,
        "2 publishers of enable",
        mend=rival_goes,
    ),
    Fault("a second publisher of torques", another_guard, DISCOVERY_S, "2 publishers of torques", mend=rival_goes),
    Fault(
        "silence, then `damp` with velocities that never change",
        lambda rig: damps(rig, values=(1.0, 1.0)),
        SILENCE_S + 0.5 + 0.1,
        parameters=DAMP,
        mend=lambda rig: rig.joints.send(rate_hz=-1.0),
    ),
    Fault(
        "silence, then `damp` with joint states of 1970",
        lambda rig: damps(rig, values=(1.0, 1.0), stamp="shifted", shift_s=-1e9),
        SILENCE_S,
        parameters=DAMP,
        mend=lambda rig: rig.joints.send(rate_hz=-1.0),
    ),
    Fault("the guard's process stops for a second, from its going on", stalls, 2 * TICK_S),
    Fault("the guard is deactivated by a service call, and activated again", deactivated, CALL_S),
    Fault("a dry run begins by a service call", dry_run, CALL_S, "dry run", mend=end_dry_run),
    Fault("SIGTERM of the guard, which is started again", ended(signal.SIGTERM), 0.1),
    Fault("SIGKILL of the guard, from its being started again", ended(signal.SIGKILL), 2 * TICK_S, kills=True),
)
"""Every fault, in the order of the page; faults with other `parameters` have another guard."""


def inflicted(fault: Fault, rig: Rig) -> float:
    """Make a rig drive, inflict a fault and mend it; return the time to zero torque at the arm's side, s.

    Raises:
        VjepaError: torque did not become zero or came back by itself, or the previous fault left a guard that cannot
            drive.
    """
    rig.driving()
    elapsed_s = rig.zero_after(fault.inflict(rig))
    if fault.states:
        rig.wait_for_message(fault.states)
    fault.mend(rig)
    rig.commander.send(rate_hz=50.0, values=TORQUE)
    if not fault.lets_go:
        rig.hand.send(rate_hz=20.0, values=(1,))
        rig.never_moves(STAYS_S)
    return elapsed_s


def measure(runs: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Inflict every fault `runs` times, and return the record; `say` is called with lines of progress."""
    times: dict[str, list[float]] = {fault.what: [] for fault in FAULTS}
    with tempfile.TemporaryDirectory(prefix="vjepa-bench-") as folder:
        for started, faults in itertools.groupby(FAULTS, lambda fault: fault.rig):
            with Rig(Path(folder), **started) as rig:
                for fault in faults:
                    times[fault.what] += [inflicted(fault, rig) for _ in range(runs)]
                    say(f"{fault.what}: {1e3 * max(times[fault.what]):.1f} ms")
    listed = [{"what": what, "zero_ms": 1e3 * zero_s} for what, found in times.items() for zero_s in found]
    return record("guard", figures(times), command_of("guard", runs=runs), [0], runs=listed)


def figures(times: Mapping[str, Sequence[float]]) -> list[Figure]:
    """Return the figures of the times by fault, s: the longest, with the median in the sample."""
    aims = {fault.what: fault.within_s for fault in FAULTS}
    return [
        Figure(
            f"guard: {what}",
            1e3 * max(found),
            "ms",
            f"the longest of {len(found)}, their median {1e3 * statistics.median(found):.1f} ms",
            1e3 * aims[what],
        )
        for what, found in times.items()
    ]
