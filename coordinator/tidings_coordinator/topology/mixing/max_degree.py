"""Maximum-degree weights."""

from __future__ import annotations

from dataclasses import dataclass

from tidings_coordinator.topology.graph import Graph
from tidings_coordinator.topology.mixing.base import Mixing, mixings, with_own_share
from tidings_coordinator.topology.spectra import Matrix


@mixings.register("max_degree")
@dataclass(frozen=True)
class MaxDegree(Mixing):
    """Maximum-degree weights (Xiao, Boyd & Kim, JPDC 2007).

    The same weight on every edge, here with 1 + the largest degree, so that no own share is zero::

        W = I - (D - A) / (1 + max_i deg(i))

    Symmetric, doubly stochastic and nonnegative; slower than Metropolis-Hastings where degrees
    differ. Undirected graphs.
    """

    def weights(self, graph: Graph) -> Matrix:
        """The formula above; ValueError for a directed graph."""
        self.undirected_only(graph)
        return with_own_share(graph.adjacency / (1 + max(graph.in_degrees)))
