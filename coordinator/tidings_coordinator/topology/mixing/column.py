"""Column-stochastic weights for push-sum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tidings_coordinator.topology.graph import Graph
from tidings_coordinator.topology.mixing.base import Mixing, mixings
from tidings_coordinator.topology.spectra import Matrix, Stochastic


@mixings.register("column")
@dataclass(frozen=True)
class Column(Mixing):
    """Push-sum weights (Kempe, Dobra & Gehrke, FOCS 2003): everyone splits its mass equally.

    ::

        W_ij = 1 / (1 + outdeg(j))    for every receiver i of j and for j itself

    Column-stochastic on every graph, so the sum over nodes is kept, but plain averaging by them is
    biased: use a push-sum protocol, which divides by the weight that it mixes along.
    """

    def weights(self, graph: Graph) -> Matrix:
        """The formula above."""
        heard = graph.adjacency + np.eye(graph.nodes)
        shares: Matrix = heard / heard.sum(axis=0, keepdims=True)
        return shares

    def guarantee(self) -> Stochastic:
        """Columns sum to 1; rows on regular graphs only."""
        return "column"
