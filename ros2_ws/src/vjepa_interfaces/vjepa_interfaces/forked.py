"""Detection of a process that was forked after it had started threads that a fork does not copy.

A fork copies the calling thread alone. The thread pool of torch and the driver of OpenGL are then there without their
threads, and the first use of them in the child waits for ever. Python forks by default on Linux before 3.14, and so
does Gymnasium's `AsyncVectorEnv`.
"""

import os

from vjepa_interfaces.errors import VjepaError

_owners: dict[str, int] = {}
"""The process in which something was initialised, by its name."""


class ForkedError(VjepaError):
    """Something that a parent process had initialised was to be used in its forked child."""


def mark_initialised(what: str) -> None:
    """State that `what` now has threads in this process, so that a fork of it can use `what` no more.

    Raises:
        ForkedError: as `refuse_fork`.
    """
    refuse_fork(what)
    _owners[what] = os.getpid()


def refuse_fork(what: str) -> None:
    """Refuse to use `what` in a child of the process that initialised it.

    Raises:
        ForkedError: this process was forked from one that had initialised `what`.
    """
    owner = _owners.get(what, os.getpid())
    if owner != os.getpid():
        raise ForkedError(
            f"process {os.getpid()} was forked from process {owner}, which had used {what} already: it would wait for "
            "ever; start processes by 'spawn' or 'forkserver', such as AsyncVectorEnv(..., context='spawn') or "
            "multiprocessing.get_context('spawn'), or use a SyncVectorEnv"
        )
