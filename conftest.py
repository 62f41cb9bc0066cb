"""What must be so before any test: MuJoCo's OpenGL backend and the signals that what tests start inherits."""

import signal

from sim_bridge.gl import choose_gl_backend

# Before any test imports dm_control, whose import fixes the backend for the whole process.
choose_gl_backend()

# A shell's background jobs and nohup ignore these, and so would every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_addoption(parser):
    """Add the option of `make test-faults`."""
    parser.addoption("--full-faults", action="store_true", help="run the fault suite in full size, not the short form")
