"""The one base class of errors that a user can act on."""

from collections.abc import Iterable


class VjepaError(Exception):
    """An error that a user can fix: the message states what was wrong, what was expected and what to do.

    Command lines print only the message. Nodes log it and refuse the transition, the parameter or the message.
    """


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> VjepaError:
    """Return the error for a `name` that is not among the `valid` names, such as those of the `kind` 'planner'."""
    return VjepaError(f"unknown {kind} '{name}'; valid are: {', '.join(sorted(valid)) or '(none)'}")
