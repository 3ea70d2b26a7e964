"""FedAsync, FedBuff and FedFix: replays in closed form, and the points that they settle at."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from support.bowls import Bowls, Matrix
from support.plans import IDEAL, plans
from support.recording import Recorder, models

from tidings.links.shape import LinkShape
from tidings.protocols.federated.async_server import Arrival, AsyncServer, Server
from tidings.protocols.federated.fed_async import FedAsync
from tidings.protocols.federated.fed_buff import FedBuff
from tidings.protocols.federated.fed_fix import FedFix
from tidings.runtime.plan import ComputePlan
from tidings.runtime.simulation import Simulated, simulate
from tidings.units import Duration, Ratio

pytestmark = pytest.mark.oracle

NODES, LR, STEPS = 6, 0.02, 3
#: seconds that a client takes for one gradient; no two are commensurable
GRADIENT_S = np.array([0.11, 0.137, 0.231, 0.353, 0.497])
#: client i stands for i + 1 samples
SAMPLES = np.array([2.0, 3.0, 4.0, 5.0, 6.0])

Log = list[list[tuple[int, int]]]


def traced(kind: type[AsyncServer], **parameters: Any) -> AsyncServer:
    """The protocol, with the (client, version) of each aggregation in its ``log``."""

    @dataclass(frozen=True, kw_only=True)
    class Traced(kind):  # type: ignore[misc, valid-type]
        """Writes down what is aggregated."""

        log: Log = field(default_factory=list, init=False)

        async def collect(self, server: Server) -> Sequence[Arrival]:
            arrivals = await super().collect(server)
            self.log.append([(a.client, server.node.round - a.staleness) for a in arrivals])
            return arrivals

    return Traced(**{"lr": LR, "local_steps": STEPS} | parameters)


def run(protocol: AsyncServer, rounds: int, bowls: Bowls, **options: Any) -> Simulated:
    paces = {i: {"compute": ComputePlan(time_s=float(GRADIENT_S[i - 1]))} for i in range(1, NODES)}
    options = {"link": IDEAL, "wait_s": 5.0} | options
    recorder = options.pop("recorder", None)
    made = plans(NODES, "star", protocol, bowls, rounds, per_node=paces, **options)
    return simulate(made, recorder)


# -- replays ---------------------------------------------------------------------------------------


def local(bowls: Bowls, k: int, x: Matrix, rho: float = 0.0) -> Matrix:
    """The model after the local steps of client k."""
    a, b = bowls.matrices(NODES)
    y = x
    for _ in range(STEPS):
        y = y - LR * (a[k] @ (y - b[k]) + rho * (y - x))
    return y


def async_weight(u: int, correction: float) -> float:
    return min(1.0, 0.5 * (1 + u) ** -0.5 * correction)


def async_step(x: Matrix, made: Matrix, sent: Matrix, u: int, correction: float) -> Matrix:
    weight = async_weight(u, correction)
    return (1 - weight) * x + weight * made


def buff_step(x: Matrix, made: Matrix, sent: Matrix, u: int, correction: float) -> Matrix:
    return x + 0.7 * correction / math.sqrt(1 + u) * (made - sent)


def fix_step(x: Matrix, made: Matrix, sent: Matrix, u: int, correction: float) -> Matrix:
    return x + 0.7 * correction * (made - sent)


Step = Callable[[Matrix, Matrix, Matrix, int, float], Matrix]
#: protocol, step, and the weight of an update where weights are not corrected
CASES: dict[str, tuple[type[AsyncServer], dict[str, Any], Step, Callable[[int], float]]] = {
    "fed_async": (FedAsync, {"alpha": 0.5, "rho": 0.3}, async_step, lambda k: 1.0),
    "fed_buff": (FedBuff, {"buffer": 4, "server_lr": 0.7}, buff_step, lambda k: 1 / 4),
    "fed_fix": (
        FedFix,
        {"window": Duration(0.5), "server_lr": 0.7},
        fix_step,
        lambda k: SAMPLES[k - 1] / SAMPLES.sum(),
    ),
}


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_a_replay_of_what_was_aggregated(name: str, unbiased: bool) -> None:
    kind, parameters, step, plain = CASES[name]
    bowls = Bowls()
    protocol = traced(kind, unbiased=unbiased, **parameters)
    got = models(run(protocol, 60, bowls))
    log: Log = protocol.log  # type: ignore[attr-defined]
    rho = parameters.get("rho", 0.0)
    versions, counts = [np.zeros(bowls.dim)], Counter[int]()
    known: dict[int, float] = {}
    for round_, batch in enumerate(log):
        x = versions[-1]
        known |= {k: SAMPLES[k - 1] for k, _ in batch}
        counts.update(k for k, _ in batch)
        for k, version in batch:
            sent = versions[version]
            share = known[k] / np.mean(list(known.values())) / (NODES - 1)
            correction = share * (round_ + 1) / counts[k] if unbiased else plain(k)
            x = step(x, local(bowls, k, sent, rho), sent, round_ - version, correction)
        versions.append(x)
    assert len(log) == 60
    assert set(counts) == {1, 2, 3, 4, 5}
    if not (unbiased or name == "fed_fix"):  # there the shares are known in part only at first
        assert all(len(batch) == (1 if name == "fed_async" else 4) for batch in log)
    if unbiased or name != "fed_fix":
        np.testing.assert_allclose(got[0], versions[-1], rtol=1e-4, atol=1e-5)
    # the last model is given to all
    assert (got == got[0]).all()


# -- where they settle -----------------------------------------------------------------------------

#: curvature 1 everywhere: the minimiser of sum q_i f_i is the mean of the b_i weighted by q
ROUND = Bowls(dim=2, mu=1.0, smoothness=1.0 + 1e-9)
TAU_S = STEPS * GRADIENT_S


def settled(kind: type[AsyncServer], rounds: int, **parameters: Any) -> tuple[Matrix, Matrix]:
    """Mean model of the last third of the rounds, and the mean staleness of each client there."""
    seen: list[Matrix] = []

    @dataclass(frozen=True, kw_only=True)
    class Watched(kind):  # type: ignore[misc, valid-type]
        """Keeps the models and what was aggregated."""

        log: Log = field(default_factory=list, init=False)

        def aggregate(self, x: Any, arrivals: Sequence[Arrival], server: Server) -> None:
            super().aggregate(x, arrivals, server)
            seen.append(x.double().numpy().copy())
            self.log.append([(a.client, a.staleness) for a in arrivals])

    protocol = Watched(**{"lr": LR, "local_steps": STEPS} | parameters)
    run(protocol, rounds, ROUND)
    late = protocol.log[-rounds // 3 :]
    stale = [[u for batch in late for j, u in batch if j == k] for k in range(1, NODES)]
    return np.mean(seen[-rounds // 3 :], axis=0), np.array([np.mean(us) for us in stale])


def weighted(q: Matrix) -> Matrix:
    return ROUND.optimum(NODES, weights=[0.0, *q])


def assert_at(point: Matrix, want: Matrix, not_at: Matrix) -> None:
    """Within 12 % of the way to the point that it must not be at."""
    way = float(np.linalg.norm(want - not_at))
    assert np.linalg.norm(point - want) < 0.12 * way


def test_fed_async_settles_at_the_objective_weighted_by_speed() -> None:
    """Fraboni et al. 2023, table 1: q_i ~ 1 / tau_i; mixing adds a_i / (1 - a_i).

    For between two updates of client i its own pull a_i (x_i - x) and all others' cancel: it
    starts out from a model that is nearer to its own than the one that it comes back to.
    """
    fast = 1 / TAU_S
    point, stale = settled(FedAsync, 700, alpha=0.3, staleness="constant")
    assert_at(point, weighted(fast), weighted(SAMPLES))
    # while a client trains the others are aggregated tau_i / tau_j times
    np.testing.assert_allclose(stale, TAU_S * fast.sum() - 1, rtol=0.05)
    point, stale = settled(FedAsync, 700, alpha=0.9)
    mixed = 0.9 / np.sqrt(1 + stale)
    assert_at(point, weighted(fast * mixed / (1 - mixed)), weighted(fast))
    point, _ = settled(FedAsync, 700, lr=0.1, alpha=0.1, staleness="constant", unbiased=True)
    corrected = 0.1 * SAMPLES / SAMPLES.sum() * fast.sum() / fast
    assert_at(point, weighted(fast * corrected / (1 - corrected)), weighted(fast))


def test_fed_buff_settles_at_the_objective_weighted_by_speed() -> None:
    point, _ = settled(FedBuff, 300, buffer=3, discount=False)
    assert_at(point, weighted(1 / TAU_S), weighted(SAMPLES))
    point, _ = settled(FedBuff, 300, buffer=3, discount=False, unbiased=True)
    assert_at(point, weighted(SAMPLES), weighted(1 / TAU_S))


def test_fed_fix_weighs_by_windows_unless_it_corrects() -> None:
    windows = np.ceil(TAU_S / 0.5)
    assert len(set(windows)) == 3
    point, _ = settled(FedFix, 300, window=Duration(0.5), unbiased=False)
    assert_at(point, weighted(SAMPLES / windows), weighted(SAMPLES))
    point, _ = settled(FedFix, 300, window=Duration(0.5))
    assert_at(point, weighted(SAMPLES), weighted(SAMPLES / windows))


def test_fed_fix_with_a_long_window_is_fed_avg() -> None:
    bowls = Bowls()
    fixed = run(FedFix(lr=LR, local_steps=STEPS, window=Duration(1.6)), 12, bowls)
    averaged = simulate(
        plans(NODES, "star", {"kind": "fed_avg", "lr": LR, "local_steps": STEPS}, bowls, 12)
    )
    np.testing.assert_allclose(models(fixed)[0], models(averaged)[0], atol=1e-5)
    assert fixed.time_s == pytest.approx(12 * 1.6)


# -- what comes in between -------------------------------------------------------------------------


def test_nobody_waits_for_a_slow_client() -> None:
    protocol = traced(FedAsync)
    run(protocol, 100, ROUND)
    counts = Counter(k for batch in protocol.log for k, _ in batch)  # type: ignore[attr-defined]
    want = 100 / TAU_S / (1 / TAU_S).sum()
    np.testing.assert_allclose([counts[k] for k in range(1, NODES)], want, atol=1.0)


def test_concurrency_bounds_how_many_train_at_a_time() -> None:
    protocol = traced(FedBuff, buffer=2, concurrency=Ratio(0.4))
    recorder = Recorder()
    run(protocol, 60, ROUND, recorder=recorder, trace=True)
    counts = Counter(k for batch in protocol.log for k, _ in batch)  # type: ignore[attr-defined]
    assert set(counts) == {1, 2, 3, 4, 5}
    orders = [(e["time_s"], 1) for k in range(1, NODES) for e in recorder.named("received", k)]
    updates = [(e["time_s"], -1) for e in recorder.named("received", 0)]
    training, most = 0, 0
    for _, change in sorted(orders[:-NODES] + updates):
        training += change
        most = max(most, training)
    assert most == 2


@pytest.mark.parametrize("kind", [FedAsync, FedBuff, FedFix])
def test_a_lost_message_or_a_dead_client_holds_nobody_up(kind: type[AsyncServer]) -> None:
    """A client that was not heard for the wait time-out is given the model again."""
    lossy = LinkShape(loss=0.2)
    protocol = traced(kind)
    run(protocol, 120, ROUND, link=lossy, wait_s=2.0)
    late = [k for batch in protocol.log[40:] for k, _ in batch]  # type: ignore[attr-defined]
    assert set(late) == {1, 2, 3, 4, 5}
    protocol = traced(kind)
    made = plans(NODES, "star", protocol, ROUND, 30, link=IDEAL, wait_s=0.2)
    result = simulate(made, crash_before_send={2: 1})
    counts = Counter(k for batch in protocol.log for k, _ in batch)  # type: ignore[attr-defined]
    assert counts[2] == 1
    assert counts[1] > 3
    assert result.nodes[0].ledger.completed == 30


def test_all_silent_is_a_round_without_change() -> None:
    deaf = LinkShape(loss=1.0)
    made = plans(3, "star", FedAsync(lr=LR), ROUND, 3, link=deaf, wait_s=1.0)
    result = simulate(made)
    assert (models(result) == 0).all()
    assert result.time_s >= 3.0
