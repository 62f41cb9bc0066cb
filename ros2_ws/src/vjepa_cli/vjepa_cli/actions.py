"""The actions of the command line by name, and `Command`: an action with its options."""

import importlib
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from vjepa_cli.command_line import Action, read_config, stated, words_of
from vjepa_cli.commands import COMMANDS
from vjepa_interfaces.errors import unknown_name


class CommandRecord(TypedDict):
    """The entries of a result about its command: `kind` and `config` for `command_of`, and `command` for people."""

    kind: str
    config: dict[str, Any]
    command: str


@dataclass(frozen=True)
class Command:
    """An action with its options.

    Attributes:
        kind: name of the action, such as `train bc`.
        arguments: an instance of the dataclass of its options.
    """

    kind: str
    arguments: Any

    @classmethod
    def of(cls, arguments: Any) -> "Command":
        """Return the command of these options; the module of their dataclass also contains its action, in `ACTIONS`."""
        actions: dict[str, Action] = sys.modules[type(arguments).__module__].__dict__["ACTIONS"]
        return cls(next(kind for kind, action in actions.items() if action.config_class is type(arguments)), arguments)

    @property
    def function(self) -> Callable[[Any], int]:
        """The function of the action; it takes the options and returns the exit status."""
        return action_of(self.kind).function

    @property
    def config(self) -> dict[str, Any]:
        """The options that are not at their defaults, by field, in plain values."""
        return stated(action_of(self.kind), self.arguments)

    @property
    def line(self) -> str:
        """The command line of this command, such as `vjepa train bc --data DS --out BUNDLE`."""
        return shlex.join(["vjepa", *self.kind.split(), *words_of(action_of(self.kind), self.config)])

    @property
    def record(self) -> CommandRecord:
        """The entries of a result."""
        return {"kind": self.kind, "config": self.config, "command": self.line}

    def run(self) -> int:
        """Run the action and return its exit status."""
        return self.function(self.arguments)


def actions_of(command: str) -> dict[str, Action]:
    """Return the actions of a `command` of `COMMANDS`, by name. Only the module of this command is imported."""
    module = importlib.import_module(f"vjepa_cli.commands.{COMMANDS[command][0]}")
    return {name: action for name, action in module.ACTIONS.items() if name.split()[0] == command}


def action_of(kind: str) -> Action:
    """Return the action of a name, such as `train bc`.

    Raises:
        VjepaError: no action has this name; the message lists the valid names.
    """
    command = kind.partition(" ")[0]
    if command not in COMMANDS:
        raise unknown_name("kind", kind, COMMANDS)
    actions = actions_of(command)
    if kind not in actions:
        raise unknown_name("kind", kind, actions)
    return actions[kind]


def command_of(kind: str, config: Mapping[str, Any]) -> Command:
    """Return the command of an action and a config.

    Args:
        kind: name of an action.
        config: options of the action by field, with a list for a tuple; missing options keep their defaults.

    Raises:
        VjepaError: the kind or an option is unknown, an option cannot have its value, or a required option is missing.
    """
    return Command(kind, read_config(action_of(kind), config, kind))
