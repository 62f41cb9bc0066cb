"""Stages of long commands: commands of `vjepa` that each make an output, run one after another in this process.

Callers leave out stages with whole outputs, so a killed command continues when it is run again.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from vjepa_bringup.interrupts import interruptible
from vjepa_cli.actions import Command
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.json_text import read_json


def is_whole(path: Path) -> bool:
    """Return whether a dataset, a bundle or a JSON result exists; each appears only when it is whole.

    A folder of online rounds exists from its beginning; a result of the rounds shows that they are done. A result of an
    interrupted evaluation is not whole.
    """
    if path.suffix != ".json":
        return any((path / file).is_file() for file in ("info.json", "config.json", "rounds.json"))
    try:
        return not read_json(path).get("interrupted", False)
    except VjepaError:
        return False


def run_stage(command: Command, makes: Sequence[Path], of: str, again: str) -> None:
    """Run a command, and check that it makes its outputs.

    Args:
        command: command of the stage.
        makes: paths of outputs that are whole at its end.
        of: the owner of the stage, for messages.
        again: the command that continues from here, for messages.

    Raises:
        VjepaError: the command failed, or an output is missing.
        KeyboardInterrupt: this process was interrupted.
    """
    print(command.line, flush=True)
    try:
        with interruptible() as interrupts, _own_threads(), interrupts.let_in():
            command.run()
    except VjepaError as error:
        raise VjepaError(
            f"{of} failed at this command: {command.line}: {error}; without the cause, the same {again} continues here"
        ) from error
    absent = [str(path) for path in makes if not is_whole(path)]
    if absent:
        raise VjepaError(f"{of}: this command did not make {', '.join(absent)}: {command.line}")


@contextlib.contextmanager
def _own_threads() -> Iterator[None]:
    """Restore torch's number of threads: a stage that loads an encoder sets it for the whole process."""
    import torch

    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
