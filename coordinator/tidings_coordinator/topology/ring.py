"""The ring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tidings_coordinator.topology import layouts
from tidings_coordinator.topology.base import Topology, topologies
from tidings_coordinator.topology.graph import Graph
from tidings_coordinator.topology.spectra import Matrix


@topologies.register("ring")
@dataclass(frozen=True)
class Ring(Topology):
    """Ring (cycle graph): i and i+1 mod n, at least 3 nodes.

    Degree 2, diameter floor(n/2); with Metropolis-Hastings weights (all 1/3) the spectral gap is
    2/3 (1 - cos(2 pi / n)), about 13 / n^2. Directed: i sends to i+1 only; use the mixing 'uniform'
    (weights 1/2, doubly stochastic).
    """

    directed: bool = False

    def graphs(self, nodes: int, rng: np.random.Generator) -> Sequence[Graph]:
        """The ring."""
        self.at_least(3, nodes)
        edges = [(node, (node + 1) % nodes) for node in range(nodes)]
        return [Graph.from_edges(nodes, edges, self.directed)]

    def layout(self, graph: Graph) -> Matrix:
        """A circle."""
        return layouts.circle(graph.nodes)
