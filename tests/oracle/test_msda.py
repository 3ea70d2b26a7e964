"""MSDA against its matrix form, its rate, and the number of gossips that the graph asks for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from support.bowls import Bowls, Matrix
from support.plans import IDEAL, plans, schedule_of
from support.recording import Recorder, models

from tidings.api import Problem, Protocol
from tidings.protocols.decentralized.msda import gossips
from tidings.runtime.simulation import simulate

pytestmark = pytest.mark.oracle

DIM = 6
PROBLEM: dict[str, Any] = {"kind": "quadratic", "dim": DIM}


def run(topology: str, nodes: int, rounds: int, recorder: Recorder | None = None) -> Matrix:
    made = plans(
        nodes, topology, "msda", PROBLEM, rounds, link=IDEAL, evaluate_rounds=max(1, rounds // 4)
    )
    return models(simulate(made, recorder))


def laplacian(topology: str, nodes: int) -> Matrix:
    found = np.zeros((nodes, nodes))
    for i, j in schedule_of(nodes, topology).union.edges:
        e = np.eye(nodes)[i] - np.eye(nodes)[j]
        found += np.outer(e, e)
    return found


def matrix_form(topology: str, nodes: int, rounds: int) -> Matrix:
    """With the polynomial of the Laplacian written down by its eigenvalues."""
    values, vectors = np.linalg.eigh(laplacian(topology, nodes))
    gap = values[1] / values[-1]
    k = math.floor(1 / math.sqrt(gap) + 1e-9)
    c = ((1 - math.sqrt(gap)) / (1 + math.sqrt(gap))) ** k
    if k == 1:
        kept = 2 * values / ((1 + gap) * values[-1])
    else:
        c_2, c_3 = (1 + gap) / (1 - gap), 2 / ((1 + gap) * values[-1])
        chebyshev = np.polynomial.chebyshev.Chebyshev.basis(k)
        kept = 1 - chebyshev(c_2 * (1 - c_3 * values)) / chebyshev(c_2)
    assert abs(kept[0]) < 1e-12
    polynomial = vectors @ np.diag(kept) @ vectors.T
    h, b = quadratics(nodes)
    root = math.sqrt(10.0)
    step = (1 + c**2) / (1 + c) ** 2
    momentum = ((1 + c) * root - 1 + c) / ((1 + c) * root + 1 - c)
    x, y = np.zeros((2, nodes, DIM))
    theta = x
    for _ in range(rounds):
        theta = np.stack([np.linalg.solve(h[i], b[i] + x[i]) for i in range(nodes)])
        new = x - step * polynomial @ theta
        x, y = new + momentum * (new - y), new
    return theta


def quadratics(nodes: int) -> tuple[Matrix, Matrix]:
    """f_i(x) = x^T H x / 2 - b^T x + const, from gradients."""
    h, b = np.zeros((nodes, DIM, DIM)), np.zeros((nodes, DIM))
    rng = np.random.default_rng(0)
    for node in range(nodes):
        share = Problem.parse(PROBLEM).local(node, nodes, 1)
        b[node] = -share.gradient(torch.zeros(DIM), rng).double().numpy()
        for j in range(DIM):
            h[node, :, j] = share.gradient(torch.eye(DIM)[j], rng).double().numpy() + b[node]
    return h, b


@pytest.mark.parametrize(
    ("topology", "nodes", "k"), [("ring", 8, 2), ("star", 9, 3), ("complete", 5, 1), ("line", 6, 3)]
)
def test_against_the_matrix_form(topology: str, nodes: int, k: int) -> None:
    assert gossips(schedule_of(nodes, topology).facts()) == k
    want = matrix_form(topology, nodes, 15)
    np.testing.assert_allclose(run(topology, nodes, 15), want, atol=2e-4)


def test_its_rate_does_not_depend_on_the_graph() -> None:
    """(1 - 1 / sqrt(kappa))^t, down to what float32 can show."""
    for topology, nodes in (("ring", 12), ("star", 12)):
        h, b = quadratics(nodes)
        optimum = np.linalg.solve(h.sum(axis=0), b.sum(axis=0))
        start = ((run(topology, nodes, 1) - optimum) ** 2).sum()
        end = ((run(topology, nodes, 40) - optimum) ** 2).sum()
        assert end < 10 * start * (1 - 1 / math.sqrt(10)) ** 39


def test_gossips_of_a_large_star() -> None:
    """17 of 299 edges each, as Nabli & Oyallon's notebook counts them."""
    facts = schedule_of(300, "star").facts()
    assert gossips(facts) == 17
    assert sum(Protocol.parse("msda").traffic(facts).values()) == 2 * 17 * 299


def test_what_it_needs_is_said() -> None:
    with pytest.raises(ValueError, match="msda needs the minimiser"):
        Protocol.parse("msda").check_problem(Bowls().local(0, 2, 0))
    digits = Problem.parse({"kind": "digits", "hidden": 4}).local(0, 2, 0)
    with pytest.raises(ValueError, match="does not know its mu and smoothness"):
        Protocol.parse("msda").check_problem(digits)
