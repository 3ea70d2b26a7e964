"""The star."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tidings_coordinator.topology import layouts
from tidings_coordinator.topology.base import Topology, topologies
from tidings_coordinator.topology.graph import Graph
from tidings_coordinator.topology.spectra import Matrix


@topologies.register("star")
@dataclass(frozen=True)
class Star(Topology):
    """Star: node 0 and each of the others, at least 2 nodes.

    The graph of a federated run: node 0 has the role "server", the others "client". Diameter 2;
    with Metropolis-Hastings weights (all 1/n) the spectral gap is 1/n.
    """

    def graphs(self, nodes: int, rng: np.random.Generator) -> Sequence[Graph]:
        """The star."""
        self.at_least(2, nodes)
        return [Graph.from_edges(nodes, [(0, node) for node in range(1, nodes)])]

    def roles(self, nodes: int) -> tuple[str, ...]:
        """Node 0 is the server."""
        return ("server",) + ("client",) * (nodes - 1)

    def layout(self, graph: Graph) -> Matrix:
        """The server in the middle."""
        return layouts.hub(graph.nodes)
