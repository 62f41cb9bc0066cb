"""The one base class of errors that a user can act on."""

from collections.abc import Iterable


class VjepaError(Exception):
    """Something a user can put right: the message says what was wrong, what was expected and what to do.

    Command lines print the message alone; nodes log it and refuse the transition, the parameter or the message.
    """


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> VjepaError:
    """Return the error for a `name` that is not one of the `valid` names of a `kind` of thing."""
    return VjepaError(f"unknown {kind} '{name}'; valid are: {', '.join(sorted(valid)) or '(none)'}")
