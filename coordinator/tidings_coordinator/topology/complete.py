"""The complete graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from tidings_coordinator.topology import layouts
from tidings_coordinator.topology.base import Topology, topologies
from tidings_coordinator.topology.graph import Graph
from tidings_coordinator.topology.spectra import Matrix


@topologies.register("complete")
@dataclass(frozen=True)
class Complete(Topology):
    """Complete graph: everyone and everyone else, any number of nodes.

    n(n-1)/2 edges. With Metropolis-Hastings weights (all 1/n) one round averages exactly: the
    spectral gap is 1.
    """

    def graphs(self, nodes: int, rng: np.random.Generator) -> Sequence[Graph]:
        """The complete graph."""
        return [Graph.from_edges(nodes, combinations(range(nodes), 2))]

    def layout(self, graph: Graph) -> Matrix:
        """A circle."""
        return layouts.circle(graph.nodes)
