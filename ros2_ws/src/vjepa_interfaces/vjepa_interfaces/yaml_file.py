"""YAML files of people unknown: read as plain values, or refused in words."""

from pathlib import Path
from typing import Any

import yaml

from vjepa_interfaces.errors import VjepaError

MAX_BYTES = 4 * 1024 * 1024


class _PlainLoader(yaml.SafeLoader):
    """Of what `SafeLoader` takes, all but aliases: a few lines of them can stand for more values than memory holds."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias (*name), which ROS does not take either; write the value out")
        return super().compose_node(parent, index)


def read_yaml(path: Path | str, what: str, error: type[VjepaError] = VjepaError, aliases: bool = False) -> Any:
    """Return the plain values (mappings, lists, scalars) in the YAML file `path`.

    Args:
        path: may begin with the home folder's `~`.
        what: what the file is called in messages, as in `calibration`.
        error: the kind of error that is raised.
        aliases: whether it may have aliases; only for what is never walked through as a whole.

    Raises:
        VjepaError: of the kind `error`: no such file, one of more than `MAX_BYTES`, or not plain YAML in UTF-8.
    """
    file = Path(path).expanduser()
    try:
        if file.stat().st_size > MAX_BYTES:
            raise error(f"{what} {path} has {file.stat().st_size} bytes; expected at most {MAX_BYTES}")
        return yaml.load(file.read_text(encoding="utf-8"), yaml.SafeLoader if aliases else _PlainLoader)
    except RecursionError as reason:
        raise error(f"{what} {path} is not readable YAML: nested too deeply") from reason
    except (OSError, ValueError, TypeError, yaml.YAMLError) as reason:
        raise error(f"{what} {path} is not readable YAML: {reason}") from reason
