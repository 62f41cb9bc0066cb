"""The one reader of YAML: plain values of bounded size, from files of unknown origin."""

from pathlib import Path
from typing import Any

import yaml

from vjepa_interfaces.errors import VjepaError

MAX_BYTES = 4 * 1024 * 1024
MAX_NODES = 200_000
"""The most values in a file, with every alias counted; the metadata of a bag of ten thousand files has fewer."""
MAX_DEPTH = 100


_MERGE = "tag:yaml.org,2002:merge"


class YamlLimitError(yaml.YAMLError):
    """YAML that is well-formed, but expands to more values than a bound allows."""


class YamlDuplicateError(yaml.YAMLError):
    """YAML in which a name occurs twice in the same mapping, so that one of the two would be lost."""


class _BoundedLoader(yaml.SafeLoader):
    """`SafeLoader` with bounds on depth and on the number of values, aliases expanded; names are unique in a mapping.

    YAML forbids a repeated name. PyYAML keeps the last one, and ROS joins the two; neither reports it.
    """

    def __init__(self, stream: str):
        super().__init__(stream)
        self._count = self._depth = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            node = super().compose_node(parent, index)
            self._add(self._sizes.get(id(node), MAX_NODES))  # A node that contains itself has no size.
            return node
        before = self._count
        self._add(1)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise YamlLimitError(f"it is nested deeper than {MAX_DEPTH} levels")
        node = super().compose_node(parent, index)
        self._depth -= 1
        self._sizes[id(node)] = self._count - before
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue  # Such a key is refused later.
            key = key_node.value if key_node.tag == _MERGE else self.construct_object(key_node)
            line = key_node.start_mark.line + 1
            if key in lines:
                raise YamlDuplicateError(
                    f"'{key}' stands twice, in lines {lines[key]} and {line}; write one, with all that belongs to it"
                )
            lines[key] = line
        return node

    def _add(self, values: int) -> None:
        self._count += values
        if self._count > MAX_NODES:
            raise YamlLimitError(f"it stands for more than {MAX_NODES} values")


class _PlainLoader(_BoundedLoader):
    """The same for files of settings: without aliases, as ROS reads them."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias (*name), which ROS does not take either; write the value out")
        return super().compose_node(parent, index)


def parse_yaml(text: str, aliases: bool = False) -> Any:
    """Return the plain values (mappings, lists, scalars) in a YAML `text`; see `read_yaml`.

    Args:
        text: the YAML document.
        aliases: whether it may have aliases.

    Raises:
        YamlLimitError: it expands to more than the bounds allow.
        YamlDuplicateError: a name occurs twice in a mapping.
        yaml.YAMLError: it is not plain YAML.
    """
    if len(text) > MAX_BYTES:
        raise YamlLimitError(f"it has {len(text)} characters; expected at most {MAX_BYTES}")
    try:
        return yaml.load(text, _BoundedLoader if aliases else _PlainLoader)
    except RecursionError as reason:
        raise YamlLimitError("it is nested too deeply") from reason
    except (ValueError, TypeError, AttributeError, KeyError) as reason:
        # A tag such as a date's has another kind of value, or a key is a list.
        raise yaml.YAMLError(f"a value does not match its tag: {reason}") from reason


def read_yaml(path: Path | str, what: str, error: type[VjepaError] = VjepaError, aliases: bool = False) -> Any:
    """Return the plain values (mappings, lists, scalars) in the YAML file `path`.

    Args:
        path: the file; it may begin with the home folder's `~`.
        what: the name of the file in messages, such as `calibration`.
        error: the class of the error that is raised.
        aliases: whether it may have aliases, like files of other programs; their values count each time.

    Raises:
        VjepaError: of the class `error`: the file does not exist, or is not plain YAML in UTF-8. The cause is a
            `YamlLimitError` if it is too large, too deep, or expands to too many values. The cause is a
            `YamlDuplicateError` if a name occurs twice; the message has the name and both lines.
    """
    file = Path(path).expanduser()
    try:
        with open(file, "rb") as stream:
            content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise YamlLimitError(f"it has more than {MAX_BYTES} bytes")
        return parse_yaml(content.decode("utf-8"), aliases)
    except FileNotFoundError as reason:
        raise error(f"there is no {what} {path}; see that the path is right, seen from {Path.cwd()}") from reason
    except (OSError, ValueError, yaml.YAMLError) as reason:
        raise error(f"{what} {path} is not readable YAML: {reason}") from reason
