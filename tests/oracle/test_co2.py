"""CO2 against its formulas with all nodes at once, and what its overlap hides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.bowls import Bowls, Matrix
from support.plans import IDEAL, plans, schedule_of
from support.recording import models

from tidings.api import Protocol
from tidings.links.shape import LinkShape
from tidings.runtime.plan import ComputePlan
from tidings.runtime.simulation import Simulated, simulate

pytestmark = pytest.mark.oracle

NODES, LOCAL = 4, 3
#: not a multiple of the nodes: the last part is shorter
BOWLS = Bowls(dim=10)
CO2: dict[str, Any] = {"kind": "co2", "lr": 0.03, "local_steps": LOCAL, "outer_momentum": 0.3}


def run(rounds: int, problem: Any = BOWLS, link: LinkShape = IDEAL, **options: Any) -> Simulated:
    plan_fields = {"compute": options.pop("compute", ComputePlan())}
    made = plans(NODES, "complete", CO2 | options, problem, rounds, link=link, **plan_fields)
    return simulate(made)


def formulas(
    rounds: int,
    lr: float = 0.03,
    beta: float = 0.3,
    alpha: float = 1.0,
    penalty: float | None = None,
    clip: float = np.inf,
    stale: bool = True,
) -> Matrix:
    """x_{t,0} after that many rounds; the average of round -1 is the starting point."""
    x = before = mean = np.zeros(BOWLS.dim)
    m = np.zeros(BOWLS.dim)
    for t in range(rounds):
        y = np.tile(x, (NODES, 1))
        for _ in range(LOCAL):
            y = y - lr * BOWLS.gradients(y)
        if not stale:
            before, mean = x, y.mean(axis=0)
        change = before - mean
        if penalty is not None:
            gap = penalty
        else:
            gap = 1 + np.linalg.norm(x - before) / np.linalg.norm(change) if t > 0 else 1.0
        m = np.clip(beta * m + change / gap, -clip, clip)
        before, mean, x = x, y.mean(axis=0), x - alpha * m
    return x


VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "gap": ({}, {}),
    "constant": ({"penalty": 2.0}, {"penalty": 2.0}),
    "clipped": ({"penalty": 1.0, "clip": 0.05}, {"penalty": 1.0, "clip": 0.05}),
    "slower": ({"outer_lr": 0.5}, {"alpha": 0.5}),
    "SlowMo": ({"overlap": False, "penalty": 1.0}, {"stale": False, "penalty": 1.0}),
    "Local SGD": (
        {"overlap": False, "penalty": 1.0, "outer_momentum": 0.0},
        {"stale": False, "penalty": 1.0, "beta": 0.0},
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("rounds", [1, 2, 3, 25])
def test_against_the_formulas(variant: str, rounds: int) -> None:
    parameters, of_formulas = VARIANTS[variant]
    found = models(run(rounds, **parameters))
    assert (found == found[0]).all()
    np.testing.assert_allclose(found[0], formulas(rounds, **of_formulas), rtol=1e-4, atol=1e-5)


def test_the_penalty_saves_a_step_that_staleness_breaks() -> None:
    """Fresh averages converge with it, stale ones diverge, and with Lambda they converge."""
    reached = {}
    for name, parameters in {
        "fresh": {"overlap": False, "penalty": 1.0},
        "stale": {"penalty": 1.0},
        "constant": {"penalty": 2.0},
        "gap": {"penalty": "gap"},
    }.items():
        found = models(run(300, lr=0.05, outer_momentum=0.5, **parameters))
        reached[name] = float(np.abs(found - BOWLS.optimum(NODES)).max())
    assert max(reached[name] for name in ("fresh", "constant", "gap")) < 1.0
    assert not reached["stale"] < 1e6


@pytest.mark.parametrize("rate_bit_per_s", [20e6, 2e6])
def test_a_round_takes_the_longer_of_computing_and_averaging(rate_bit_per_s: float) -> None:
    """Of the two phases each carries a part to every other node, over links of their own."""
    rounds, step_s = 20, 0.01
    link = LinkShape(rate_bit_per_s=rate_bit_per_s, delay_ns=1_000_000)
    options = {"link": link, "compute": ComputePlan(time_s=step_s)}
    phase_s = 8 * 4 * 2000 / rate_bit_per_s + 0.001
    computing, averaging = LOCAL * step_s, 2 * phase_s
    problem = {"kind": "quadratic", "dim": 8000, "structure": "diagonal"}
    overlapped = run(rounds, problem, **options).time_s
    one_by_one = run(rounds, problem, overlap=False, **options).time_s
    # nothing is under way in the first round
    expected = computing + (rounds - 1) * max(computing, averaging)
    assert overlapped == pytest.approx(expected, rel=0.03)
    assert one_by_one == pytest.approx(rounds * (computing + averaging), rel=0.03)


def test_traffic_as_measured() -> None:
    graph = schedule_of(NODES, "complete")
    protocol = Protocol.parse(CO2)
    each = sum(protocol.traffic(graph.facts()).values())
    assert each == 2 * NODES * (NODES - 1)
    result = run(11)
    sent = sum(link.messages for final in result.finals for link in final.links)
    assert sent == 10 * each
    with pytest.raises(ValueError, match="co2 needs an all-reduce among all nodes: use complete"):
        protocol.check(schedule_of(5, "ring").union.in_degrees, schedule_of(5, "ring").facts())
