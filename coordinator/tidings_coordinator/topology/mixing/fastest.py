"""The symmetric weights that average fastest on a graph."""

from __future__ import annotations

import importlib
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from tidings.errors import MissingExtra
from tidings_coordinator.topology.graph import Graph
from tidings_coordinator.topology.mixing.base import Mixing, mixings, with_own_share
from tidings_coordinator.topology.mixing.metropolis_hastings import MetropolisHastings
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
        try:
            cp: Any = importlib.import_module("cvxpy")
        except ImportError:
            raise MissingExtra("the mixing 'fastest'", "sdp") from None
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
    i, j = np.array(graph.edges).T
    edge = np.arange(len(i))
    incidence = np.zeros((n, len(edge)))
    incidence[i, edge], incidence[j, edge] = 1, -1

    rate = cp.Variable()
    edge_weights = cp.Variable(len(edge))
    deviation = np.eye(n) - 1 / n - incidence @ cp.diag(edge_weights) @ incidence.T
    within = [rate * np.eye(n) - deviation >> 0, rate * np.eye(n) + deviation >> 0]
    problem = cp.Problem(cp.Minimize(rate), within)
    with warnings.catch_warnings():
        # "may be inaccurate" is the rule where the optimum is degenerate; weights() judges.
        warnings.simplefilter("ignore", UserWarning)
        problem.solve(solver=cp.CLARABEL)
    if edge_weights.value is None:
        raise ValueError(f"'fastest' found no weights: the solver says '{problem.status}'")
    neighbors = np.zeros((n, n))
    neighbors[i, j] = neighbors[j, i] = edge_weights.value
    return with_own_share(neighbors)
