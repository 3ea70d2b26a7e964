"""The line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tidings_coordinator.topology import layouts
from tidings_coordinator.topology.base import Topology, topologies
from tidings_coordinator.topology.graph import Graph
from tidings_coordinator.topology.spectra import Matrix


@topologies.register("line")
@dataclass(frozen=True)
class Line(Topology):
    """Line (path graph): i and i+1, any number of nodes.

    Diameter n-1; with Metropolis-Hastings weights the spectral gap is 2/3 (1 - cos(pi / n)), about
    3.3 / n^2: the slowest graph of bounded degree.
    """

    def graphs(self, nodes: int, rng: np.random.Generator) -> Sequence[Graph]:
        """The line."""
        return [Graph.from_edges(nodes, [(node, node + 1) for node in range(nodes - 1)])]

    def layout(self, graph: Graph) -> Matrix:
        """A horizontal line."""
        return layouts.row(graph.nodes)
