"""DFedAvgM, DFedSAM and DFedSAM-MGS against their matrix form, and what reduces to what."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.bowls import Bowls, Matrix, ring
from support.plans import IDEAL, plans
from support.recording import models, refused

from tidings.api import Protocol
from tidings.links.shape import LinkShape
from tidings.runtime.simulation import Simulated, simulate

pytestmark = pytest.mark.oracle

BOWLS, NODES, LR = Bowls(), 8, 0.02


def run(kind: str, rounds: int = 20, link: LinkShape = IDEAL, **parameters: Any) -> Simulated:
    protocol = {"kind": kind, "lr": LR, "local_steps": 3, **parameters}
    return simulate(plans(NODES, "ring", protocol, BOWLS, rounds, link=link, wait_s=1.0))


def averagings(rounds: int, train: Any, gossips: int = 1) -> Matrix:
    x = np.zeros((NODES, BOWLS.dim))
    for _ in range(rounds):
        x = np.linalg.matrix_power(ring(NODES), gossips) @ train(x)
    return x


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_dfedavgm(momentum: float) -> None:
    def train(x: Matrix) -> Matrix:
        before = y = x
        for _ in range(3):
            before, y = y, y - LR * BOWLS.gradients(y) + momentum * (y - before)
        return y

    got = models(run("dfedavgm", momentum=momentum))
    np.testing.assert_allclose(got, averagings(20, train), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gossips", [1, 4])
@pytest.mark.parametrize("rho", [0.0, 0.3])
def test_dfedsam(rho: float, gossips: int) -> None:
    def train(x: Matrix) -> Matrix:
        for _ in range(3):
            g = BOWLS.gradients(x)
            up = rho * g / np.linalg.norm(g, axis=1, keepdims=True)
            x = x - LR * BOWLS.gradients(x + up)
        return x

    result = run("dfedsam", rho=rho, gossips=gossips)
    want = averagings(20, train, gossips)
    np.testing.assert_allclose(models(result), want, rtol=1e-4, atol=1e-5)
    sent = [sum(link.messages for link in final.links) for final in result.finals]
    assert sent == [20 * gossips * 2] * NODES
    assert [final.gradients for final in result.finals] == [20 * 3 * (2 if rho else 1)] * NODES


def test_what_is_the_same_bit_for_bit() -> None:
    plain = models(run("dfedavgm", momentum=0.0))
    assert np.array_equal(models(run("dfedsam", rho=0.0)), plain)
    step = simulate(plans(NODES, "ring", {"kind": "d_psgd", "lr": LR}, BOWLS, 20, link=IDEAL))
    assert np.array_equal(models(run("dfedavgm", momentum=0.9, local_steps=1)), models(step))
    assert not np.array_equal(models(run("dfedsam", rho=0.1)), plain)


def test_more_averagings_leave_less_disagreement() -> None:
    """|(I - J) W^Q Z| <= lambda^Q |(I - J) Z|, and so it is after many rounds."""

    def disagreement(gossips: int) -> float:
        x = models(run("dfedsam", 60, gossips=gossips))
        return float(np.linalg.norm(x - x.mean(axis=0)))

    apart = [disagreement(gossips) for gossips in (1, 2, 4, 8)]
    assert apart == sorted(apart, reverse=True)
    assert apart[3] < 0.25 * apart[0]


def test_steps_are_kept_apart_when_messages_are_lost() -> None:
    """A lost averaging is that one and no other: the rest is as it should be."""
    lossy = LinkShape(loss=0.1)
    result = run("dfedsam", 30, lossy, gossips=4, rho=0.0)
    assert refused(result)["missing"] > 50
    assert "duplicate" not in refused(result)
    clean = models(run("dfedsam", 30, gossips=4, rho=0.0))
    assert np.abs(models(result).mean(axis=0) - clean.mean(axis=0)).max() < 0.3


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"kind": "dfedavgm", "momentum": 1.0}, "below 1"),
        ({"kind": "dfedsam", "gossips": 0}, "gossips must be at least 1"),
        ({"kind": "dfedsam", "local_steps": 0}, "local_steps must be at least 1"),
        ({"kind": "dfedsam", "rho": -1.0}, "rho must not be negative"),
    ],
)
def test_parameters_that_make_no_sense(parameters: dict[str, Any], text: str) -> None:
    with pytest.raises(Exception, match=text):
        Protocol.parse({"lr": 0.1} | parameters)
