"""FedAU: estimates, closed form, where the weightings settle; patterns of participation."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from support.bowls import Bowls, Matrix
from support.plans import IDEAL, plans
from support.recording import Recorder, models

from tidings.api import Participation, Problem, participations
from tidings.protocols.federated.fed_au import Estimate
from tidings.runtime.plan import derive_rng
from tidings.runtime.simulation import Simulated, simulate
from tidings.units import Ratio

pytestmark = pytest.mark.oracle

BOWLS, NODES = Bowls(), 6
BY_POSITION = {"kind": "bernoulli", "by": "position", "mean": "40%", "least": "10%"}
#: from 10 % up to 70 %
SHARES = np.linspace(0.1, 0.7, NODES - 1)


def run(
    rounds: int, bowls: Bowls = BOWLS, recorder: Recorder | None = None, **parameters: Any
) -> Simulated:
    protocol = {"kind": "fed_au", "participation": BY_POSITION, **parameters}
    made = plans(NODES, "star", protocol, bowls, rounds, link=IDEAL, trace=True)
    return simulate(made, recorder)


def presence(rounds: int) -> np.ndarray:
    """Who is there in which round, (rounds, clients), from the streams that the nodes draw from."""
    pattern = Participation.parse(BY_POSITION)
    columns = [
        list(itertools.islice(pattern.rounds(p, derive_rng(1, k, "participation")), rounds))
        for k, p in enumerate(SHARES, start=1)
    ]
    return np.array(columns).T


def weights(there: np.ndarray, cutoff: int) -> Matrix:
    """The weight of each client in each round, written as the mean over its closed intervals."""
    found = np.ones(there.shape)
    for k in range(there.shape[1]):
        lengths: list[int] = []
        open_ = 0
        for t in range(there.shape[0]):
            found[t, k] = np.mean(lengths) if lengths else 1.0
            open_ += 1
            if there[t, k] or open_ == cutoff:
                lengths.append(open_)
                open_ = 0
    return found


@pytest.mark.parametrize("cutoff", [3, 50])
def test_the_closed_form(cutoff: int) -> None:
    rounds, lr, steps = 60, 0.02, 2
    a, b = BOWLS.matrices(NODES)
    there = presence(rounds)
    w = weights(there, cutoff)
    x = np.zeros(BOWLS.dim)
    for t in range(rounds):
        step = np.zeros(BOWLS.dim)
        for k in np.flatnonzero(there[t]) + 1:
            y = x
            for _ in range(steps):
                y = y - lr * a[k] @ (y - b[k])
            step += w[t, k - 1] * (y - x)
        x = x + 0.8 * step / (NODES - 1)
    got = models(run(rounds, lr=lr, local_steps=steps, server_lr=0.8, cutoff=cutoff))
    np.testing.assert_allclose(got[0], x, rtol=1e-4, atol=1e-5)
    assert (got == got[0]).all()


@pytest.mark.parametrize(("p", "cutoff"), [(0.1, 50), (0.02, 50), (0.3, 5)])
def test_the_mean_of_an_interval(p: float, cutoff: int) -> None:
    """E[S] = (1 - (1 - p)^K) / p."""
    rng, estimate = np.random.default_rng(3), Estimate(cutoff)
    for present in rng.random(100_000) < p:
        estimate.passed(bool(present))
    assert estimate.weight == pytest.approx((1 - (1 - p) ** cutoff) / p, rel=0.03)


def test_where_the_weightings_settle() -> None:
    """Plain averaging at the minimum of the p_n-weighted sum, estimated weights at the true one."""
    even = Bowls(dim=2, mu=1.0, smoothness=1.0 + 1e-9)

    def at(weighting: str, server_lr: float) -> Matrix:
        found = [
            models(run(rounds, even, lr=0.03, local_steps=1, weighting=weighting,
                       server_lr=server_lr))[0]
            for rounds in (400, 460, 520)
        ]  # fmt: skip
        return np.mean(found, axis=0)

    truth = even.optimum(NODES, weights=[0.0, *np.ones(NODES - 1)])
    skewed = even.optimum(NODES, weights=[0.0, *SHARES])
    way = np.linalg.norm(truth - skewed)
    assert np.linalg.norm(at("estimated", 1.0) - truth) < 0.3 * way
    assert np.linalg.norm(at("all", 2.0) - skewed) < 0.3 * way


@pytest.mark.parametrize("kind", sorted(participations))
@pytest.mark.parametrize("share", [0.05, 0.3])
def test_patterns_keep_to_their_share(kind: str, share: float) -> None:
    pattern = Participation.parse(kind)
    rounds = list(itertools.islice(pattern.rounds(share, np.random.default_rng(1)), 60_000))
    assert np.mean(rounds) == pytest.approx(share, rel=0.1)


def test_markov_clients_come_seldom_and_stay() -> None:
    pattern = Participation.parse({"kind": "markov", "arrival": "1%"})
    rounds = np.array(list(itertools.islice(pattern.rounds(0.3, np.random.default_rng(1)), 60_000)))
    arrivals = np.sum(rounds[1:] & ~rounds[:-1]) / np.sum(~rounds)
    assert arrivals == pytest.approx(0.01, rel=0.15)
    always = Participation.parse({"kind": "markov", "mean": "100%", "by": "equal"})
    assert all(itertools.islice(always.rounds(1.0, np.random.default_rng(1)), 100))


def test_shares_by_labels() -> None:
    """p_n = max(least, mean L <labels, q>): on average over many q it is the mean."""
    problem = Problem.parse(
        {"kind": "digits", "partition": {"kind": "label_shards", "shards_per_node": 1}}
    )
    shares = [problem.local(n, 10, 1) for n in range(10)]
    for local in shares:
        assert local.label_shares is not None
        assert len(local.label_shares) == 10
        assert local.label_shares.sum() == pytest.approx(1.0)
    pattern = Participation.parse({"kind": "bernoulli", "mean": "5%", "least": "0.001%"})
    found = np.array(
        [
            [
                pattern.share(n, 10, local, np.random.default_rng(s))
                for n, local in enumerate(shares)
            ]
            for s in range(200)
        ]
    )
    assert found.mean() == pytest.approx(0.05, rel=0.1)
    assert found.std() > 0.05
    least = Participation.parse({"kind": "bernoulli", "mean": "5%", "least": "2%"})
    assert least.share(3, 10, shares[3], np.random.default_rng(0)) >= Ratio(0.02)
