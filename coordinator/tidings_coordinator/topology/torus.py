"""The torus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tidings_coordinator.topology import layouts
from tidings_coordinator.topology.base import topologies
from tidings_coordinator.topology.graph import Graph
from tidings_coordinator.topology.grid import Grid, sides
from tidings_coordinator.topology.spectra import Matrix


@topologies.register("torus")
@dataclass(frozen=True)
class Torus(Grid):
    """Torus: a grid of rows x cols nodes whose rows and columns are closed to rings.

    Numbered row by row; constraints as for the grid. Degree 4, less 1 for each side of length 2,
    whose two ways round are one edge; diameter floor(rows/2) + floor(cols/2).
    """

    def graphs(self, nodes: int, rng: np.random.Generator) -> Sequence[Graph]:
        """The torus; ValueError where the nodes do not fill it."""
        rows, cols = sides(nodes, self.rows, self.cols, "torus", "ring")
        places = [(r, c) for r in range(rows) for c in range(cols)]
        across = [(r * cols + c, r * cols + (c + 1) % cols) for r, c in places]
        down = [(r * cols + c, (r + 1) % rows * cols + c) for r, c in places]
        return [Graph.from_edges(nodes, across + down)]

    def layout(self, graph: Graph) -> Matrix:
        """Rows and columns."""
        return layouts.grid(*sides(graph.nodes, self.rows, self.cols, "torus", "ring"))
