"""Detection of a process that was forked after it had started threads that a fork does not copy.

A fork copies only the calling thread. In the child, torch's thread pool and OpenGL's driver have lost their threads,
and their first use hangs. Python forks by default on Linux before 3.14, and so does Gymnasium's `AsyncVectorEnv`.
"""

import os

from vjepa_interfaces.errors import VjepaError

_owners: dict[str, int] = {}
"""The id of the process that initialised a library, by the library's name."""


class ForkedError(VjepaError):
    """A forked child used a library that its parent process had initialised."""


def mark_initialised(what: str) -> None:
    """Record that the library `what` now has threads in this process, so that a forked child cannot use it.

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
