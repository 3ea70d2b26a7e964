"""The rates per edge with which continuous gossip needs the fewest messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tidings_coordinator.topology.graph import Graph
from tidings_coordinator.topology.mixing.base import Mixing, mixings, with_own_share
from tidings_coordinator.topology.mixing.program import (
    between_neighbors,
    cvxpy,
    incidence,
    solve,
)
from tidings_coordinator.topology.spectra import Matrix, chi_and_gap


@mixings.register("least_gossip")
@dataclass(frozen=True)
class LeastGossip(Mixing):
    """The rates per edge that DADAO needs the fewest gossips with (Nabli & Oyallon, ICML 2023).

    ::

        minimise sum_e r_e    subject to    chi_1[L] chi_2[L] <= 1/2,    L = sum_e r_e v_e v_e^T

    over rates r_e >= 0, v_e = e_i - e_j for e = {i, j}; chi_1 is 1 / lambda_2, chi_2 half the
    largest v_e^T L^+ v_e over all edges. As a convex program, with s for 1 / chi_1 and t >= chi_2::

        L >= s (I - J),    [[L + J, v_e], [v_e^T, 2 t]] >= 0 for every e,    t <= s/2,   J = 11^T/n

    Weights are the rates, scaled so that the busiest node keeps half: only their proportions count
    for ``dadao`` with ``rates: weights``. Where all edges look alike they are equal. Undirected
    graphs, up to some 32 nodes; needs the extra 'sdp'.
    """

    def weights(self, graph: Graph) -> Matrix:
        """Solve the program. ValueError for a directed graph, or where the solver gives up."""
        self.undirected_only(graph)
        cp = cvxpy("least_gossip")
        if not graph.edges:
            return np.eye(graph.nodes)
        rates = _solve(graph, cp)
        uniform = graph.adjacency / len(graph.edges)
        # the least sum of rates in these proportions is their sum times sqrt(2 chi_1 chi_2)
        found, simple = (needed(graph, each) for each in (rates, uniform))
        if found > simple * (1 + 1e-3):
            raise ValueError("the solver of 'least_gossip' found nothing better than equal rates")
        return with_own_share(rates / (2 * rates.sum(axis=1).max()))


def needed(graph: Graph, rates: Matrix) -> float:
    """Gossips per unit of time, over the graph, with rates in these proportions."""
    chi_1, chi_2, _ = chi_and_gap(rates, graph.adjacency)
    return float((rates * graph.adjacency).sum() / 2 * np.sqrt(2 * chi_1 * chi_2))


def _solve(graph: Graph, cp: Any) -> Matrix:
    """The program's rates as a symmetric matrix; ValueError where the solver gives none."""
    n = graph.nodes
    edges = incidence(graph)
    rates, s, t = cp.Variable(len(graph.edges), nonneg=True), cp.Variable(), cp.Variable()
    laplacian, mean = edges @ cp.diag(rates) @ edges.T, np.full((n, n), 1 / n)
    within = [laplacian - s * (np.eye(n) - mean) >> 0, t <= s / 2]
    for e in range(len(graph.edges)):
        v = edges[:, [e]]
        corner = cp.reshape(2 * t, (1, 1), order="C")
        within.append(cp.bmat([[laplacian + mean, v], [v.T, corner]]) >> 0)
    problem = cp.Problem(cp.Minimize(cp.sum(rates)), within)
    solve(problem, cp)
    if rates.value is None:
        raise ValueError(f"'least_gossip' found no rates: the solver says '{problem.status}'")
    return between_neighbors(graph, np.maximum(rates.value, 0.0))
