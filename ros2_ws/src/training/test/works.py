"""Work for the tests of `workers`: in a module of its own, because processes import it by its name."""

import os
from multiprocessing import connection


def square(worker, units, send):
    for unit in units:
        send(unit, (worker, unit**2))


def die_once_at(unit_to_die, folder, worker, units, send):
    for unit in units:
        mark = folder / "died"
        if unit == unit_to_die and not mark.exists():
            mark.touch()
            os._exit(7)
        send(unit, (worker, unit**2))


def die(worker, units, send):
    os._exit(7)


def fail(worker, units, send):
    raise ValueError(f"units {units}")


def die_once_while_sending(folder, worker, units, send):
    """Send the first half of a message and die, and do the work if that has happened."""
    if not (folder / "died").exists():
        (folder / "died").touch()
        connection.Connection._send = lambda self, data: os._exit(os.write(self.fileno(), bytes(data)[:2]))
    for unit in units:
        send(unit, unit * unit)
