"""What must be so before any test: MuJoCo's backend, signals, and how tests are spread over processes."""

import contextlib
import fcntl
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sim_bridge.gl import choose_gl_backend

# Before any test imports dm_control, whose import fixes the backend for the whole process.
choose_gl_backend()

# A shell's background jobs and nohup ignore these, and so would every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

REAL_TIME = "real_time"
PAGES = "tests/test_readme.py"
IN_TURN = "VJEPA_TEST_IN_TURN"
"""Set while a test runs, for the tests that it may start itself."""


def pytest_addoption(parser):
    """Add the option of `make test-faults`."""
    parser.addoption("--full-faults", action="store_true", help="run the fault suite in full size, not the short form")


def pytest_configure(config):
    """Name each test as soon as it fails: the report of them comes when the last one has ended, after many minutes."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_NamesFailures(config))


class _NamesFailures:
    def __init__(self, config):
        self._config = config

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self._config.get_terminal_writer().line(f"\n{report.nodeid} failed ({report.when})")


def pytest_collection_modifyitems(items):
    """Put tests of whole stacks first, since they are long."""
    items.sort(key=lambda item: not item.nodeid.startswith("tests/"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Spread files over processes, and not single tests, so that what the tests of a file share is made once.

    Of the pages of the documentation each is a file of its own.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file, _, test = nodeid.partition("::")
            return file + test.partition("[")[2] if file == PAGES else file

    return ByFile(config, log) if config.getoption("dist") == "loadscope" else None


@pytest.fixture(autouse=True, scope="module")
def _no_participant_left(participants):
    """Fail a file that leaves a DDS participant in this process: later tests would meet it in their domain."""
    before = participants()
    yield
    assert participants() <= before, "a node of this file lives on; expected every test and fixture to destroy its own"


@pytest.fixture(scope="session")
def participants():
    """Return a function that counts the DDS participants of this process: each has a thread for its events."""

    def count() -> int:
        found = 0
        for thread in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError):  # A thread may end meanwhile.
                found += (thread / "comm").read_text().startswith("dds.ev")
        return found

    return count


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    """Run a test of real time while no other test of this user runs, in this run of pytest or in another."""
    with _turn(alone=item.get_closest_marker(REAL_TIME) is not None):
        return (yield)


@contextlib.contextmanager
def _turn(alone: bool) -> Iterator[None]:
    """Wait for the turn of a test, and hold it while the context lasts: alone, or with others side by side.

    Nobody passes the gate while a test waits to be alone, so that its turn comes once the tests that run have ended.
    The locks are those of files, so that they hold between processes, and end with them.
    """
    if IN_TURN in os.environ:
        yield
        return
    folder, name = Path(tempfile.gettempdir()), f"vjepa-test-{os.getuid()}"
    with (folder / f"{name}.gate").open("w") as gate, (folder / f"{name}.turn").open("w") as turn:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(turn, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        os.environ[IN_TURN] = "1"
        try:
            yield
        finally:
            del os.environ[IN_TURN]
            fcntl.flock(turn, fcntl.LOCK_UN)
