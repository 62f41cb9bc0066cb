"""Calls to a lifecycle node that repeat lost requests and give up after a timeout, without ROS.

DDS loses messages until both ends have discovered each other. A node may also die and start again before it answers.
"""

from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol

from vjepa_bringup.stack_goal import ACTIVE, INACTIVE, UNCONFIGURED

STATE_TIMEOUT_S = 2.0
STATE_RETRY_S = 0.2
"""Seconds after which a request for the state is repeated."""

CHECK_S = 0.5
"""Seconds between requests for the state during a transition. A node answers only if it is not in a transition."""

SETTLED = (UNCONFIGURED, INACTIVE, ACTIVE)


class Answer(Protocol):
    """The future that `call_async` of a ROS client returns."""

    def done(self) -> bool:
        """Return whether the answer has arrived."""

    def result(self) -> Any:
        """Return the response."""

    def cancel(self) -> None:
        """Stop waiting."""


class Outcome(Enum):
    """The outcome of a call."""

    SUCCEEDED = "succeeded"
    REFUSED = "refused"
    TOO_LATE = "too late"
    LOST = "lost"
    GONE = "gone"


class StateCall:
    """Requests a node's state repeatedly until an answer arrives.

    Attributes:
        state: the node's primary state, after `poll` returned `SUCCEEDED`.
    """

    def __init__(self, ask: Callable[[], Answer], is_ready: Callable[[], bool], now_s: float):
        """Send the first request.

        Args:
            ask: sends a `GetState` request.
            is_ready: returns whether the node's service exists.
            now_s: steady time, seconds.
        """
        self.state = 0
        self._ask, self._is_ready = ask, is_ready
        self._answers = [ask()]
        self._asked_s, self._deadline_s = now_s, now_s + STATE_TIMEOUT_S

    def poll(self, now_s: float) -> Outcome | None:
        """Return the outcome of the call at `now_s`, or None while it waits; `GONE` after a timeout."""
        for answer in self._answers:
            if answer.done():
                self.state = answer.result().current_state.id
                return Outcome.SUCCEEDED
        if now_s >= self._deadline_s:
            return Outcome.GONE
        if now_s - self._asked_s >= STATE_RETRY_S and self._is_ready():
            self._answers.append(self._ask())
            self._asked_s = now_s
        return None

    def close(self) -> None:
        """Cancel all requests, because a client keeps unanswered ones."""
        for answer in self._answers:
            answer.cancel()


class TransitionCall:
    """Waits for a node's transition, and meanwhile requests its state.

    Attributes:
        name: name of the transition.
    """

    def __init__(
        self,
        name: str,
        answer: Answer,
        ask_state: Callable[[], Answer],
        is_ready: Callable[[], bool],
        now_s: float,
        timeout_s: float,
    ):
        """Begin to wait for the answer to a requested transition.

        Args:
            name: name of the transition.
            answer: answer to the `ChangeState` request.
            ask_state: sends a `GetState` request.
            is_ready: returns whether the node's service exists.
            now_s: steady time, seconds.
            timeout_s: longest time of the transition, seconds.
        """
        self.name = name
        self._answer, self._ask_state, self._is_ready = answer, ask_state, is_ready
        self._check: Answer | None = None
        self._checked_s, self._deadline_s = now_s, now_s + timeout_s
        self._settled = 0

    def poll(self, now_s: float) -> Outcome | None:
        """Return the outcome of the call at `now_s`, or None while it waits."""
        if self._answer.done():
            return Outcome.SUCCEEDED if self._answer.result().success else Outcome.REFUSED
        if not self._is_ready():
            return Outcome.GONE
        if self._is_lost(now_s):
            return Outcome.LOST
        return Outcome.TOO_LATE if now_s >= self._deadline_s else None

    def _is_lost(self, now_s: float) -> bool:
        """Request the node's state at intervals, and return whether it answered twice that it is in no transition."""
        if self._check is not None and self._check.done():
            is_settled = self._check.result().current_state.id in SETTLED
            self._check, self._settled = None, self._settled + 1 if is_settled else 0
        if now_s - self._checked_s >= CHECK_S:
            self._cancel_check()
            self._check, self._checked_s = self._ask_state(), now_s
        return self._settled == 2

    def close(self) -> None:
        """Cancel all requests, because a client keeps unanswered ones."""
        self._answer.cancel()
        self._cancel_check()

    def _cancel_check(self) -> None:
        if self._check is not None:
            self._check.cancel()
