"""Which nodes, and which links: ``[0, "2..4", fast]`` and ``fast<->slow``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, PlainSerializer, PlainValidator, WithJsonSchema

from tidings.errors import ConfigError, nearest
from tidings_coordinator.experiment.section import Words, refuse

#: every node; not available as the name of a group
ALL = "all"

_RANGE = re.compile(r"(\d+)\s*\.\.\s*(\d+)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_ARROW = re.compile(r"\s*(<->|->)\s*")

#: one entry of a list of nodes: a node, a range "0..3", a group's name, or "all"
Item = int | str
Groups = Mapping[str, Sequence[int]]


def _read_item(value: object) -> Item:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str):
        text = value.strip()
        if text.isdecimal():
            return int(text)
        found = _RANGE.fullmatch(text)
        if found is not None and int(found[1]) <= int(found[2]):
            return f"{int(found[1])}..{int(found[2])}"
        if _NAME.fullmatch(text):
            return text
    raise ValueError(f"write a node such as 0, a range such as '0..3' or a group; got {value!r}")


def _read_nodes(value: object) -> tuple[Any, ...]:
    """The entries as written; ranges and names become nodes in :class:`Resolver`."""
    items = value if isinstance(value, list | tuple) else [value]
    if not items:
        raise ValueError("name at least one node")
    return tuple(map(_read_item, items))


def _read_links(text: str) -> str:
    parts = _ARROW.split(text.strip())
    ends = [_read_item(end) for end in parts[::2]]
    if len(ends) > 2 or (len(ends) == 1 and isinstance(ends[0], int)):
        raise ValueError(f"write links as '0<->1', '0->1', 'group' or 'all'; got {text!r}")
    return "".join(str(part) for part in [ends[0], *parts[1:2], *ends[1:]])


def _read_group_name(name: str) -> str:
    if name == ALL or not _NAME.fullmatch(name):
        raise ValueError(f"'{name}' cannot be the name of a group; use letters, digits, - and _")
    return name


_ITEM_SCHEMA = {
    "anyOf": [
        {"type": "integer", "minimum": 0},
        {"type": "string", "examples": ["0..3", "fast", ALL]},
    ]
}

#: nodes in ascending order, once the experiment has resolved ranges and groups
Nodes = Annotated[
    tuple[int, ...],
    Words("nodes"),
    PlainValidator(_read_nodes),
    PlainSerializer(list),
    WithJsonSchema(
        {"anyOf": [{"type": "array", "minItems": 1, "items": _ITEM_SCHEMA}, *_ITEM_SCHEMA["anyOf"]]}
    ),
]
#: links as written, e.g. "0<->1" (both directions), "0->fast", "fast" (all links inside)
Links = Annotated[
    str,
    AfterValidator(_read_links),
    WithJsonSchema({"type": "string", "examples": ["0<->1", "0->1", "fast<->slow", "fast", ALL]}),
]
GroupName = Annotated[str, AfterValidator(_read_group_name)]


class Resolver:
    """Finds the nodes that are meant, and collects what is wrong with how they are named."""

    def __init__(self, groups: Mapping[str, Sequence[Item]], nodes: int) -> None:
        self._groups = groups
        self._nodes = nodes
        self._errors: list[ConfigError] = []

    def nodes(self, items: Sequence[Item], *path: str | int) -> tuple[int, ...]:
        """The nodes that the entries of the list at ``path`` name, in ascending order."""
        found: set[int] = set()
        for index, item in enumerate(items):
            try:
                found |= self.members(item)
            except ValueError as error:
                self._errors.append(ConfigError(str(error), (*path, index)))
        return tuple(sorted(found))

    def check_links(self, links: str, *path: str | int) -> None:
        """Whether the links at ``path`` are some, between nodes that are there."""
        try:
            self.require_links(links)
        except ValueError as error:
            self._errors.append(ConfigError(str(error), path))

    def require_links(self, links: str) -> None:
        """ValueError where these are no links between nodes that are there."""
        for ends in _directions(links):
            if len(self.members(ends[0]) | self.members(ends[1])) < 2:
                raise ValueError(f"'{links}' is no link: it has one node only")

    def finish(self) -> None:
        """Raise what was found wrong."""
        refuse(self._errors)

    def members(self, item: Item, within: tuple[Item, ...] = ()) -> set[int]:
        """The nodes that one entry names; ValueError where there are none such."""
        if item == ALL:
            return set(range(self._nodes))
        ends = _ends(item)
        if ends is not None:
            if ends[1] >= self._nodes:
                raise ValueError(f"there is no node {ends[1]}; nodes are 0 to {self._nodes - 1}")
            return set(range(ends[0], ends[1] + 1))
        if item in within:
            raise ValueError(f"the group '{item}' contains itself")
        if item not in self._groups:
            raise ValueError(f"unknown group '{item}'; {nearest(str(item), [*self._groups, ALL])}")
        entries = self._groups[str(item)]
        return {node for entry in entries for node in self.members(entry, (*within, item))}


def selects(links: str, groups: Groups, source: int, target: int) -> bool:
    """Whether the directed link from ``source`` to ``target`` is among ``links``."""
    return any(
        _holds(start, groups, source) and _holds(end, groups, target)
        for start, end in _directions(links)
    )


def _directions(links: str) -> list[tuple[Item, Item]]:
    """Sources and targets, for both ways where there are two."""
    start, arrow, end = (*_ARROW.split(links), "", links)[:3]
    pair = (_read_item(start), _read_item(end))
    return [pair, pair[::-1]] if arrow == "<->" else [pair]


def _holds(item: Item, groups: Groups, node: int) -> bool:
    ends = _ends(item)
    if ends is not None:
        return ends[0] <= node <= ends[1]
    return item == ALL or node in groups[str(item)]


def _ends(item: Item) -> tuple[int, int] | None:
    """First and last node of a number or a range, None for a name."""
    if isinstance(item, int):
        return item, item
    found = _RANGE.fullmatch(item)
    return (int(found[1]), int(found[2])) if found else None
