"""The largest memory of this process, for tests of what a file may cost."""

from pathlib import Path


def peak_bytes(reset: bool = False) -> int:
    """Return the largest resident size of this process since the last reset, bytes."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
