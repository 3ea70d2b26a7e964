"""Network Lasso against ADMM in matrix form, its dual, and what the penalty is for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.bowls import Matrix
from support.plans import IDEAL, plans, schedule_of
from support.recording import Recorder, models

from tidings.api import Problem, Protocol
from tidings.errors import ConfigError
from tidings.problems.wine_regression import cultivar
from tidings.runtime.simulation import simulate

pytestmark = pytest.mark.oracle

NODES, DIM = 8, 5
PROBLEM: dict[str, Any] = {"kind": "clustered_regression", "dim": DIM, "samples": 8}
EDGES = [(i, (i + 1) % NODES) for i in range(NODES)]


def run(rounds: int, recorder: Recorder | None = None, **parameters: Any) -> Matrix:
    protocol = {"kind": "network_lasso"} | parameters
    return models(simulate(plans(NODES, "ring", protocol, PROBLEM, rounds, link=IDEAL), recorder))


def quadratics() -> tuple[Matrix, Matrix]:
    """H and b of every node, f_i(x) = x^T H x / 2 - b^T x + const, from gradients."""
    h, b = np.zeros((NODES, DIM, DIM)), np.zeros((NODES, DIM))
    rng = np.random.default_rng(0)
    for node in range(NODES):
        share = Problem.parse(PROBLEM).local(node, NODES, 1)
        b[node] = -share.gradient(torch.zeros(DIM), rng).double().numpy()
        for j in range(DIM):
            h[node, :, j] = share.gradient(torch.eye(DIM)[j], rng).double().numpy() + b[node]
    return h, b


def admm(rounds: int, penalty: float, rho: float) -> tuple[Matrix, dict[tuple[int, int], Matrix]]:
    """Models, and the duals rho u of all arcs."""
    h, b = quadratics()
    arcs = EDGES + [(k, j) for j, k in EDGES]
    x = np.zeros((NODES, DIM))
    z, u = ({arc: np.zeros(DIM) for arc in arcs} for _ in range(2))
    for _ in range(rounds):
        for i in range(NODES):
            mine = [arc for arc in arcs if arc[0] == i]
            pull = sum(z[arc] - u[arc] for arc in mine)
            x[i] = np.linalg.solve(h[i] + rho * len(mine) * np.eye(DIM), b[i] + rho * pull)
        for j, k in EDGES:
            a, c = x[j] + u[j, k], x[k] + u[k, j]
            theta = max(1 - penalty / (rho * np.linalg.norm(a - c)), 0.5)
            z[j, k], z[k, j] = theta * a + (1 - theta) * c, (1 - theta) * a + theta * c
            u[j, k] += x[j] - z[j, k]
            u[k, j] += x[k] - z[k, j]
    return x, {arc: rho * dual for arc, dual in u.items()}


@pytest.mark.parametrize(("penalty", "rho"), [(0.2, 0.5), (0.05, 1.0), (3.0, 2.0)])
def test_against_the_matrix_form(penalty: float, rho: float) -> None:
    want, _ = admm(40, penalty, rho)
    np.testing.assert_allclose(run(40, penalty=penalty, rho=rho), want, atol=1e-4)


@pytest.mark.parametrize("penalty", [0.05, 0.2])
def test_it_solves_the_convex_problem(penalty: float) -> None:
    """No point is better than the dual bound: max_|p_e| <= penalty sum_i min f_i + <q_i, x>."""
    h, b = quadratics()
    x = run(300, penalty=penalty)
    primal = sum(0.5 * x[i] @ h[i] @ x[i] - b[i] @ x[i] for i in range(NODES))
    primal += penalty * sum(np.linalg.norm(x[j] - x[k]) for j, k in EDGES)
    _, duals = admm(3000, penalty, 1.0)
    q = np.zeros((NODES, DIM))
    for j, k in EDGES:
        p = (duals[j, k] - duals[k, j]) / 2
        p *= min(1.0, penalty / np.linalg.norm(p))
        q[j] += p
        q[k] -= p
    # min_x x^T H x / 2 - (b - q)^T x
    dual = sum(-0.5 * (b[i] - q[i]) @ np.linalg.solve(h[i], b[i] - q[i]) for i in range(NODES))
    assert dual <= primal + 1e-6
    assert primal - dual < 1e-4


def test_alone_together_and_in_between() -> None:
    h, b = quadratics()
    alone = np.array([np.linalg.solve(h[i], b[i]) for i in range(NODES)])
    together = np.linalg.solve(h.sum(axis=0), b.sum(axis=0))
    np.testing.assert_allclose(run(200, penalty=0.0, rho=0.05), alone, atol=1e-3)
    np.testing.assert_allclose(run(300, penalty=50.0), np.tile(together, (NODES, 1)), atol=1e-3)
    x = run(300, penalty=0.6)
    # two clusters of four on the ring: neighbours in one are equal, across they are not
    apart = [float(np.linalg.norm(x[j] - x[k])) for j, k in EDGES]
    assert max(apart[i] for i in (0, 1, 2, 4, 5, 6)) < 0.01 < 3 < min(apart[3], apart[7])


def test_the_error_is_least_for_a_penalty_in_between() -> None:
    """Too few rows to learn alone, another truth in the other half."""

    def error(penalty: float) -> float:
        problem = PROBLEM | {"dim": 20, "samples": 12}
        recorder, protocol = Recorder(), {"kind": "network_lasso", "penalty": penalty}
        made = plans(8, "barbell", protocol, problem, 120, link=IDEAL, evaluate_rounds=120)
        simulate(made, recorder)
        assert recorder.series("residual")[-1] < 0.1
        return float(np.mean([recorder.series("loss", node)[-1] for node in range(8)]))

    alone, between, together = error(0.0), error(0.3), error(100.0)
    assert between < 0.3 * min(alone, together)


@pytest.mark.parametrize("seed", [1, 7])
def test_on_wines_those_of_a_cultivar_find_together(seed: int) -> None:
    """Nobody is told which of twelve nodes have wines of one cultivar; on the ring three edges of
    twelve lead from one to another."""
    nodes = 12

    def learned(penalty: float) -> tuple[float, Matrix]:
        protocol = {"kind": "network_lasso", "penalty": penalty, "rho": 0.3}
        recorder, made = Recorder(), {"link": IDEAL, "evaluate_rounds": 150, "seed": seed}
        x = models(
            simulate(plans(nodes, "ring", protocol, "wine_regression", 150, **made), recorder)
        )
        return float(np.mean([recorder.series("loss", i)[-1] for i in range(nodes)])), x

    (alone, _), (between, x), (together, _) = (learned(penalty) for penalty in (0.0, 0.1, 100.0))
    assert between < 0.75 * min(alone, together)
    apart = np.linalg.norm(x[:, None] - x[None], axis=2)
    group = np.array([cultivar(i, nodes) for i in range(nodes)])
    alike = group[:, None] == group[None]
    assert apart[alike & ~np.eye(nodes, dtype=bool)].mean() < 0.6 * apart[~alike].mean()


def test_wines_are_dealt_out_by_cultivar_and_each_once() -> None:
    problem = Problem.parse({"kind": "wine_regression", "target": "proline"})
    nodes = 7
    shares = [problem.local(i, nodes, 3) for i in range(nodes)]
    assert [share.dim for share in shares] == [13] * nodes
    # halves of 59, 71 and 48 wines
    counts = [0, 0, 0]
    for i, share in enumerate(shares):
        counts[cultivar(i, nodes)] += share.samples
    assert counts == [59 - 30, 71 - 36, 48 - 24]
    assert max(share.samples for share in shares) < 20
    rows = np.concatenate([share._features.numpy() for share in shares])  # type: ignore[attr-defined]
    assert len(np.unique(rows, axis=0)) == sum(counts)
    np.testing.assert_allclose(rows[:, :-1].mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(rows[:, :-1].std(axis=0), 1, atol=1e-12)
    # held out of all nodes: none of a node's test rows is among them
    test = shares[0]._test[0].numpy()  # type: ignore[attr-defined]
    assert len(test) == 30
    assert not {row.tobytes() for row in test} & {row.tobytes() for row in rows}


def test_what_wines_cannot_do_is_said() -> None:
    with pytest.raises(ConfigError, match="did you mean 'proline'"):
        Problem.parse({"kind": "wine_regression", "target": "prolin"})
    problem = Problem.parse("wine_regression")
    with pytest.raises(ValueError, match="3 cultivars for 2 nodes"):
        problem.local(0, 2, 0)
    with pytest.raises(ValueError, match=r"29 wines of a cultivar for \d+ nodes"):
        problem.local(30, 100, 0)


def test_what_it_needs_is_said() -> None:
    protocol = Protocol.parse({"kind": "network_lasso", "penalty": 0.1})
    digits = Problem.parse({"kind": "digits", "hidden": 4}).local(0, 2, 0)
    with pytest.raises(ValueError, match="network_lasso needs the minimiser"):
        protocol.check_problem(digits)
    assert sum(protocol.traffic(schedule_of(5, "ring").facts()).values()) == 10
