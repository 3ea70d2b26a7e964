"""The family of mixings: from a graph to the weights of its averaging."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from tidings.registry import Plugin, Registry
from tidings_coordinator.topology.graph import Graph, Phase
from tidings_coordinator.topology.spectra import Matrix, Stochastic


class Mixing(Plugin):
    """Weights for the averaging of neighbours, one (nodes, nodes) matrix for each graph."""

    registry: ClassVar[Registry[Mixing]]

    @abstractmethod
    def weights(self, graph: Graph) -> Matrix:
        """(nodes, nodes) float64: ``[i, j]`` is what i gives to the value of j, ``[i, i]`` to its
        own. Zero where j does not send to i. ValueError for a graph that it does not fit."""

    def guarantee(self) -> Stochastic:
        """Which sums of :meth:`weights` are 1 on every graph."""
        return "doubly"

    def phase(self, graph: Graph) -> Phase:
        """``graph`` with its weights; ValueError where they are not what was guaranteed."""
        phase = Phase(graph, self.weights(graph))
        if phase.stochastic not in ("doubly", self.guarantee()):
            raise ValueError(
                f"'{self.kind}' weights must be {self.guarantee()}-stochastic, but are only "
                f"{phase.stochastic}-stochastic here"
            )
        return phase

    def undirected_only(self, graph: Graph) -> None:
        """ValueError, with the mixings that would fit, for a directed graph."""
        if graph.directed:
            raise ValueError(
                f"'{self.kind}' weights need an undirected graph; on a directed one use the mixing "
                "'uniform' (row-stochastic; doubly where all degrees are equal), 'column' "
                "(column-stochastic, for push-sum) or 'custom'"
            )


mixings: Registry[Mixing] = Registry("mixings", "tidings_coordinator.topology.mixing")
Mixing.registry = mixings


def with_own_share(neighbors: Matrix) -> Matrix:
    """Weights of the neighbours ((n, n), zero diagonal) with what is left of 1 as the own share."""
    return neighbors + np.diag(1 - neighbors.sum(axis=1))
