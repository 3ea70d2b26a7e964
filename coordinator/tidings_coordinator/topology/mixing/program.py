"""What mixings by semidefinite programming share: the edges as a matrix, the solver."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np

from tidings.errors import MissingExtra
from tidings_coordinator.topology.graph import Graph
from tidings_coordinator.topology.spectra import Matrix


def cvxpy(mixing: str) -> Any:
    """The modelling library; MissingExtra says which mixing needs it."""
    try:
        return importlib.import_module("cvxpy")
    except ImportError:
        raise MissingExtra(f"the mixing '{mixing}'", "sdp") from None


def incidence(graph: Graph) -> Matrix:
    """(n, edges): the vectors v_e = e_i - e_j for e = {i, j} as columns."""
    i, j = np.array(graph.edges).T
    edge = np.arange(len(i))
    found = np.zeros((graph.nodes, len(edge)))
    found[i, edge], found[j, edge] = 1, -1
    return found


def solve(problem: Any, cp: Any) -> None:
    """By a solver that comes with cvxpy; a degenerate optimum is left to the caller's judgement."""
    with warnings.catch_warnings():
        # "may be inaccurate" is the rule there
        warnings.simplefilter("ignore", UserWarning)
        problem.solve(solver=cp.CLARABEL)


def between_neighbors(graph: Graph, values: Matrix) -> Matrix:
    """(n, n), symmetric, with a value for each edge."""
    i, j = np.array(graph.edges).T
    found = np.zeros((graph.nodes, graph.nodes))
    found[i, j] = found[j, i] = values
    return found
