"""DADAO: a replay of its events in matrix form, its invariants, its speed and its gossip rate."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from support.bowls import Bowls, Matrix
from support.plans import IDEAL, LINK, plans, schedule_of
from support.recording import counters, models
from support.watched import Happened, TracedDADAO, committed_pairs

from tidings.api import LocalProblem, Node, Outcome, Protocol
from tidings.errors import RunError
from tidings.links.shape import LinkShape
from tidings.protocols.asynchronous import dadao
from tidings.protocols.asynchronous.dadao import DADAO, At
from tidings.protocols.asynchronous.dadao_state import State
from tidings.runtime.plan import ComputePlan
from tidings.runtime.simulation import Simulated, simulate
from tidings.units import Duration

pytestmark = pytest.mark.oracle

BOWLS = Bowls(dim=5)
NODES = 8
NU, L = BOWLS.mu / 2, BOWLS.smoothness


def chi(topology: str, nodes: int) -> tuple[float, float]:
    """chi_1 and chi_2 of the Laplacian divided by the number of edges."""
    graph = schedule_of(nodes, topology).union
    laplacian = np.zeros((nodes, nodes))
    for i, j in graph.edges:
        e = np.eye(nodes)[i] - np.eye(nodes)[j]
        laplacian += np.outer(e, e) / len(graph.edges)
    inverse = np.linalg.pinv(laplacian)
    resistances = [
        inverse[i, i] + inverse[j, j] - inverse[i, j] - inverse[j, i] for i, j in graph.edges
    ]
    return 1 / np.linalg.eigvalsh(laplacian)[1], max(resistances) / 2


def constants(topology: str, nodes: int) -> tuple[Matrix, float, float]:
    """The 6 x 6 matrix of the flow of (X, X~, Y, Y~, Z, Z~), beta_t, and the gossip rate."""
    root = math.sqrt(NU / L)
    eta = eta_t = root / 8
    alpha, alpha_t, theta = root / 4, root / 8, 1 / (2 * root)
    chi_1, chi_2 = chi(topology, nodes)
    rate = math.sqrt(2 * chi_1 * chi_2)
    flow = np.zeros((6, 6))
    flow[0, [0, 1]] = -eta, eta
    flow[1, [0, 1]] = eta_t, -eta_t
    flow[2, [2, 3]] = -alpha, alpha
    flow[3, [1, 2, 4]] = -theta * NU, -theta, -theta
    flow[4, [4, 5]] = -alpha, alpha
    flow[5, [4, 5]] = alpha_t, -alpha_t
    return flow, 2 * (chi_1 / rate) / root, rate


def run(
    topology: str = "ring",
    link: LinkShape = IDEAL,
    rounds: int | None = None,
    stop_s: float | None = None,
    nodes: int = NODES,
    **options: Any,
) -> tuple[TracedDADAO, Simulated]:
    protocol = TracedDADAO(unit=Duration(1.0))
    made = plans(nodes, topology, protocol, BOWLS, rounds, link=link, **options)
    return protocol, simulate(made, stop_s=stop_s)


class Replay:
    """All nodes in one array (n, 6, d), float64; each has a time of its own."""

    def __init__(self, topology: str, nodes: int) -> None:
        self.flow, self.beta_t, _ = constants(topology, nodes)
        self.rows = np.zeros((nodes, 6, BOWLS.dim))
        self.t = np.zeros(nodes)
        #: X after the last step of each node
        self.models = np.zeros((nodes, BOWLS.dim))
        self.a, self.b = BOWLS.matrices(nodes)

    def advance(self, i: int, t: float) -> None:
        assert t >= self.t[i] - 1e-9
        self.rows[i] = scipy.linalg.expm(self.flow * max(0.0, t - self.t[i])) @ self.rows[i]
        self.t[i] = max(t, self.t[i])

    def step(self, i: int, t: float, point: Matrix) -> None:
        self.advance(i, t)
        jump = self.a[i] @ (point - self.b[i]) - NU * point - self.rows[i, 3]
        self.rows[i, 0] -= jump / (4 * L)
        self.rows[i, 1] -= jump / (4 * math.sqrt(NU * L))
        self.rows[i, 3] += (math.sqrt(NU / L) / 4 + 1) * jump
        self.models[i] = self.rows[i, 0]

    def gossip(self, i: int, mine: Matrix, theirs: Matrix) -> None:
        self.rows[i, 4] -= (mine - theirs) / 2
        self.rows[i, 5] -= self.beta_t * (mine - theirs)

    def play(self, events: list[Happened]) -> None:
        in_return = committed_pairs(events)
        points: dict[int, Matrix] = {}
        offered: dict[tuple[int, int], Matrix] = {}
        times: dict[tuple[int, int], float] = {}
        for event in events:
            i = event.node
            if event.what == "look":
                self.advance(i, event.time_s)
                points[i] = self.rows[i, 0].copy()
            elif event.what == "step":
                self.step(i, event.time_s, points[i])
            elif event.what == "offer":
                self.advance(i, event.t)
                offered[i, event.offer] = self.rows[i, 2] + self.rows[i, 4]
                times[i, event.offer] = event.t
            else:
                mine, theirs = (i, event.offer), (event.peer, in_return[i, event.offer])
                assert times[mine] == times[theirs]  # both ends at one common time
                self.gossip(i, offered[mine], offered[theirs])


LINKS = {"ideal": IDEAL, "delayed": LINK, "lossy": LinkShape(delay_ns=10_000_000, loss=0.1)}


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("topology", ["ring", "star"])
def test_a_replay_in_matrix_form(topology: str, link: str) -> None:
    protocol, result = run(topology, LINKS[link], rounds=25)
    replay = Replay(topology, NODES)
    replay.play(protocol.events)
    happened = Counter(event.what for event in protocol.events)
    assert happened["step"] == happened["look"] == 25 * NODES
    assert happened["commit"] > 150
    np.testing.assert_allclose(models(result), replay.models, rtol=1e-4, atol=1e-4)


# -- invariants ------------------------------------------------------------------------------------


def capture(monkeypatch: pytest.MonkeyPatch) -> list[State]:
    """The states of the nodes of the next run, in no particular order."""
    states: list[State] = []

    class Captured(State):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            states.append(self)

    monkeypatch.setattr(dadao, "State", Captured)
    return states


@pytest.mark.parametrize("link", LINKS)
def test_the_duals_sum_to_zero_at_a_common_time(link: str, monkeypatch: pytest.MonkeyPatch) -> None:
    states = capture(monkeypatch)
    run(link=LINKS[link], stop_s=20.0)
    assert len(states) == NODES
    before = sum(state.rows[4:] for state in states)
    common = max(state.t for state in states)
    for state in states:
        state.advance(common)
    after = sum(state.rows[4:] for state in states)
    size = max(float(state.rows[4:].abs().max()) for state in states)
    assert size > 0.1
    assert float(torch.as_tensor(after).abs().max()) < 1e-6 * size
    assert float(torch.as_tensor(before).abs().max()) > 1e-4 * size  # not so at different times


def at_the_optimum() -> list[State]:
    """X = X~ = x*, Y = Y~ = grad f_i(x*) - nu x*, Z = Z~ = -Y - nu x*."""
    a, b = BOWLS.matrices(NODES)
    optimum = BOWLS.optimum(NODES)
    chi_1, _ = chi("ring", NODES)
    rate = constants("ring", NODES)[2]
    states = []
    for i in range(NODES):
        state = State(torch.zeros(BOWLS.dim), BOWLS.mu, L, chi_1 / rate)
        y = a[i] @ (optimum - b[i]) - NU * optimum
        z = -y - NU * optimum
        state.rows = torch.from_numpy(np.stack([optimum, optimum, y, y, z, z]))
        states.append(state)
    return states


def test_the_optimum_is_a_fixed_point_of_every_event() -> None:
    a, b = BOWLS.matrices(NODES)
    states, rng = at_the_optimum(), np.random.default_rng(2)
    still = [state.rows.clone() for state in states]
    t = 0.0
    for _ in range(400):
        t += rng.exponential(0.1)
        i = int(rng.integers(NODES))
        state, other = states[i], states[(i + 1) % NODES]
        state.advance(t)
        if rng.random() < 0.5:
            x = state.rows[0].clone()
            state.gradient_event(x, torch.from_numpy(a[i] @ (x.numpy() - b[i])))
        else:
            other.advance(t)
            mine, theirs = (s.rows[2] + s.rows[4] for s in (state, other))
            state.gossip_event(mine, theirs)
            other.gossip_event(theirs, mine)
    for state, rows in zip(states, still, strict=True):
        torch.testing.assert_close(state.rows, rows, rtol=0, atol=1e-9)


def test_a_gossip_is_antisymmetric_and_leaves_the_model_alone() -> None:
    first, second = (State(torch.ones(3) * k, 1.0, 10.0, 0.7) for k in (1, 2))
    rng = np.random.default_rng(0)
    for state in (first, second):
        state.rows = torch.from_numpy(rng.standard_normal((6, 3)))
    before = [state.rows.clone() for state in (first, second)]
    mine, theirs = (torch.from_numpy(rng.standard_normal(3)) for _ in range(2))
    first.gossip_event(mine, theirs)
    second.gossip_event(theirs, mine)
    jumps = [state.rows - rows for state, rows in zip((first, second), before, strict=True)]
    torch.testing.assert_close(jumps[0], -jumps[1])
    assert float(jumps[0][:4].abs().max()) == 0.0
    assert float(jumps[0][4:].abs().min()) > 0.0


def test_time_does_not_run_back() -> None:
    state = State(torch.ones(3), 1.0, 10.0, 0.7)
    state.gradient_event(torch.ones(3).double(), torch.ones(3).double())
    state.advance(2.0)
    rows = state.rows.clone()
    state.advance(1.0)
    assert state.t == 2.0
    assert torch.equal(state.rows, rows)


# -- speed -----------------------------------------------------------------------------------------


def test_it_converges_at_least_at_the_speed_of_its_theory() -> None:
    """|x - x*|^2 falls like exp(-c t sqrt(mu / L)), with c = 1 / (8 sqrt 2) as in the flow."""

    def error(stop_s: float) -> float:
        x = models(run(stop_s=stop_s)[1])
        return float(((x - BOWLS.optimum(NODES)) ** 2).sum(axis=1).mean())

    early, late = error(20.0), error(110.0)
    slope = math.log(early / late) / 90
    assert slope >= math.sqrt(BOWLS.mu / (2 * L)) / 8


@pytest.mark.parametrize(("topology", "rate"), [("ring", 9.777), ("star", 7.0)])
def test_gossips_and_gradients_come_at_their_rates(topology: str, rate: float) -> None:
    """Ring of 8: sqrt(chi_1 (n - 1)) = 9.777; star: n - 1. Gradients: one per node and unit."""
    assert constants(topology, NODES)[2] == pytest.approx(rate, abs=1e-3)
    span = 100
    protocol, _ = run(topology, stop_s=float(span))
    gossips = sum(event.what == "commit" for event in protocol.events) / 2
    steps = sum(event.what == "step" for event in protocol.events)
    assert abs(gossips - rate * span) < 4 * math.sqrt(rate * span)
    assert abs(steps - NODES * span) < 4 * math.sqrt(NODES * span)


def test_slow_computing_does_not_change_the_rate_of_gossips() -> None:
    """Decoupled: gossips go on while gradients are late, and catch up after refusals."""
    span = 60
    slow = ComputePlan(time_s=0.7)
    protocol, _ = run(stop_s=float(span), compute=slow)
    gossips = sum(event.what == "commit" for event in protocol.events) / 2
    assert abs(gossips - 9.777 * span) < 4 * math.sqrt(9.777 * span)


def test_constants_can_be_given_and_must_be_known() -> None:
    @dataclass(frozen=True)
    class Unknown(Bowls):
        """Keeps its constants to itself."""

        def local(self, node: int, nodes: int, seed: int) -> LocalProblem:
            share = super().local(node, nodes, seed)
            share._constants = None  # type: ignore[attr-defined]
            return share

    with pytest.raises(RunError, match="does not know its mu and smoothness"):
        simulate(plans(3, "ring", {"kind": "dadao"}, Unknown(), 2))
    given = {"kind": "dadao", "mu": 1.0, "smoothness": 10.0}
    told = simulate(plans(3, "ring", given, Unknown(), 5))
    known = simulate(plans(3, "ring", {"kind": "dadao"}, Bowls(), 5))
    assert models(told).tolist() == models(known).tolist()


@pytest.mark.parametrize("lie", [math.nan, math.inf, 1e300, -1.0, 1e5])
@pytest.mark.parametrize("liar", [0, 1])
def test_a_time_that_makes_no_sense_is_refused(lie: float, liar: int) -> None:
    """As a starter or as an answerer: nothing of it gets into the other's state."""

    @dataclass(frozen=True)
    class Lying(DADAO):
        """One node says that it is some other time."""

        async def run(self, node: Node) -> None:
            await super().run(Clocked(node, lie) if node.id == liar else node)  # type: ignore[arg-type]

    made = plans(2, "line", Lying(unit=Duration(1.0)), BOWLS, 20, link=IDEAL)
    result = simulate(made, stop_s=40.0)
    honest = 1 - liar
    assert np.isfinite(models(result)[honest]).all()
    assert counters(result, "exchange_committed")[honest] == 0
    assert counters(result, "exchange_nonsense")[honest] > 3


@pytest.mark.parametrize("liar", [0, 1])
def test_a_vector_of_no_numbers_is_kept_out(liar: int) -> None:
    """As a starter or as an answerer."""

    @dataclass(frozen=True)
    class Lying(DADAO):
        """One node has lost its numbers."""

        async def run(self, node: Node) -> None:
            if node.id == liar:
                node.model = node.model * math.nan
            await super().run(node)

    made = plans(2, "line", Lying(unit=Duration(1.0)), BOWLS, 20, link=IDEAL)
    result = simulate(made, stop_s=40.0)
    honest = 1 - liar
    assert np.isfinite(models(result)[honest]).all()
    assert not np.isfinite(models(result)[liar]).any()
    assert (
        counters(result, "exchange_nonsense" if honest == 0 else "exchange_committed")[honest] > 3
    )


class Clocked:
    """A node that writes a false time into whatever it shows and offers."""

    def __init__(self, node: Node, t: float) -> None:
        self.__dict__.update(_node=node, _t=t)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._node, name, value)

    def on_exchange(self, offer: Any, commit: Any) -> None:
        """Offers with the false time."""

        def lying(peer: int, seen: Any) -> Any:
            return offer(peer, seen.replace(t=0.0)).replace(t=self._t)

        self._node.on_exchange(lying, commit)

    async def exchange(self, peer: int, ask: Any) -> Outcome:
        """Asks with the false time."""
        outcome: Outcome = await self._node.exchange(peer, lambda: At(self._t))
        return outcome


# -- rates per edge --------------------------------------------------------------------------------


BARBELL = {"kind": "barbell", "mixing": "least_gossip"}


def test_rates_by_the_convex_program_need_fewer_gossips_for_the_same_speed() -> None:
    """Counted per edge, against the weights; the error falls as fast as with equal rates."""
    span = 60.0
    schedule = schedule_of(NODES, BARBELL)
    facts, weights = schedule.facts(), schedule.phases[0].weights
    rates = weights * math.sqrt(2 * math.prod(facts.weights_chi))
    tuned, found = tuned_run(span)
    commits = Counter((event.node, event.peer) for event in tuned.events if event.what == "commit")
    for i, j in schedule.union.edges:
        expected = rates[i, j] * span
        assert abs(commits[i, j] - expected) < 5 * math.sqrt(expected) + 3
    total = sum(commits.values()) / 2
    assert Protocol.parse({"kind": "dadao", "rates": "weights"}).traffic(facts)[
        dadao.Dual
    ] * span / 2 == pytest.approx(total, abs=4 * math.sqrt(total))
    uniform, reference = run("barbell", stop_s=span)
    assert total < 0.7 * sum(event.what == "commit" for event in uniform.events) / 2
    errors = [
        float(((models(result) - BOWLS.optimum(NODES)) ** 2).sum(axis=1).mean())
        for result in (found, reference)
    ]
    assert errors[0] < 10 * errors[1] < 0.1


def tuned_run(span: float) -> tuple[TracedDADAO, Simulated]:
    protocol = TracedDADAO(unit=Duration(1.0), rates="weights")
    made = plans(NODES, BARBELL, protocol, BOWLS, None, link=IDEAL)
    return protocol, simulate(made, stop_s=span)


def test_weights_that_are_no_rates_are_refused() -> None:
    protocol = DADAO(rates="weights")
    exponential = schedule_of(8, "one_peer_exponential")
    with pytest.raises(ValueError, match="such as least_gossip"):
        protocol.check(exponential.union.in_degrees, exponential.facts())
