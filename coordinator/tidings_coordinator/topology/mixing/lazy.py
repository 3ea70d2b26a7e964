"""Half-way between not mixing and another mixing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tidings_coordinator.topology.graph import Graph
from tidings_coordinator.topology.mixing.base import Mixing, mixings
from tidings_coordinator.topology.mixing.metropolis_hastings import MetropolisHastings
from tidings_coordinator.topology.spectra import Matrix, Stochastic


@mixings.register("lazy")
@dataclass(frozen=True)
class Lazy(Mixing):
    """The lazy version (I + W) / 2 of other weights W (as of a lazy Markov chain).

    Where W is symmetric, so is this, and its eigenvalues lie in [0, 1]: what analyses with a
    positive semidefinite W ask for (EXTRA, Shi et al., SIAM J. Optim. 2015, uses it as W~).
    """

    #: the weights W
    of: Mixing = MetropolisHastings()

    def weights(self, graph: Graph) -> Matrix:
        """The formula above; ValueError where W has one."""
        return (np.eye(graph.nodes) + self.of.weights(graph)) / 2

    def guarantee(self) -> Stochastic:
        """The same as that of W."""
        return self.of.guarantee()
