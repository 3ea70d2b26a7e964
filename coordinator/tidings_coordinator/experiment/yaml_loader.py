"""Strict YAML: the scalars of YAML 1.2, no key twice, and the line of every key and value.

PyYAML reads YAML 1.1, in which ``on`` is true, ``1e-3`` is text, ``12:30`` is 750 and ``010`` is 8.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

#: keys and list indices from the root of the file
Path = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
_MERGE = _TAG + "merge"
#: what a scalar without quotes is: tag, pattern, first characters ("" for the empty scalar)
_SCALARS: list[tuple[str, str, list[str]]] = [
    ("bool", r"true|false", list("tf")),
    ("null", r"null|~|", ["n", "~", ""]),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
]


@dataclass(frozen=True)
class Place:
    """Where something is written; both count from 1."""

    line: int
    column: int


@dataclass(frozen=True)
class Document:
    """What a text says, and where it says it."""

    value: Any
    #: where the key with that path is written
    keys: dict[Path, Place] = field(default_factory=dict)
    #: where the value with that path begins
    values: dict[Path, Place] = field(default_factory=dict)
    #: keys after which nothing is written, not even "null"
    empty: list[Path] = field(default_factory=list)

    def line(self, path: Path) -> int | None:
        """The line of the key or list entry at ``path``, or of the nearest one around it."""
        for end in range(len(path), 0, -1):
            place = self.keys.get(path[:end]) or self.values.get(path[:end])
            if place is not None:
                return place.line
        return None


class YamlError(Exception):
    """A text that cannot be read, with the line and the path where reading ended."""

    def __init__(self, message: str, line: int, path: Path = ()) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.path = path


def add_scalars(cls: Any) -> None:
    """Make a PyYAML loader or dumper resolve the scalars of our table too."""
    for tag, pattern, first in _SCALARS:
        cls.add_implicit_resolver(_TAG + tag, re.compile(rf"(?:{pattern})\Z"), first)


class _Loader(yaml.SafeLoader):
    """PyYAML's own loader without its idea of scalars."""


_Loader.yaml_implicit_resolvers = {}
add_scalars(_Loader)


def parse(text: str) -> Document:
    """Read one YAML document; YamlError where that is not possible."""
    try:
        node = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = ", ".join(part for part in (error.context, error.problem) if part)
        raise YamlError(f"not valid YAML: {said}", mark.line + 1 if mark else 1) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        code = ord(error.character) if isinstance(error.character, str) else error.character
        raise YamlError(f"not valid YAML: the character U+{code:04X} is not text", line) from error
    except RecursionError as error:
        raise YamlError("not valid YAML here: nested too deeply", 1) from error
    document = Document(None)
    if node is None:
        return document
    return Document(
        _Reader(document).value(node, ()), document.keys, document.values, document.empty
    )


class _Reader:
    """Turns PyYAML's nodes into values and takes down their places."""

    def __init__(self, document: Document) -> None:
        self._document = document
        #: the collections around the node that is being read, against ``&a [*a]``
        self._open: list[yaml.Node] = []

    def value(self, node: yaml.Node, path: Path) -> Any:
        """The value of a node at ``path``."""
        self._document.values[path] = _place(node)
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node, path)
        if node in self._open:
            raise YamlError("an alias may not stand inside its own anchor", _place(node).line, path)
        if node.tag not in (_TAG + "map", _TAG + "seq"):
            raise _unknown_tag(node, path)
        self._open.append(node)
        if isinstance(node, yaml.SequenceNode):
            found: Any = [self.value(item, (*path, i)) for i, item in enumerate(node.value)]
        else:
            found = {}
            for key, (key_node, value_node) in self._pairs(node, path).items():
                self._document.keys[(*path, key)] = _place(key_node)
                if value_node.tag == _TAG + "null" and not value_node.value:
                    self._document.empty.append((*path, key))
                found[key] = self.value(value_node, (*path, key))
        self._open.pop()
        return found

    def _pairs(self, node: yaml.Node, path: Path) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """A mapping's own pairs over those of its merge keys, of which the first one wins."""
        own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        merged: list[tuple[yaml.Node, int]] = []
        for key_node, value_node in node.value:
            line = _place(key_node).line
            if key_node.tag == _MERGE:
                several = isinstance(value_node, yaml.SequenceNode)
                sources = value_node.value if several else [value_node]
                merged += [(source, line) for source in sources]
                continue
            key = _scalar(key_node, path) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                raise YamlError("a key must be text; put it in quotes", line, path)
            if key in own:
                first = _place(own[key][0]).line
                raise YamlError(
                    f"this key is here twice, first on line {first}", line, (*path, key)
                )
            own[key] = (key_node, value_node)
        inherited: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for source, line in reversed(merged):
            if not isinstance(source, yaml.MappingNode) or source in self._open:
                raise YamlError("'<<' takes another mapping, or a list of them", line, path)
            self._open.append(source)
            inherited |= self._pairs(source, path)
            self._open.pop()
        return inherited | own


def _place(node: yaml.Node) -> Place:
    return Place(node.start_mark.line + 1, node.start_mark.column + 1)


def _unknown_tag(node: yaml.Node, path: Path) -> YamlError:
    tag = node.tag.replace(_TAG, "!!")
    return YamlError(f"the tag {tag} has no meaning here", _place(node).line, path)


def _scalar(node: yaml.ScalarNode, path: Path) -> Any:
    text = str(node.value)
    match node.tag.removeprefix(_TAG):
        case "str" | "merge":
            return text
        case "null" if text in ("null", "~", ""):
            return None
        case "bool" if text in ("true", "false"):
            return text == "true"
        case "int" | "float" as kind:
            convert = int if kind == "int" else float
            try:
                return convert(re.sub(r"\.(?=inf|nan)", "", text))
            except ValueError:
                raise YamlError(f"'{text}' is not a number", _place(node).line, path) from None
    raise _unknown_tag(node, path)
