"""Do work in several processes: results as they come, a new process for one that died, and clean interruptions."""

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, cast

from vjepa_interfaces.errors import VjepaError
from vjepa_perception.encoder import EncoderConfig, copies_in_memory

MAX_RESTARTS = 3
"""Number of times that a worker is restarted after it died."""

_INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM)

Send = Callable[[int, Any], None]
"""Sends a unit of work and its result to the parent process."""

Work = Callable[[int, Sequence[int], Send], None]
"""Does units of work, given the number of the worker."""


def default_workers(encoder: EncoderConfig | None) -> int:
    """Return how many workers this machine can run: one for each core, fewer if threads or memory do not suffice.

    Args:
        encoder: the encoder that each worker loads, with its number of threads; None for none.

    Raises:
        VjepaError: there is no such encoder, or it cannot run.
    """
    cores = len(os.sched_getaffinity(0))
    if encoder is None:
        return cores
    threads = encoder.threads or cores  # 0 threads are torch's choice: all cores.
    return max(1, min(cores // threads, copies_in_memory(encoder)))


def run_workers(
    work: Work, units: Sequence[int], workers: int, on_result: Callable[[int, Any], None], advice: str
) -> None:
    """Do all `units` of a work in processes, and return when they are done.

    Worker w does the units at the positions w, w + `workers`, and so on, in order. If it dies, a new process does those
    of its units whose results are missing.

    Args:
        work: the work, called in each process; a function of a module, or a `functools.partial` of one. It sends the
            result of each unit.
        units: numbers of the units.
        workers: largest number of processes.
        on_result: called in this process with each unit and its result, in the order of their arrival.
        advice: what to do if a worker dies again and again, for the message.

    Raises:
        VjepaError: a worker refused its work, failed or died too often.
    """
    context = multiprocessing.get_context("spawn")
    missing = {worker: list(units[worker::workers]) for worker in range(min(workers, len(units)))}
    restarts = dict.fromkeys(missing, 0)
    running: dict[Connection, tuple[Any, int]] = {}

    def start(worker: int) -> None:
        ours, theirs = context.Pipe(duplex=False)
        arguments = (work, worker, tuple(missing[worker]), theirs)
        process = context.Process(target=_run, args=arguments, daemon=True)
        with _no_interruption():
            process.start()
            running[ours] = process, worker
        theirs.close()

    try:
        for worker in missing:
            start(worker)
        while running:
            for ready in wait(list(running)):
                connection = cast(Connection, ready)
                process, worker = running[connection]
                try:
                    message = connection.recv()
                except (EOFError, OSError):  # It died, maybe in the middle of a message.
                    message = None
                if isinstance(message, tuple):
                    unit, result = message
                    missing[worker].remove(unit)
                    on_result(unit, result)
                    continue
                del running[connection]
                process.join()
                if isinstance(message, str):
                    raise VjepaError(message)
                if process.exitcode == 0:
                    continue
                restarts[worker] += 1
                if restarts[worker] > MAX_RESTARTS:
                    raise VjepaError(
                        f"worker {worker} died {restarts[worker]} times, at last with exit status {process.exitcode}; "
                        f"{advice}"
                    )
                start(worker)
    finally:
        for process, _ in running.values():
            process.terminate()
            process.join()


@contextlib.contextmanager
def _no_interruption() -> Iterator[None]:
    """Let an interruption wait until a worker is started; the worker itself lets it wait until `_run`."""
    waiting: list[int] = []
    ours = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.signal(number, lambda n, _: waiting.append(n)) for number in _INTERRUPTIONS if ours}
    resource_tracker.ensure_running()  # Its start unblocks signals, and the start of a worker would start it.
    signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTIONS)  # A process begins with the mask of what starts it.
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPTIONS)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for interruption in waiting:
            signal.raise_signal(interruption)


def _run(work: Work, worker: int, units: tuple[int, ...], connection: Connection) -> None:
    """Do the units in a process of its own; send a refusal or a traceback as text."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent ends its workers.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPTIONS)
    try:
        work(worker, units, lambda unit, result: connection.send((unit, result)))
    except BrokenPipeError:
        return  # The parent has ended.
    except VjepaError as error:
        connection.send(str(error))
    except Exception:
        connection.send(f"worker {worker} failed: {traceback.format_exc()}")
