"""Metropolis-Hastings weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tidings_coordinator.topology.graph import Graph
from tidings_coordinator.topology.mixing.base import Mixing, mixings, with_own_share
from tidings_coordinator.topology.spectra import Matrix


@mixings.register("metropolis_hastings")
@dataclass(frozen=True)
class MetropolisHastings(Mixing):
    """Metropolis-Hastings weights (Xiao, Boyd & Kim, JPDC 2007).

    ::

        W_ij = 1 / (1 + max(deg(i), deg(j)))    on edges,    W_ii = 1 - sum_j W_ij

    Symmetric, doubly stochastic, nonnegative, and the own share is never zero. A node needs to
    know the degrees of its neighbours only. Undirected graphs.
    """

    def weights(self, graph: Graph) -> Matrix:
        """The formula above; ValueError for a directed graph."""
        self.undirected_only(graph)
        degrees = np.array(graph.in_degrees)
        return with_own_share(graph.adjacency / (1 + np.maximum.outer(degrees, degrees)))
