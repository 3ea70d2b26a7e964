"""A2CiD2: its flow, what it conserves, and consensus as fast as published."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.linalg
import torch
from support.bowls import Bowls
from support.plans import IDEAL, plans, schedule_of
from support.recording import counters, models

from tidings.api import Node, Protocol
from tidings.links.shape import LinkShape
from tidings.protocols.asynchronous import a2cid2
from tidings.protocols.asynchronous.a2cid2 import A2CiD2, Pair
from tidings.runtime.simulation import Simulated, simulate
from tidings.units import Duration

pytestmark = pytest.mark.oracle

BOWLS = Bowls(dim=20)


@dataclass(frozen=True, kw_only=True)
class Scattered(A2CiD2):
    """Starts apart: standard normal models."""

    async def run(self, node: Node) -> None:
        node.model = start(node.id)
        await super().run(node)


def start(node: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(node).standard_normal(BOWLS.dim)).float()


def consensus(
    topology: str, nodes: int, units: int, link: LinkShape = IDEAL, accelerated: bool = True
) -> Simulated:
    protocol = Scattered(lr=0.0, unit=Duration(1.0), accelerated=accelerated)
    made = plans(nodes, topology, protocol, BOWLS, None, link=link)
    return simulate(made, stop_s=float(units))


def apart(result: Simulated) -> float:
    """Sum over nodes of the squared distance to the mean, per dimension."""
    x = models(result)
    return float(((x - x.mean(axis=0)) ** 2).sum() / BOWLS.dim)


def test_the_flow() -> None:
    rng = np.random.default_rng(0)
    x, twin = rng.standard_normal((2, 5))
    pair = Pair(torch.from_numpy(x).clone(), 0.3, 2.0)
    pair.twin.copy_(torch.from_numpy(twin))
    for t in (0.7, 0.5, 2.9):
        pair.advance(t)
    want = scipy.linalg.expm(2.9 * np.array([[-0.3, 0.3], [0.3, -0.3]])) @ np.stack([x, twin])
    np.testing.assert_allclose(torch.stack([pair.x, pair.twin]).numpy(), want, rtol=1e-12)


def test_the_constants() -> None:
    """Ring of 32, one averaging per node and unit: chi_1 = 52.0, chi_2 = 0.97."""
    facts = schedule_of(32, "ring").facts()
    eta, gain = A2CiD2(lr=0.0).constants(facts)
    chi_1, chi_2 = 1 / (1 - math.cos(2 * math.pi / 32)), 31 / 32
    assert eta == pytest.approx(1 / (2 * math.sqrt(chi_1 * chi_2)))
    assert gain == pytest.approx(math.sqrt(chi_1 / chi_2) / 2)
    # on a complete graph it is plain gossip: the twin moves as the model does
    assert A2CiD2(lr=0.0).constants(schedule_of(8, "complete").facts())[1] == pytest.approx(0.5)


def test_consensus_on_a_ring_of_32() -> None:
    """exp(-T / chi_1) without, about exp(-0.8 T / sqrt(chi_1 chi_2)) with momentum."""
    plain = apart(consensus("ring", 32, 100, accelerated=False))
    quick = apart(consensus("ring", 32, 100))
    assert 0.05 < plain < 0.5
    assert quick < 2e-3
    assert quick < plain / 100


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_averaging_conserves_the_sum(loss: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of x + xt at any time, of x alone once all nodes are at a common time."""
    pairs: list[Pair] = []

    class Captured(Pair):
        def __init__(self, x: torch.Tensor, eta: float, gain: float) -> None:
            super().__init__(x, eta, gain)
            pairs.append(self)

    monkeypatch.setattr(a2cid2, "Pair", Captured)
    result = consensus("ring", 6, 30, LinkShape(delay_ns=5_000_000, loss=loss))
    want = sum(start(node).double().numpy() for node in range(6))
    both = sum(pair.x + pair.twin for pair in pairs)
    np.testing.assert_allclose(np.asarray(both), 2 * want, atol=1e-4)
    for pair in pairs:
        pair.advance(1 + max(other.t for other in pairs))
    np.testing.assert_allclose(np.asarray(sum(pair.x for pair in pairs)), want, atol=1e-4)
    # a node takes part in one averaging per unit
    assert abs(sum(counters(result, "exchange_committed")) - 6 * 30) < 4 * math.sqrt(2 * 6 * 30)


def test_on_a_complete_graph_it_is_plain_gossip() -> None:
    with_, without = (consensus("complete", 6, 20, accelerated=way) for way in (True, False))
    np.testing.assert_allclose(models(with_), models(without), atol=1e-5)


def test_it_learns() -> None:
    protocol = {"kind": "a2cid2", "lr": 0.02, "momentum": 0.5, "unit": "1s"}
    result = simulate(plans(8, "ring", protocol, Bowls(apart=0.1), 150, link=IDEAL))
    x = models(result)
    optimum = Bowls(apart=0.1).optimum(8)
    # a constant step leaves the nodes apart, and their mean near
    assert np.abs(x - optimum).max() < 0.2 * np.abs(optimum).max()
    assert np.abs(x.mean(axis=0) - optimum).max() < 0.1
    with pytest.raises(Exception, match="rate must be above zero"):
        Protocol.parse({"kind": "a2cid2", "lr": 0.1, "rate": 0.0})
