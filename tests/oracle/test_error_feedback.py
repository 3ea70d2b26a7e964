"""EC, D-EC, EControl, EF21 and EF21-W against their matrix forms, identities and theory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from support.bowls import Bowls, Matrix
from support.plans import IDEAL, plans, schedule_of
from support.recording import Recorder, models

from tidings.api import Compressor, Node, Problem, Protocol
from tidings.protocols.compressed.econtrol import EControl
from tidings.protocols.compressed.ef21 import error_ratio
from tidings.runtime.simulation import simulate
from tidings.wire.codec import Codec

pytestmark = pytest.mark.oracle

NODES, DIM, K = 5, 10, 3
BOWLS = Bowls(dim=DIM)
TOP_3: dict[str, Any] = {"kind": "top_k", "ratio": 0.3}


def run(
    kind: str, rounds: int, problem: Any = BOWLS, nodes: int = NODES, **parameters: Any
) -> Matrix:
    """The models of all nodes at the end."""
    protocol = {"kind": kind, "compressor": TOP_3} | parameters
    return models(simulate(plans(nodes, "star", protocol, problem, rounds, link=IDEAL)))


def top_k(v: Matrix, k: int = K) -> Matrix:
    """The k largest magnitudes of every row."""
    q = np.zeros_like(v)
    for row, out in zip(v, q, strict=True):
        keep = np.argsort(-np.abs(row), kind="stable")[:k]
        out[keep] = row[keep]
    return q


def gradients(x: Matrix) -> Matrix:
    """Of all nodes at one point, (n, d)."""
    a, b = BOWLS.matrices(NODES)
    return np.einsum("nij,nj->ni", a, x - b)


# -- the algorithms, all workers at once -----------------------------------------------------------


def ec(rounds: int, lr: float) -> Matrix:
    x, e = np.zeros(DIM), np.zeros((NODES, DIM))
    for _ in range(rounds):
        v = e + gradients(x)
        q = top_k(v)
        e = v - q
        x = x - lr * q.mean(axis=0)
    return x


def d_ec(rounds: int, lr: float) -> Matrix:
    x, e, h = np.zeros(DIM), np.zeros((NODES, DIM)), np.zeros((NODES, DIM))
    for _ in range(rounds):
        g = gradients(x)
        q, r = top_k(e + g - h), top_k(g - h)
        e = e + g - h - q
        x = x - lr * (h + q).mean(axis=0)
        h = h + r
    return x


def econtrol(rounds: int, lr: float, eta: float, dense_start: bool = True) -> Matrix:
    x, e, h = np.zeros(DIM), np.zeros((NODES, DIM)), np.zeros((NODES, DIM))
    for t in range(rounds):
        g = gradients(x)
        if t == 0 and dense_start:
            h = g
        else:
            q = top_k(eta * e + g - h)
            e = e + g - h - q
            h = h + q
        x = x - lr * h.mean(axis=0)
    return x


CASES: dict[str, tuple[dict[str, Any], Callable[[], Matrix]]] = {
    "ec": ({}, lambda: ec(60, 0.02)),
    "d_ec": ({}, lambda: d_ec(60, 0.02)),
    "econtrol": ({"eta": 0.1}, lambda: econtrol(60, 0.02, 0.1)),
    "econtrol from zero": (
        {"eta": 0.1, "dense_start": False},
        lambda: econtrol(60, 0.02, 0.1, dense_start=False),
    ),
    "ef21": ({}, lambda: econtrol(60, 0.02, 0.0)),
    "ef21 from zero": ({"dense_start": False}, lambda: econtrol(60, 0.02, 0.0, dense_start=False)),
}


@pytest.mark.parametrize("name", CASES)
def test_against_the_matrix_form(name: str) -> None:
    parameters, matrix_form = CASES[name]
    got = run(name.split()[0], 60, lr=0.02, **parameters)
    np.testing.assert_allclose(got, np.broadcast_to(matrix_form(), got.shape), atol=2e-5)


def test_eta_is_delta_over_400_unless_given() -> None:
    default = run("econtrol", 20, lr=0.02)
    np.testing.assert_array_equal(default, run("econtrol", 20, lr=0.02, eta=0.3 / 400))


def test_econtrol_with_eta_zero_is_ef21() -> None:
    np.testing.assert_array_equal(run("econtrol", 40, lr=0.02, eta=0.0), run("ef21", 40, lr=0.02))


def test_econtrol_that_leaves_nothing_out_is_sgd() -> None:
    x = np.zeros(DIM)
    for _ in range(40):
        x = x - 0.02 * gradients(x).mean(axis=0)
    for eta in (0.0, 0.3):
        got = run("econtrol", 40, lr=0.02, eta=eta, compressor="identity")
        np.testing.assert_allclose(got, np.broadcast_to(x, got.shape), atol=2e-5)


@dataclass(frozen=True)
class Traced(EControl):
    """Writes down gradients and errors."""

    def compress(self, memory: Any, gradient: torch.Tensor, node: Node) -> Any:
        memory, message = super().compress(memory, gradient, node)
        node.log("gradient", x=gradient.tolist())
        node.log("error", x=memory[0].tolist())
        return memory, message


@pytest.mark.parametrize("dense_start", [True, False])
def test_econtrol_is_sgd_but_for_the_error_that_it_holds_back(dense_start: bool) -> None:
    """x - lr mean e_i is where SGD on the same gradients would be."""
    recorder, lr = Recorder(), 0.02
    top_3 = Compressor.parse(TOP_3)
    protocol = Traced(lr=lr, compressor=top_3, eta=0.1, dense_start=dense_start)
    x = models(simulate(plans(NODES, "star", protocol, BOWLS, 30, link=IDEAL), recorder))[0]
    by_worker = {
        name: [[event["x"] for event in recorder.named(name, node)] for node in range(NODES)]
        for name in ("gradient", "error")
    }
    sgd = -lr * np.array(by_worker["gradient"]).mean(axis=0).sum(axis=0)
    held_back = lr * np.array(by_worker["error"]).mean(axis=0)[-1]
    assert np.abs(held_back).max() > 1e-2
    np.testing.assert_allclose(x - held_back, sgd, atol=1e-5)


# -- where they end --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["d_ec", "econtrol", "ef21"])
def test_exact_where_ec_stalls(kind: str) -> None:
    eta = {"eta": 0.1} if kind == "econtrol" else {}
    optimum = BOWLS.optimum(NODES)
    np.testing.assert_allclose(run(kind, 400, lr=0.03, **eta)[0], optimum, atol=1e-5)
    assert np.abs(run("ec", 400, lr=0.03)[0] - optimum).max() > 1e-3


# -- EF21's theory ---------------------------------------------------------------------------------


SPREAD: dict[str, Any] = {"kind": "least_squares", "dim": DIM, "scale_spread": 2.0}


def test_ef21_w_against_its_matrix_form() -> None:
    """With weights that differ, on least squares."""
    known = Problem.parse(SPREAD).local(0, NODES, 1).smoothness
    assert known is not None
    local = np.array(known.local)
    lr = 0.5 / known.average
    got = run("ef21_w", 40, SPREAD, lr=lr)[0]
    a, b = hessians(local)
    x, h = np.zeros(DIM), np.zeros((NODES, DIM))
    weights = local / local.sum()
    for t in range(40):
        g = (np.einsum("nij,j->ni", a, x) - b) / (NODES * weights[:, None])
        h = g if t == 0 else h + top_k(g - h)
        x = x - lr * weights @ h
    np.testing.assert_allclose(got, x, atol=2e-4)
    # top-k is homogeneous, so the weights change nothing but the step that theory allows
    np.testing.assert_allclose(got, run("ef21", 40, SPREAD, lr=lr)[0], atol=2e-4)


def test_ef21_w_differs_where_the_compressor_is_not_homogeneous() -> None:
    """Rounding to powers of two sees the weights, which top-k does not."""
    found = {
        (kind, compressor): run(kind, 15, SPREAD, lr=0.002, compressor=compressor)[0]
        for kind in ("ef21", "ef21_w")
        for compressor in ("top_k", "natural")
    }
    same = np.abs(found["ef21", "top_k"] - found["ef21_w", "top_k"]).max()
    apart = np.abs(found["ef21", "natural"] - found["ef21_w", "natural"]).max()
    assert apart > 100 * same


def hessians(local: Matrix) -> tuple[Matrix, Matrix]:
    """Hessian and linear part of every node, from gradients at the origin and the unit vectors."""
    a, b = np.zeros((NODES, DIM, DIM)), np.zeros((NODES, DIM))
    rng = np.random.default_rng(0)
    for node in range(NODES):
        share = Problem.parse(SPREAD).local(node, NODES, 1)
        b[node] = -share.gradient(torch.zeros(DIM), rng).double().numpy()
        for j in range(DIM):
            a[node, :, j] = share.gradient(torch.eye(DIM)[j], rng).double().numpy() + b[node]
        assert np.linalg.eigvalsh(a[node])[-1] == pytest.approx(local[node], rel=1e-4)
    return a, b


def test_the_steps_of_the_theory() -> None:
    local = Problem.parse(SPREAD).local(0, NODES, 1)
    known = local.smoothness
    assert known is not None
    assert known.average <= known.arithmetic_mean < known.quadratic_mean < max(known.local)
    xi = np.sqrt(0.7) / (1 - np.sqrt(0.7))
    assert error_ratio(0.3) == pytest.approx(xi)
    assert xi == pytest.approx((1 + np.sqrt(0.7)) / 0.3 - 1)

    def step(kind: str, **parameters: Any) -> float:
        protocol = Protocol.parse({"kind": kind, "compressor": TOP_3} | parameters)
        return protocol.step_size(local)  # type: ignore[attr-defined, no-any-return]

    assert step("ef21") == pytest.approx(1 / (known.average + known.quadratic_mean * xi))
    assert step("ef21_w") == pytest.approx(1 / (known.average + known.arithmetic_mean * xi))
    assert step("ef21", smoothness="arithmetic") == step("ef21_w")
    assert step("ef21", step_factor=4.0) == pytest.approx(4 * step("ef21"))
    assert step("ef21", lr=0.25) == 0.25
    # less is sent, or gradients are noisy: a smaller step
    assert step("ef21") > step("ef21", participation="50%") > step("ef21", participation="10%")
    assert step("ef21") > step("ef21", stochastic_gradients=True)


@pytest.mark.parametrize("participation", [0.3, 0.7])
def test_the_ratio_under_partial_participation_is_the_best_of_its_family(
    participation: float,
) -> None:
    """Over all splits r of Young's inequality in the rounds that a worker sits out."""
    theta, growth = 1 - np.sqrt(0.7), 0.7 / (1 - np.sqrt(0.7))
    r = np.geomspace(1e-6, participation * theta / (1 - participation), 200_001)[:-1]
    grows = participation * growth + (1 - participation) * (1 + 1 / r)
    falls = participation * theta - (1 - participation) * r
    best = np.sqrt((grows / falls).min())
    assert error_ratio(0.3, participation) == pytest.approx(best, rel=1e-6)
    assert error_ratio(0.3, 1.0) < best


def test_part_of_the_workers() -> None:
    recorder = Recorder()
    protocol = {"kind": "ef21", "lr": 0.01, "compressor": TOP_3, "participation": "40%"}
    made = plans(NODES, "star", protocol, BOWLS, 300, link=IDEAL, trace=True)
    result = simulate(made, recorder)
    updates = [e for e in recorder.named("received", 0) if e["round"] > 0]
    # 4 workers send with probability 0.4; standard deviation 17
    assert abs(len(updates) - 299 * 4 * 0.4) < 5 * 17
    assert {e["source"] for e in updates} == {1, 2, 3, 4}
    np.testing.assert_allclose(models(result)[0], BOWLS.optimum(NODES), atol=1e-3)


def test_what_it_needs_is_said() -> None:
    digits = Problem.parse({"kind": "digits", "hidden": 4}).local(0, 2, 0)
    with pytest.raises(ValueError, match="give lr"):
        Protocol.parse("ef21").check_problem(digits)
    with pytest.raises(ValueError, match="does not know"):
        Protocol.parse({"kind": "ef21_w", "lr": 0.1}).check_problem(digits)
    quantised = Protocol.parse({"kind": "econtrol", "lr": 0.1, "compressor": "qsgd"})
    with pytest.raises(ValueError, match="of: qsgd"):
        quantised.check_problem(digits)
    ring = schedule_of(5, "ring")
    with pytest.raises(ValueError, match="node 0 reaches all others"):
        quantised.check(ring.union.in_degrees, ring.facts())


# -- bytes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ec", "d_ec", "econtrol", "ef21"])
def test_bytes_are_what_the_compressor_says(kind: str) -> None:
    wide = Bowls(dim=400)
    compressor = {"kind": "rand_k", "ratio": 0.1}
    protocol = {"kind": kind, "lr": 0.01, "compressor": compressor}
    first, later = (
        simulate(plans(4, "star", protocol, wide, rounds, link=IDEAL)).finals for rounds in (1, 3)
    )

    def up(finals: Any) -> int:
        return sum(k.bytes.payload + k.bytes.metadata for f in finals[1:] for k in f.links)

    def down(finals: Any) -> int:
        return sum(k.bytes.payload for k in finals[0].links)

    a_message = Compressor.parse(compressor).max_bytes(400) * (2 if kind == "d_ec" else 1)
    dense_first = kind in ("econtrol", "ef21")
    assert up(first) == 3 * (1600 if dense_first else a_message)
    assert up(later) - up(first) == 2 * 3 * a_message
    assert down(later) == 3 * 3 * 1600
    parsed = Protocol.parse(protocol)
    codec, facts = Codec(parsed, 400), schedule_of(4, "star").facts()
    predicted = sum(codec.expected_bytes(m) * count for m, count in parsed.traffic(facts).items())
    if not dense_first:
        headers = sum(k.bytes.header for final in later for k in final.links)
        assert (up(later) + down(later) + headers) / 3 == pytest.approx(predicted, rel=0.02)
