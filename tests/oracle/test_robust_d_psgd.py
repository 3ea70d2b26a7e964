"""Robust D-PSGD against its matrix form, and against D-PSGD where the two must agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.bowls import Bowls, Matrix
from support.plans import IDEAL, plans, schedule_of
from support.recording import models

from tidings.api import Protocol
from tidings.runtime.simulation import simulate

pytestmark = pytest.mark.oracle

BOWLS = Bowls()

Rule = Callable[[Matrix], Matrix]


def run(topology: Any, nodes: int, protocol: dict[str, Any], rounds: int) -> Matrix:
    return models(simulate(plans(nodes, topology, protocol, BOWLS, rounds, link=IDEAL)))


def trimmed(rows: Matrix) -> Matrix:
    """The mean without the largest and the smallest of each column."""
    kept: Matrix = np.sort(rows, axis=0)[1:-1].mean(axis=0)
    return kept


def krum(rows: Matrix) -> Matrix:
    """The row nearest to its m - f - 2 nearest others, f = 1."""
    distances = ((rows[:, None] - rows[None]) ** 2).sum(axis=2)
    scores = np.sort(distances, axis=1)[:, 1 : len(rows) - 2].sum(axis=1)
    return rows[int(np.argmin(scores))]


RULES: dict[str, Rule] = {
    "mean": lambda rows: rows.mean(axis=0),
    "median": lambda rows: np.median(rows, axis=0),
    "trimmed_mean": trimmed,
    "krum": krum,
}


def matrix_form(neighbours: list[list[int]], rule: Rule, lr: float, rounds: int) -> Matrix:
    x = np.zeros((len(neighbours), BOWLS.dim))
    for _ in range(rounds):
        half = x - lr * BOWLS.gradients(x)
        x = np.stack([rule(half[[i, *near]]) for i, near in enumerate(neighbours)])
    return x


@pytest.mark.parametrize(
    ("aggregator", "topology"),
    [(rule, graph) for rule in ("mean", "median", "trimmed_mean") for graph in ("ring", "grid")]
    + [(rule, "complete") for rule in RULES],  # krum with f = 1 needs five rows
)
def test_every_rule_on_every_graph(aggregator: str, topology: str) -> None:
    nodes = 6
    neighbours = {
        "ring": [[(i - 1) % nodes, (i + 1) % nodes] for i in range(nodes)],
        "complete": [[j for j in range(nodes) if j != i] for i in range(nodes)],
        # 2 x 3
        "grid": [[1, 3], [0, 2, 4], [1, 5], [0, 4], [1, 3, 5], [2, 4]],
    }[topology]
    rule = aggregator if aggregator == "mean" else {"kind": aggregator, "f": 1}
    got = run(topology, nodes, {"kind": "robust_d_psgd", "lr": 0.05, "aggregator": rule}, 25)
    want = matrix_form(neighbours, RULES[aggregator], 0.05, 25)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("topology", ["ring", "complete"])
def test_the_mean_on_a_regular_graph_is_d_psgd_with_uniform_weights(topology: str) -> None:
    mean = {"kind": "robust_d_psgd", "lr": 0.05, "aggregator": "mean"}
    plain = {"kind": "d_psgd", "lr": 0.05}
    robust = run(topology, 6, mean, 40)
    uniform = run({"kind": topology, "mixing": "uniform"}, 6, plain, 40)
    np.testing.assert_allclose(robust, uniform, atol=1e-5)


def test_every_neighbourhood_must_be_large_enough_for_the_rule() -> None:
    protocol = Protocol.parse(
        {"kind": "robust_d_psgd", "lr": 0.1, "aggregator": {"kind": "trimmed_mean", "f": 1}}
    )
    schedule = schedule_of(4, "line")
    degrees = schedule.union.in_degrees
    assert degrees == (1, 2, 2, 1)
    with pytest.raises(ValueError, match=r"at node 0, itself included: .* 3 rows, there are 2"):
        protocol.check(degrees, schedule.facts())
    protocol.check((2, 2, 2, 2), schedule.facts())
