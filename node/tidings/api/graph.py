"""What a node may know of the graph that it is part of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class GraphFacts:
    """What a node may know of the whole graph: constants of the theory, no one else's plan."""

    nodes: int
    #: undirected edges (or directed arcs, where the graph is directed)
    edges: int
    #: pairs (i sends to j) in one round; the average over a time-varying graph's phases
    arcs: float
    directed: bool
    #: whether every round has the same graph and weights
    static: bool
    #: what the mixing matrices guarantee: rows sum to 1, columns do, or both
    stochastic: Literal["row", "column", "doubly"]
    #: 1 - |lambda_2| of the mixing matrix (per round over one period of a time-varying graph)
    spectral_gap: float
    #: 1 / smallest non-zero eigenvalue of the Laplacian divided by the number of edges
    chi_1: float
    #: half the largest effective resistance over edges, same normalisation
    chi_2: float
    #: the largest chi_1 and the largest chi_2 of all graphs that may be in place, those of faults
    #: included, with the rate 1 / ``edges`` on every edge; infinite where one is not connected, nan
    #: where one is directed
    worst_chi: tuple[float, float]
    #: the same with the mixing weights W_ij as the edges' rates; nan where these are not symmetric
    weights_chi: tuple[float, float]
    #: the sum of the mixing weights over the edges, each counted once; the average over phases
    weights_total: float
    #: the smallest non-zero eigenvalue of the Laplacian divided by the largest
    eigengap: float
