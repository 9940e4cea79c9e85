"""Reading YAML that anyone may have written: plain values, every key once, of bounded size."""

import math
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode

from nas.errors import StudyError
from searchspaces.support.errors import reason
from searchspaces.support.reading import read_text

_BYTES = 1 << 17
_DEPTH = 32  # of values in values
_KINDS = ("null", "bool", "int", "float", "str", "seq", "map")
_NODES = 20_000  # values and keys, those that aliases stand for counted each time


def read_yaml(path: Path, *, remedy: str) -> str:
    """Return the text of a YAML file.

    Raises:
        StudyError: It is missing, no regular file, larger than 128 KiB or no UTF-8 text.
    """
    return read_text(path, error=StudyError, remedy=remedy, at_most=_BYTES)


def parse_yaml(text: str, what: str) -> Any:
    """Return what YAML text holds: mappings, lists, text, finite numbers, booleans, None.

    Args:
        text: The text.
        what: What it is, as a sentence begins: "The study file 'a.yaml'".

    Raises:
        StudyError: It is no YAML or has tags, a key stands twice, or it is too long or deep.
    """
    try:
        if len(text) > _BYTES:
            raise yaml.YAMLError(f"it is longer than {_BYTES:,} characters")
        return _Loader(text).get_single_data()
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise StudyError(f"{what} is not valid YAML: {_problem(error)}.") from error


def _problem(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem} in line {error.problem_mark.line + 1}"
    return reason(error)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with limits; dates are text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (as in the class above)
        first: [(tag, pattern) for tag, pattern in known if tag != "tag:yaml.org,2002:timestamp"]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {  # noqa: RUF012
        tag: make
        for tag, make in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in _KINDS
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """Compose a value, and count what it holds."""
        again = self.check_event(yaml.AliasEvent)
        self._depth += 1
        if self._depth > _DEPTH:
            raise yaml.YAMLError(f"it is more than {_DEPTH} levels deep")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(node, Node):
            if again and id(node) not in self._sizes:
                raise yaml.YAMLError("a value holds itself")
            size = self._sizes.setdefault(id(node), self._size(node))
            if max(size, len(self._sizes)) > _NODES:
                raise yaml.YAMLError(f"it holds more than {_NODES:,} values")
        return node

    def _size(self, node: Node) -> int:
        inner: list[Node] = []
        if isinstance(node, ScalarNode):
            _check_text(node)
        if isinstance(node, MappingNode):
            _check_keys(node)
            inner = [each for pair in node.value for each in pair]
        elif isinstance(node, CollectionNode):
            inner = node.value
        return 1 + sum(self._sizes[id(each)] for each in inner)

    def construct_yaml_float(self, node: ScalarNode) -> float:
        """Construct a number that is one."""
        value = super().construct_yaml_float(node)
        if not math.isfinite(value):
            raise ConstructorError(None, None, f"'{node.value}' is no number", node.start_mark)
        return value


_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


def _check_text(node: ScalarNode) -> None:
    """Refuse half of a surrogate pair, which an escape can make and no file can hold."""
    try:
        node.value.encode()
    except UnicodeEncodeError as error:
        raise ConstructorError(None, None, "a text is no UTF-8", node.start_mark) from error


def _check_keys(node: MappingNode) -> None:
    """Refuse keys that are no plain text or number, and a key that stands twice."""
    seen: set[tuple[str, str]] = set()
    for key, _ in node.value:
        if not isinstance(key, ScalarNode):
            raise ConstructorError(None, None, "a key is no text", key.start_mark)
        if (key.tag, key.value) in seen:
            raise ConstructorError(
                None, None, f"the key '{key.value}' stands there twice", key.start_mark
            )
        seen.add((key.tag, key.value))
