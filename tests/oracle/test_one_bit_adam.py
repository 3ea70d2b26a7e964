"""1-bit Adam against its formulas with all nodes at once, and what its all-reduce conserves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from support.bowls import Bowls, Matrix
from support.plans import IDEAL, plans, schedule_of
from support.recording import Recorder, history, models

from tidings.api import LocalProblem, Node, Protocol
from tidings.protocols.compressed.one_bit_adam import OneBitAdam, State
from tidings.runtime.simulation import Simulated, simulate
from tidings.wire.codec import Codec

pytestmark = pytest.mark.oracle

NODES = 4
#: not a multiple of the nodes: the last part is shorter
BOWLS = Bowls(dim=10)


@dataclass(frozen=True)
class Traced(OneBitAdam):
    """Writes down what goes into every 1-bit average, and what comes out and stays."""

    async def _average_signs(self, u: torch.Tensor, state: State, node: Node) -> torch.Tensor:
        out = await super()._average_signs(u, state, node)
        kept = {"error": state.error, "server_error": state.server_error}
        for name, vector in {"in": u, "out": out, **kept}.items():
            node.log(name, x=vector.tolist())
        return out


def run(
    rounds: int, recorder: Recorder | None = None, problem: Any = BOWLS, **parameters: Any
) -> Simulated:
    protocol = Traced(**({"lr": 0.02} | parameters))
    return simulate(plans(NODES, "complete", protocol, problem, rounds, link=IDEAL), recorder)


def signs(p: Matrix) -> Matrix:
    """|p|_2 / sqrt(d) sgn(p), with sgn(0) = 1."""
    return np.linalg.norm(p) / np.sqrt(len(p)) * np.where(p < 0, -1.0, 1.0)


def formulas(rounds: int, warm_up: int, lr: float = 0.02) -> Matrix:
    a, b = BOWLS.matrices(NODES)
    dim = BOWLS.dim
    x, m, v = np.zeros(dim), np.zeros(dim), np.zeros(dim)
    error, server_error = np.zeros((NODES, dim)), np.zeros(dim)
    parts = [slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 10)]
    for t in range(rounds):
        g = np.einsum("nij,nj->ni", a, x - b)
        if t < warm_up:
            m = 0.9 * m + 0.1 * g.mean(axis=0)
            v = 0.999 * v + 0.001 * g.mean(axis=0) ** 2
        else:
            p = 0.9 * m + 0.1 * g + error
            q = np.array([signs(row) for row in p])
            error = p - q
            c = q.mean(axis=0) + server_error
            m = np.concatenate([signs(c[part]) for part in parts])
            server_error = c - m
        x = x - lr * m / (np.sqrt(v) + 1e-8)
    return x


@pytest.mark.parametrize("warm_up", [1, 15])
def test_against_the_formulas(warm_up: int) -> None:
    found = models(run(40, warm_up=warm_up))
    assert (found == found[0]).all()
    np.testing.assert_allclose(found[0], formulas(40, warm_up), rtol=2e-4, atol=2e-4)


def test_without_an_end_of_the_warm_up_it_is_adam() -> None:
    found = models(run(40, warm_up=None))[0]
    np.testing.assert_allclose(found, formulas(40, 40), rtol=1e-4, atol=1e-4)


def test_what_signs_leave_out_is_kept() -> None:
    """sum_t out_t + mean_i error_i + server errors = sum_t mean_i in_t."""
    recorder = Recorder()
    run(60, recorder, warm_up=20)
    out = history(recorder, "out", NODES)[:, 0].sum(axis=0)
    error = history(recorder, "error", NODES)[-1].mean(axis=0)
    kept = [recorder.named("server_error", node)[-1]["x"] for node in range(NODES)]
    went_in = history(recorder, "in", NODES).mean(axis=1).sum(axis=0)
    np.testing.assert_allclose(out + error + np.concatenate(kept), went_in, rtol=1e-4, atol=1e-4)


@dataclass(frozen=True)
class PartlyFlat(Bowls):
    """The first two coordinates have no part in it."""

    def local(self, node: int, nodes: int, seed: int) -> LocalProblem:
        share = super().local(node, nodes, seed)
        whole = share.gradient

        def gradient(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
            found = whole(x, rng)
            found[:2] = 0.0
            return found

        share.gradient = gradient  # type: ignore[method-assign]
        return share


def test_coordinates_without_gradients_do_not_move() -> None:
    """Their variance is 0, and the least sign would move them by lr / epsilon."""
    found = models(run(30, None, PartlyFlat(dim=10), warm_up=10))[0]
    assert (found[:2] == 0).all()
    assert np.abs(found[2:]).min() > 0
    assert np.abs(found).max() < 10


def test_the_volume_is_exact() -> None:
    dim, warm_up, rounds = 1001, 2, 5
    links = run(rounds, None, Bowls(dim=dim), warm_up=warm_up).finals
    part = -(-dim // NODES)
    each = 2 * NODES * (NODES - 1)
    counts = [link.bytes for final in links for link in final.links]
    assert sum(count.payload for count in counts) == each * (
        warm_up * 4 * part + (rounds - warm_up) * -(-part // 8)
    )
    assert sum(count.metadata for count in counts) == each * (rounds - warm_up) * 4


def test_traffic_as_predicted() -> None:
    graph = schedule_of(NODES, "complete")
    for warm_up, width in ((None, 4 * 251), (3, 32 + 4)):
        protocol = Protocol.parse({"kind": "one_bit_adam", "lr": 0.1, "warm_up": warm_up})
        codec = Codec(protocol, 1001, nodes=NODES)
        kinds = protocol.traffic(graph.facts())
        assert sum(kinds.values()) == 2 * NODES * (NODES - 1)
        for kind in kinds:
            assert 0 <= codec.expected_bytes(kind) - width < 32
    ring = schedule_of(5, "ring")
    with pytest.raises(ValueError, match="use complete"):
        protocol.check(ring.union.in_degrees, ring.facts())
