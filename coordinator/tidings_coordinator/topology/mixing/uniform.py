"""The plain mean over the neighbourhood."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tidings_coordinator.topology.graph import Graph
from tidings_coordinator.topology.mixing.base import Mixing, mixings
from tidings_coordinator.topology.spectra import Matrix, Stochastic


@mixings.register("uniform")
@dataclass(frozen=True)
class Uniform(Mixing):
    """The plain mean of what a node hears and its own (DeGroot, JASA 1974, with equal trust).

    ::

        W_ij = 1 / (1 + indeg(i))    for every in-neighbour j and for i itself

    Row-stochastic on every graph: nodes agree, but on a mean in which well-connected nodes count
    more. Doubly stochastic where all in- and out-degrees are equal, and then the true mean.
    """

    def weights(self, graph: Graph) -> Matrix:
        """The formula above."""
        heard = graph.adjacency + np.eye(graph.nodes)
        mean: Matrix = heard / heard.sum(axis=1, keepdims=True)
        return mean

    def guarantee(self) -> Stochastic:
        """Rows sum to 1; columns on regular graphs only."""
        return "row"
