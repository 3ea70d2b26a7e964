"""FedAvg against its closed form: local gradient steps, then the average weighted by samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.bowls import Bowls, Matrix
from support.plans import IDEAL, plans, schedule_of
from support.recording import Recorder, models

from tidings.api import Protocol
from tidings.links.shape import LinkShape
from tidings.runtime.simulation import Simulated, simulate

pytestmark = pytest.mark.oracle

BOWLS = Bowls()
NODES = 5
#: client i stands for i + 1 samples; the server's own do not count
SAMPLES = np.array([2.0, 3.0, 4.0, 5.0])


def run(rounds: int, recorder: Recorder | None = None, **parameters: Any) -> Simulated:
    protocol = {"kind": "fed_avg", "lr": 0.02, **parameters}
    made = plans(NODES, "star", protocol, BOWLS, rounds, link=IDEAL, trace=True, wait_s=1.0)
    return simulate(made, recorder)


def matrix_form(drawn: list[list[int]], local_steps: int, lr: float = 0.02) -> Matrix:
    """The server's model; ``drawn`` are the clients of each round."""
    a, b = BOWLS.matrices(NODES)
    w = np.zeros(BOWLS.dim)
    for clients in drawn:
        updates = []
        for k in clients:
            x = w
            for _ in range(local_steps):
                x = x - lr * a[k] @ (x - b[k])
            updates.append(x)
        w = np.average(updates, axis=0, weights=[SAMPLES[k - 1] for k in clients])
    return w


@pytest.mark.parametrize("local_steps", [1, 5])
def test_all_clients(local_steps: int) -> None:
    result = run(30, local_steps=local_steps)
    want = matrix_form([[1, 2, 3, 4]] * 30, local_steps)
    np.testing.assert_allclose(models(result)[0], want, rtol=1e-4, atol=1e-5)
    # the last model is given to all
    assert (models(result) == models(result)[0]).all()


def test_one_local_step_is_gradient_descent_on_the_weighted_objective() -> None:
    optimum = BOWLS.optimum(NODES, weights=[0.0, *SAMPLES])
    np.testing.assert_allclose(models(run(300, local_steps=1))[0], optimum, atol=1e-4)
    # with more of them it stops elsewhere: client drift
    drifted = models(run(100, local_steps=10))[0]
    assert np.abs(drifted - optimum).max() > 1e-2
    np.testing.assert_allclose(drifted, drift_limit(10), atol=1e-4)


def drift_limit(local_steps: int, lr: float = 0.02) -> Matrix:
    """The fixed point: K steps are x -> b + (I - lr A)^K (x - b) on every client."""
    a, b = BOWLS.matrices(NODES)
    shares = SAMPLES / SAMPLES.sum()
    eye = np.eye(BOWLS.dim)
    left, right = eye, np.zeros(BOWLS.dim)
    for share, k in zip(shares, range(1, NODES), strict=True):
        power = np.linalg.matrix_power(eye - lr * a[k], local_steps)
        left = left - share * power
        right = right + share * (eye - power) @ b[k]
    return np.linalg.solve(left, right)


def drawn_clients(recorder: Recorder, rounds: int) -> list[list[int]]:
    """Who was sent the model in each round, read from the trace of what arrived."""
    return [
        [k for k in range(1, NODES) if any(e["round"] == r for e in recorder.named("received", k))]
        for r in range(rounds)
    ]


@pytest.mark.parametrize(("participation", "clients"), [(0.5, 2), (0.51, 3), ("1%", 1)])
def test_a_fraction_of_the_clients(participation: Any, clients: int) -> None:
    recorder = Recorder()
    result = run(20, recorder, participation=participation, local_steps=3)
    # the closing model goes to all with the number of the last round: take the updates instead
    drawn = [
        sorted(e["source"] for e in recorder.named("received", 0) if e["round"] == r)
        for r in range(20)
    ]
    assert all(len(chosen) == clients == len(set(chosen)) for chosen in drawn)
    assert {k for chosen in drawn for k in chosen} == {1, 2, 3, 4}
    assert drawn_clients(recorder, 19) == drawn[:19]
    np.testing.assert_allclose(models(result)[0], matrix_form(drawn, 3), rtol=1e-4, atol=1e-5)


def test_a_client_that_is_not_heard_is_left_out() -> None:
    protocol = {"kind": "fed_avg", "lr": 0.02, "local_steps": 3}
    made = plans(NODES, "star", protocol, BOWLS, 12, link=IDEAL, wait_s=1.0)
    result = simulate(made, crash_before_send={2: 5})
    want = matrix_form([[1, 2, 3, 4]] * 5 + [[1, 3, 4]] * 7, 3)
    np.testing.assert_allclose(result.nodes[0].model.numpy(), want, rtol=1e-4, atol=1e-5)


def test_a_round_in_which_nobody_is_heard_changes_nothing() -> None:
    protocol = {"kind": "fed_avg", "lr": 0.02, "local_steps": 1}

    def link(source: int, target: int) -> LinkShape:
        return LinkShape(loss=1.0) if target == 0 else IDEAL

    result = simulate(plans(NODES, "star", protocol, BOWLS, 3, link=link, wait_s=1.0))
    assert (models(result)[0] == 0).all()
    assert result.time_s == pytest.approx(3.0)


def test_it_needs_a_hub() -> None:
    protocol = Protocol.parse({"kind": "fed_avg", "lr": 0.1})
    ring = schedule_of(5, "ring")
    with pytest.raises(ValueError, match="node 0 reaches all others"):
        protocol.check(ring.union.in_degrees, ring.facts())
    star = schedule_of(5, "star")
    protocol.check(star.union.in_degrees, star.facts())
