"""The rates per edge with which continuous gossip needs the fewest messages."""

from __future__ import annotations

import importlib
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from tidings.errors import MissingExtra
from tidings_coordinator.topology.graph import Graph
from tidings_coordinator.topology.mixing.base import Mixing, mixings, with_own_share
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
        try:
            cp: Any = importlib.import_module("cvxpy")
        except ImportError:
            raise MissingExtra("the mixing 'least_gossip'", "sdp") from None
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
    i, j = np.array(graph.edges).T
    edge = np.arange(len(i))
    incidence = np.zeros((n, len(edge)))
    incidence[i, edge], incidence[j, edge] = 1, -1

    rates, s, t = cp.Variable(len(edge), nonneg=True), cp.Variable(), cp.Variable()
    laplacian, mean = incidence @ cp.diag(rates) @ incidence.T, np.full((n, n), 1 / n)
    within = [laplacian - s * (np.eye(n) - mean) >> 0, t <= s / 2]
    for e in edge:
        v = incidence[:, [e]]
        corner = cp.reshape(2 * t, (1, 1), order="C")
        within.append(cp.bmat([[laplacian + mean, v], [v.T, corner]]) >> 0)
    problem = cp.Problem(cp.Minimize(cp.sum(rates)), within)
    with warnings.catch_warnings():
        # "may be inaccurate" is the rule where the optimum is degenerate; weights() judges.
        warnings.simplefilter("ignore", UserWarning)
        problem.solve(solver=cp.CLARABEL)
    if rates.value is None:
        raise ValueError(f"'least_gossip' found no rates: the solver says '{problem.status}'")
    found = np.zeros((n, n))
    found[i, j] = found[j, i] = np.maximum(rates.value, 0.0)
    return found
