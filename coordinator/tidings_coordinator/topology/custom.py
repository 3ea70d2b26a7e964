"""The user's own graph."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tidings.registry import LocalPath
from tidings_coordinator.topology.base import Topology, topologies
from tidings_coordinator.topology.graph import Graph

_EDGE = re.compile(r"\s*(\d+)\s*(<->|->)\s*(\d+)\s*")
_PAIR = re.compile(r"\s*(\d+)\s+(\d+)\s*")


@topologies.register("custom")
@dataclass(frozen=True)
class Custom(Topology):
    """The user's own graph: a list of edges, or a file with one a line.

    ``0<->1`` is an edge, ``0->1`` an arc. As soon as there is one arc, the graph is directed, and
    each edge stands for two arcs. In a file ``0 1`` is an edge too, and # begins a comment.
    """

    edges: tuple[str, ...] = ()
    file: LocalPath | None = None

    def __post_init__(self) -> None:
        if bool(self.edges) == bool(self.file):
            raise ValueError("give either 'edges' or 'file'")
        for number, edge in enumerate(self.edges, 1):
            _parse(edge, f"edge {number}")

    def graphs(self, nodes: int, rng: np.random.Generator) -> Sequence[Graph]:
        """The graph; ValueError for a node that does not exist or a file that cannot be read."""
        pairs = [_parse(text, place) for text, place in self._texts()]
        arcs = {(i, j) for i, j, _ in pairs}
        arcs |= {(j, i) for i, j, one_way in pairs if not one_way}
        return [Graph(nodes, frozenset(arcs), any(one_way for _, _, one_way in pairs))]

    def _texts(self) -> Iterable[tuple[str, str]]:
        """Each edge as it is written, and where."""
        if self.file is None:
            return [(edge, f"edge {number}") for number, edge in enumerate(self.edges, 1)]
        try:
            lines = Path(self.file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"edges cannot be read from {self.file}: {error}") from error
        bare = [(line.partition("#")[0], number) for number, line in enumerate(lines, 1)]
        return [
            (_PAIR.sub(r"\1<->\2", text), f"{self.file}:{number}")
            for text, number in bare
            if text.strip()
        ]


def _parse(text: str, place: str) -> tuple[int, int, bool]:
    """Both ends, and whether only the first sends."""
    found = _EDGE.fullmatch(text)
    if found is None:
        raise ValueError(f"{place}: '{text}' is not an edge; write '0<->1', or '0->1' for one way")
    return int(found[1]), int(found[3]), found[2] == "->"
