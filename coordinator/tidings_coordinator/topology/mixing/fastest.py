"""The symmetric weights that average fastest on a graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tidings_coordinator.topology.graph import Graph
from tidings_coordinator.topology.mixing.base import Mixing, mixings, with_own_share
from tidings_coordinator.topology.mixing.metropolis_hastings import MetropolisHastings
from tidings_coordinator.topology.mixing.program import (
    between_neighbors,
    cvxpy,
    incidence,
    solve,
)
from tidings_coordinator.topology.spectra import Matrix, spectral_gap

#: how much slower than Metropolis-Hastings a solution may be before it counts as failed
_TOLERANCE = 1e-6


@mixings.register("fastest")
@dataclass(frozen=True)
class Fastest(Mixing):
    """Fastest symmetric averaging by semidefinite programming (Xiao & Boyd, SCL 2004).

    ::

        minimise s    subject to    -s I <= W - 11^T/n <= s I,    W = I - sum_e w_e v_e v_e^T

    over the edge weights w_e, v_e = e_i - e_j for e = {i, j}. Symmetric and doubly stochastic, but
    an entry may be negative. Undirected graphs, up to some 64 nodes; needs the extra 'sdp'.
    """

    def weights(self, graph: Graph) -> Matrix:
        """Solve the program. ValueError for a directed graph, or where the solver gives up."""
        self.undirected_only(graph)
        cp = cvxpy("fastest")
        if not graph.edges:
            return np.eye(graph.nodes)
        weights = _solve(graph, cp)
        simple = MetropolisHastings().weights(graph)
        if spectral_gap([weights], 1) < spectral_gap([simple], 1) - _TOLERANCE:
            raise ValueError("the solver of 'fastest' found nothing faster than simple weights")
        return weights


def _solve(graph: Graph, cp: Any) -> Matrix:
    """The program's solution by cvxpy; ValueError where the solver gives none."""
    n = graph.nodes
    edges = incidence(graph)
    rate = cp.Variable()
    edge_weights = cp.Variable(len(graph.edges))
    deviation = np.eye(n) - 1 / n - edges @ cp.diag(edge_weights) @ edges.T
    within = [rate * np.eye(n) - deviation >> 0, rate * np.eye(n) + deviation >> 0]
    problem = cp.Problem(cp.Minimize(rate), within)
    solve(problem, cp)
    if edge_weights.value is None:
        raise ValueError(f"'fastest' found no weights: the solver says '{problem.status}'")
    return with_own_share(between_neighbors(graph, edge_weights.value))
