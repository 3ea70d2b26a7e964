"""The two-dimensional grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tidings_coordinator.topology import layouts
from tidings_coordinator.topology.base import Topology, topologies
from tidings_coordinator.topology.graph import Graph
from tidings_coordinator.topology.spectra import Matrix


@topologies.register("grid")
@dataclass(frozen=True)
class Grid(Topology):
    """Grid: rows x cols nodes, each joined with those above, below, left and right of it.

    Numbered row by row. Needs rows x cols = nodes with both at least 2; what is not given is
    chosen, as near to a square as it goes. Degrees 2 to 4, diameter rows + cols - 2.
    """

    rows: int | None = None
    cols: int | None = None

    def __post_init__(self) -> None:
        for name, side in (("rows", self.rows), ("cols", self.cols)):
            if side is not None and side < 2:
                raise ValueError(f"{name} must be at least 2, got {side}")

    def graphs(self, nodes: int, rng: np.random.Generator) -> Sequence[Graph]:
        """The grid; ValueError where the nodes do not fill it."""
        rows, cols = sides(nodes, self.rows, self.cols, "grid", "line")
        across = [(r * cols + c, r * cols + c + 1) for r in range(rows) for c in range(cols - 1)]
        down = [(r * cols + c, r * cols + c + cols) for r in range(rows - 1) for c in range(cols)]
        return [Graph.from_edges(nodes, across + down)]

    def layout(self, graph: Graph) -> Matrix:
        """Rows and columns."""
        return layouts.grid(*sides(graph.nodes, self.rows, self.cols, "grid", "line"))


def sides(
    nodes: int, rows: int | None, cols: int | None, kind: str, instead: str
) -> tuple[int, int]:
    """Rows and columns for that many nodes, nearest to a square where neither is given.

    Raises ValueError where there are none; it names ``instead`` for a number that has no divisors.
    """
    what = f"a {kind} needs rows x cols = nodes, both at least 2"
    if rows is None and cols is None:
        rows = next((side for side in range(math.isqrt(nodes), 1, -1) if nodes % side == 0), None)
        if rows is None:
            why = "is prime" if nodes > 1 else "is too few"
            raise ValueError(f"{what}; {nodes} {why}: use {instead}")
    if rows is None and cols is not None:
        rows = nodes // cols
    if rows is not None and cols is None:
        cols = nodes // rows
    assert rows is not None
    assert cols is not None
    if rows * cols != nodes or min(rows, cols) < 2:
        raise ValueError(f"{what}; {rows} x {cols} does not make {nodes}")
    return rows, cols
