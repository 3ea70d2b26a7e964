"""CHOCO-SGD against its matrix form, its invariants and the contraction of its theory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from support.bowls import Bowls, Matrix, line, ring
from support.plans import IDEAL, plans
from support.recording import Recorder, history, models

from tidings.api import Compressor, Inbox, Node
from tidings.protocols.compressed.choco_sgd import ChocoSGD, Difference, State
from tidings.runtime.simulation import simulate

pytestmark = pytest.mark.oracle

BOWLS = Bowls(dim=10)


def starts(nodes: int, dim: int) -> Matrix:
    """A starting point for every node, (nodes, dim), in float32."""
    return np.random.default_rng(5).standard_normal((nodes, dim)).astype(np.float32)


@dataclass(frozen=True)
class Traced(ChocoSGD):
    """Starts apart from the others, and writes down all copies after every round."""

    def start(self, x: torch.Tensor, node: Node) -> State:
        return super().start(torch.from_numpy(starts(node.n, len(x))[node.id]), node)

    def receive(self, state: State, inbox: Inbox[Difference], node: Node) -> State:
        state = super().receive(state, inbox, node)
        node.log("x", x=state.x.tolist())
        node.log("public", x=state.public.tolist())
        node.log("replicas", x={j: copy.tolist() for j, copy in state.replicas.items()})
        return state


def run(topology: str, nodes: int, rounds: int, **parameters: Any) -> Recorder:
    recorder = Recorder()
    parameters["compressor"] = Compressor.parse(parameters["compressor"])
    simulate(plans(nodes, topology, Traced(**parameters), BOWLS, rounds, link=IDEAL), recorder)
    return recorder


def top_k(v: Matrix, k: int) -> Matrix:
    """The k largest magnitudes of every row."""
    q = np.zeros_like(v)
    for row, out in zip(v, q, strict=True):
        keep = np.argsort(-np.abs(row), kind="stable")[:k]
        out[keep] = row[keep]
    return q


def matrix_form(w: Matrix, lr: float, gamma: float, k: int, rounds: int) -> Matrix:
    x = starts(len(w), BOWLS.dim).astype(np.float64)
    public = np.zeros_like(x)
    steps = []
    for _ in range(rounds):
        x = x - lr * BOWLS.gradients(x)
        public = public + top_k(x - public, k)
        x = x + gamma * (w - np.eye(len(w))) @ public
        steps.append(x)
    return np.array(steps)


TOP_3: dict[str, Any] = {"kind": "top_k", "ratio": 0.3}


@pytest.mark.parametrize(("topology", "w"), [("ring", ring(8)), ("line", line(5))])
def test_every_round(topology: str, w: Matrix) -> None:
    recorder = run(topology, len(w), 50, lr=0.02, gamma=0.3, compressor=TOP_3)
    want = matrix_form(w, 0.02, 0.3, 3, 50)
    np.testing.assert_allclose(history(recorder, "x", len(w)), want, rtol=1e-4, atol=1e-4)


def test_without_compression_and_with_gamma_one_it_is_d_psgd() -> None:
    identity = {"kind": "choco_sgd", "lr": 0.05, "gamma": 1.0, "compressor": "identity"}
    choco = models(simulate(plans(8, "ring", identity, BOWLS, 30, link=IDEAL)))
    plain = models(
        simulate(plans(8, "ring", {"kind": "d_psgd", "lr": 0.05}, BOWLS, 30, link=IDEAL))
    )
    np.testing.assert_allclose(choco, plain, atol=1e-5)


@pytest.mark.parametrize(
    "compressor", [TOP_3, {"kind": "rand_k", "ratio": 0.3}, "sign", "qsgd", "identity"]
)
def test_the_gossip_leaves_the_mean_alone(compressor: Any) -> None:
    recorder = run("ring", 6, 60, lr=0.0, gamma=0.2, compressor=compressor)
    means = history(recorder, "x", 6).mean(axis=1)
    want = starts(6, BOWLS.dim).mean(axis=0)
    np.testing.assert_allclose(means, np.broadcast_to(want, means.shape), atol=1e-6)


@pytest.mark.parametrize("compressor", [TOP_3, {"kind": "rand_k", "ratio": 0.3}, "sign", "qsgd"])
def test_replicas_are_bit_identical_to_what_they_replicate(compressor: Any) -> None:
    recorder = run("ring", 6, 40, lr=0.02, gamma=0.2, compressor=compressor)
    public = history(recorder, "public", 6)
    for node in range(6):
        for k, event in enumerate(recorder.named("replicas", node)):
            assert set(event["x"]) == {str((node - 1) % 6), str((node + 1) % 6)}
            for neighbour, copy in event["x"].items():
                assert copy == public[k, int(neighbour)].tolist()
    assert np.abs(public[-1]).min() > 0


def errors(recorder: Recorder, nodes: int) -> Matrix:
    """``sum_i |x_i - mean|^2 + |x_i - public_i|^2`` after every round."""
    x, public = history(recorder, "x", nodes), history(recorder, "public", nodes)
    mean = x.mean(axis=1, keepdims=True)
    error: Matrix = ((x - mean) ** 2).sum(axis=(1, 2)) + ((x - public) ** 2).sum(axis=(1, 2))
    return error


def test_it_contracts_as_its_theory_says() -> None:
    """Koloskova et al. 2019, Theorem 2: by (1 - p^2 delta / 82) a round at the gamma of there."""
    eigenvalues = np.linalg.eigvalsh(ring(8))
    p = 1 - max(abs(eigenvalues[0]), eigenvalues[-2])
    beta, delta = (1 - eigenvalues).max(), 3 / 10
    theory = p**2 * delta / (16 * p + p**2 + 4 * beta**2 + 2 * p * beta**2 - 8 * p * delta)
    bound = 1 - p**2 * delta / 82
    x = starts(8, BOWLS.dim)
    first = ((x - x.mean(axis=0)) ** 2).sum() + (x**2).sum()  # public copies start at zero
    error = errors(run("ring", 8, 150, lr=0.0, gamma=float(theory), compressor=TOP_3), 8)
    assert (error <= first * bound ** np.arange(1, 151)).all()
    # and far better than that with a gamma from practice
    practice = errors(run("ring", 8, 150, lr=0.0, gamma=0.3, compressor=TOP_3), 8)
    assert practice[-1] < 1e-4 * first


def test_traffic_is_smaller_by_what_the_compressor_promises() -> None:
    wide = Bowls(dim=1000)

    def payload(protocol: dict[str, Any]) -> int:
        final = simulate(plans(4, "ring", protocol, wide, 3, link=IDEAL)).finals[0]
        return sum(link.bytes.payload for link in final.links)

    dense = payload({"kind": "d_psgd", "lr": 0.01})
    sparse = payload(
        {"kind": "choco_sgd", "lr": 0.01, "compressor": {"kind": "top_k", "ratio": 0.05}}
    )
    assert dense == 3 * 2 * 4000
    assert sparse == dense / 20
