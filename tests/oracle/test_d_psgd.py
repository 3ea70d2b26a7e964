"""D-PSGD against its matrix form ``X <- W (X - lr G(X))`` in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from support.bowls import Bowls, Matrix, line, one_peer_exponential, ring
from support.plans import IDEAL, plans
from support.recording import Recorder, history, models

from tidings.api import Inbox, Node, Weights
from tidings.protocols.decentralized.d_psgd import DPSGD
from tidings.runtime.simulation import simulate

pytestmark = pytest.mark.oracle

BOWLS = Bowls()


@dataclass(frozen=True)
class Traced(DPSGD):
    """Writes down its model after every round."""

    def receive(self, x: torch.Tensor, inbox: Inbox[Weights], node: Node) -> torch.Tensor:
        x = super().receive(x, inbox, node)
        node.log("x", x=x.tolist())
        return x


def run(topology: str, nodes: int, lr: float, rounds: int) -> Matrix:
    recorder = Recorder()
    simulate(plans(nodes, topology, Traced(lr), BOWLS, rounds, link=IDEAL), recorder)
    return history(recorder, "x", nodes)


def matrix_form(w: Callable[[int], Matrix], nodes: int, lr: float, rounds: int) -> Matrix:
    x = np.zeros((nodes, BOWLS.dim))
    steps = []
    for k in range(rounds):
        x = w(k) @ (x - lr * BOWLS.gradients(x))
        steps.append(x)
    return np.array(steps)


@pytest.mark.parametrize(
    ("topology", "nodes", "w"),
    [
        ("ring", 8, lambda k: ring(8)),
        ("line", 5, lambda k: line(5)),
        ("one_peer_exponential", 8, lambda k: one_peer_exponential(8, k)),
    ],
)
def test_every_round(topology: str, nodes: int, w: Callable[[int], Matrix]) -> None:
    got = run(topology, nodes, 0.05, 40)
    want = matrix_form(w, nodes, 0.05, 40)
    assert got.shape == (40, nodes, BOWLS.dim)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_the_mean_follows_the_mean_gradient() -> None:
    x = run("ring", 8, 0.05, 30)
    before = np.concatenate([np.zeros((1, 8, BOWLS.dim)), x[:-1]])
    gradients = np.stack([BOWLS.gradients(step) for step in before])
    want = before.mean(axis=1) - 0.05 * gradients.mean(axis=1)
    np.testing.assert_allclose(x.mean(axis=1), want, atol=1e-6)


def fixed_point(w: Matrix, lr: float) -> Matrix:
    """The solution of x = W (x - lr A (x - b)), all nodes' unknowns in one system."""
    n, d = len(w), BOWLS.dim
    a, b = BOWLS.matrices(n)
    mix = np.kron(w, np.eye(d))
    curvature = np.zeros((n * d, n * d))
    for i in range(n):
        curvature[i * d : (i + 1) * d, i * d : (i + 1) * d] = a[i]
    flat = b.reshape(-1)
    left = np.eye(n * d) - mix @ (np.eye(n * d) - lr * curvature)
    return np.linalg.solve(left, lr * mix @ curvature @ flat).reshape(n, d)


def bias(x: Matrix) -> float:
    """Largest squared distance of a node from the optimum."""
    return float(((x - BOWLS.optimum(len(x))) ** 2).sum(axis=1).max())


def stopped(lr: float, rounds: int) -> Matrix:
    """Where the protocol ends."""
    made = plans(8, "ring", {"kind": "d_psgd", "lr": lr}, BOWLS, rounds, link=IDEAL)
    return models(simulate(made))


def test_it_stops_at_its_fixed_point_and_the_bias_goes_with_the_square_of_the_step() -> None:
    """Constant step, heterogeneous data: |x - x*|^2 = O(lr^2 zeta^2 / gap^2)."""
    large, small = stopped(0.02, 200), stopped(0.005, 700)
    np.testing.assert_allclose(large, fixed_point(ring(8), 0.02), atol=1e-3)
    np.testing.assert_allclose(small, fixed_point(ring(8), 0.005), atol=1e-3)
    assert bias(large) > 0.01
    assert 8 < bias(large) / bias(small) < 16  # the limit of small steps
