"""Steps of long commands: commands of `vjepa` that each make something, run as processes of their own.

Whoever takes steps leaves out those whose makings are whole, so that what was killed goes on with the same command.
"""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from vjepa_bringup.interrupts import interruptible
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.json_text import read_json

INTERRUPTED = 130


def is_whole(path: Path) -> bool:
    """Return whether a dataset, a bundle or a JSON result is there: each is written so that it is whole once it is.

    A folder of online rounds is there from its beginning; a result of theirs says that they are done.
    """
    if path.suffix != ".json":
        return any((path / file).is_file() for file in ("info.json", "config.json", "rounds.json"))
    try:
        read_json(path)
    except VjepaError:
        return False
    return True


def take_step(arguments: Sequence[str], makes: Sequence[Path], of: str, again: str) -> None:
    """Run `vjepa` with `arguments`, and see that it makes what it should.

    Args:
        arguments: of the command line.
        makes: paths that are whole at its end.
        of: what it is a step of, for messages.
        again: the command that goes on from here, for messages.

    Raises:
        VjepaError: it failed, or made something else.
        KeyboardInterrupt: it was interrupted, or this process was.
    """
    command = shlex.join(["vjepa", *arguments])
    print(command, flush=True)
    status = run_command([sys.executable, "-P", "-m", "vjepa_cli.cli", *arguments])
    if status == INTERRUPTED:
        raise KeyboardInterrupt
    if status:
        raise VjepaError(
            f"{of} ended at this command, with status {status}; its message is above. Once the cause is gone the same "
            f"{again} goes on from here: {command}"
        )
    absent = [str(path) for path in makes if not is_whole(path)]
    if absent:
        raise VjepaError(f"{of} says that this command makes {', '.join(absent)}: {command}")


def run_command(command: list[str]) -> int:
    """Run a command and return its status; it ends with this process, however that ends.

    Raises:
        KeyboardInterrupt: this process was interrupted; the command has ended.
    """
    with interruptible() as interrupts:
        process = subprocess.Popen(["setpriv", "--pdeathsig", "TERM", "--", *command], stdin=subprocess.DEVNULL)
        try:
            with interrupts.let_in():
                return process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
